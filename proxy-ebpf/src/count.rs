//! Counts the proxy's connections to known peers; all others pass unseen.

use aya_ebpf::bindings::{
    BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_RTT_CB, BPF_SOCK_OPS_RTT_CB_FLAG, BPF_SOCK_OPS_STATE_CB,
    BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB,
};
use mvproxy_common::{PeerKey, PeerL4};

use crate::ctx::{Ops, Totals};
use crate::maps::{Flow, PEER_L4, PEER_SLOTS};

/// `TCP_CLOSE` of the kernel's TCP states.
const TCP_CLOSE: u32 = 7;

/// Handles one event of one connection.
///
/// The kernel raises a connection's events one at a time, holding its lock, so a [`Flow`] has one writer; a
/// [`PeerL4`] has many. While a proxy is replaced, its successor's program sees the same events through the
/// same maps: [`Flow`] remembers what is counted, so nothing counts twice.
#[inline(always)]
pub fn count(ops: &Ops) {
    match ops.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => connecting(ops),
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => established(ops),
        BPF_SOCK_OPS_RTT_CB => sampled(ops),
        BPF_SOCK_OPS_STATE_CB => state_changed(ops),
        _ => {}
    }
}

/// Marks connections to known peers and asks for their later events.
#[inline(always)]
fn connecting(ops: &Ops) {
    let Some(peer) = ops.remote() else { return };
    // SAFETY: only whether the key exists is used.
    if unsafe { PEER_SLOTS.get(peer) }.is_none() {
        return;
    }
    let Some(flow) = ops.flow(true) else { return };
    let flow = flow.as_ptr();
    // A socket may connect again after a disconnect, so the record may be an old one. Volatile keeps the four
    // stores from becoming a call of memset, which the verifier refuses to a loader without CAP_PERFMON.
    // SAFETY: storage of this socket, which has one writer.
    unsafe {
        (&raw mut (*flow).state).write_volatile(Flow::CONNECTING);
        (&raw mut (*flow).bytes_in).write_volatile(0);
        (&raw mut (*flow).bytes_out).write_volatile(0);
        (&raw mut (*flow).retransmits).write_volatile(0);
    }
    ops.ask_for(BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RTT_CB_FLAG);
}

#[inline(always)]
fn established(ops: &Ops) {
    let Some((flow, l4)) = counted(ops) else { return };
    if flow.state == Flow::CONNECTING {
        flow.state = Flow::ESTABLISHED;
        add(&raw mut l4.opened, 1);
    }
}

/// Long watches live for hours, so bytes are counted along the way and not only at the end.
#[inline(always)]
fn sampled(ops: &Ops) {
    let Some((flow, l4)) = counted(ops) else { return };
    let totals = ops.totals();
    count_growth(flow, l4, &totals);
    add(&raw mut l4.rtt_samples, 1);
    l4.srtt_us_last = totals.srtt_us;
    // Two connections may race here and the larger value win for one sample: a lower one will come again.
    if l4.srtt_us_min == 0 || totals.srtt_us < l4.srtt_us_min {
        l4.srtt_us_min = totals.srtt_us;
    }
}

#[inline(always)]
fn state_changed(ops: &Ops) {
    let (old, new) = ops.states();
    if new != TCP_CLOSE || old == TCP_CLOSE {
        return;
    }
    let Some((flow, l4)) = counted(ops) else { return };
    count_growth(flow, l4, &ops.totals());
    match flow.state {
        Flow::CONNECTING => add(&raw mut l4.failed, 1),
        Flow::ESTABLISHED => add(&raw mut l4.closed, 1),
        _ => {}
    }
    flow.state = Flow::CLOSED;
}

/// The records of a connection that [`connecting`] marked.
#[inline(always)]
fn counted(ops: &Ops) -> Option<(&'static mut Flow, &'static mut PeerL4)> {
    let mut flow = ops.flow(false)?;
    let peer: PeerKey = ops.remote()?;
    let l4 = PEER_L4.get_ptr_mut(peer)?;
    // SAFETY: storage has one writer and lives through the event. The proxy never deletes from PEER_L4, and
    // its shared fields are added to atomically.
    unsafe { Some((flow.as_mut(), &mut *l4)) }
}

#[inline(always)]
fn count_growth(flow: &mut Flow, l4: &mut PeerL4, totals: &Totals) {
    // Totals read zero when the kernel does not hold the socket locked: nothing new is known then.
    add(&raw mut l4.bytes_in, totals.bytes_in.saturating_sub(flow.bytes_in));
    add(&raw mut l4.bytes_out, totals.bytes_out.saturating_sub(flow.bytes_out));
    add(&raw mut l4.retransmits, totals.retransmits.saturating_sub(flow.retransmits));
    flow.bytes_in = flow.bytes_in.max(totals.bytes_in);
    flow.bytes_out = flow.bytes_out.max(totals.bytes_out);
    flow.retransmits = flow.retransmits.max(totals.retransmits);
}

/// Adds to a counter that other CPUs add to as well.
///
/// Rust's atomics lack read-modify-write on the BPF target, so this is the instruction itself (`BPF_XADD`).
#[inline(always)]
fn add(counter: *mut u64, count: u64) {
    // SAFETY: all callers pass a field of a map value, which is 8-byte aligned and outlives the run.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({counter} + 0) += {count}",
            counter = in(reg) counter,
            count = in(reg) count,
        );
    }
}
