//! Hands events of the proxy's connections to known peers to what counts them; all others pass unseen.

use aya_ebpf::bindings::{
    BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_RTT_CB, BPF_SOCK_OPS_RTT_CB_FLAG, BPF_SOCK_OPS_STATE_CB,
    BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB,
};
use mvproxy_common::{PeerKey, PeerL4};
use mvproxy_ebpf::ctx::Ops;
use mvproxy_ebpf::flow::{CONNECT, ESTABLISHED, Event, Flow, RTT, STATE, advance};

use crate::maps::{FLOWS, PEER_L4, PEER_SLOTS};

const _: () = {
    assert!(CONNECT == BPF_SOCK_OPS_TCP_CONNECT_CB);
    assert!(ESTABLISHED == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB);
    assert!(STATE == BPF_SOCK_OPS_STATE_CB);
    assert!(RTT == BPF_SOCK_OPS_RTT_CB);
};

/// Handles one event of one connection.
#[inline(always)]
pub fn count(ops: &Ops) {
    match Event::of(ops.op(), || ops.states()) {
        None => {}
        Some(Event::Connecting) => connecting(ops),
        Some(event) => {
            let Some((flow, l4)) = counted(ops) else { return };
            advance(event, flow, l4, || ops.totals());
        }
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
    let Some(mut flow) = ops.flow(&FLOWS, true) else { return };
    // SAFETY: storage of this socket, which has one writer.
    unsafe { flow.as_mut() }.begin();
    ops.ask_for(BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RTT_CB_FLAG);
}

/// The records of a connection that [`connecting`] marked.
#[inline(always)]
fn counted(ops: &Ops) -> Option<(&'static mut Flow, &'static mut PeerL4)> {
    let mut flow = ops.flow(&FLOWS, false)?;
    let peer: PeerKey = ops.remote()?;
    let l4 = PEER_L4.get_ptr_mut(peer)?;
    // SAFETY: storage has one writer and lives through the event. The proxy never deletes from PEER_L4, and
    // its shared fields are added to atomically.
    unsafe { Some((flow.as_mut(), &mut *l4)) }
}
