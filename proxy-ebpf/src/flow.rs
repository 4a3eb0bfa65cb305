//! Follows a connection to a peer from event to event, and counts what is new in each.

use mvproxy_common::PeerL4;

/// Totals of a connection when it was last counted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// One of the constants below.
    pub state: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub retransmits: u64,
}

impl Flow {
    pub const CONNECTING: u64 = 0;
    pub const ESTABLISHED: u64 = 1;
    pub const CLOSED: u64 = 2;

    /// Makes this the record of a new connection.
    ///
    /// A socket may connect again after a disconnect, so the record may be an old one. Volatile keeps the four stores
    /// from becoming a call of memset, which the verifier refuses to a loader without `CAP_PERFMON`.
    #[inline(always)]
    pub fn begin(&mut self) {
        // SAFETY: fields of a record that is borrowed mutably.
        unsafe {
            (&raw mut self.state).write_volatile(Self::CONNECTING);
            (&raw mut self.bytes_in).write_volatile(0);
            (&raw mut self.bytes_out).write_volatile(0);
            (&raw mut self.retransmits).write_volatile(0);
        }
    }
}

/// Totals of a connection as the kernel has them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub retransmits: u64,
    /// Smoothed round-trip time in microseconds.
    pub srtt_us: u64,
}

/// What happens to a connection, as far as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Connecting,
    Established,
    /// A round trip was measured.
    Sampled,
    Closed,
}

/// `BPF_SOCK_OPS_TCP_CONNECT_CB` of linux/bpf.h.
pub const CONNECT: u32 = 3;
/// `BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB`.
pub const ESTABLISHED: u32 = 4;
/// `BPF_SOCK_OPS_STATE_CB`.
pub const STATE: u32 = 10;
/// `BPF_SOCK_OPS_RTT_CB`.
pub const RTT: u32 = 12;

/// `TCP_CLOSE` of the kernel's TCP states.
const TCP_CLOSE: u32 = 7;

impl Event {
    /// The event of a `BPF_SOCK_OPS_*` number; `states` are the old and the new one, where it is a change of state.
    #[inline(always)]
    pub fn of(op: u32, states: impl FnOnce() -> (u32, u32)) -> Option<Self> {
        match op {
            CONNECT => Some(Self::Connecting),
            ESTABLISHED => Some(Self::Established),
            RTT => Some(Self::Sampled),
            STATE => {
                let (old, new) = states();
                (new == TCP_CLOSE && old != TCP_CLOSE).then_some(Self::Closed)
            }
            _ => None,
        }
    }
}

/// Counts an event of a connection that [`Flow::begin`] marked.
///
/// The kernel raises a connection's events one at a time, holding its lock, so a [`Flow`] has one writer; a
/// [`PeerL4`] has many. While a proxy is replaced, its successor's program sees the same events through the
/// same maps: [`Flow`] remembers what is counted, so nothing counts twice.
#[inline(always)]
pub fn advance(event: Event, flow: &mut Flow, l4: &mut PeerL4, totals: impl FnOnce() -> Totals) {
    match event {
        Event::Connecting => {}
        Event::Established => established(flow, l4),
        Event::Sampled => sampled(flow, l4, &totals()),
        Event::Closed => closed(flow, l4, &totals()),
    }
}

#[inline(always)]
fn established(flow: &mut Flow, l4: &mut PeerL4) {
    if flow.state == Flow::CONNECTING {
        flow.state = Flow::ESTABLISHED;
        add(&mut l4.opened, 1);
    }
}

/// Long watches live for hours, so bytes are counted along the way and not only at the end.
#[inline(always)]
fn sampled(flow: &mut Flow, l4: &mut PeerL4, totals: &Totals) {
    count_growth(flow, l4, totals);
    add(&mut l4.rtt_samples, 1);
    l4.srtt_us_last = totals.srtt_us;
    // Two connections may race here and the larger value win for one sample: a lower one will come again.
    if l4.srtt_us_min == 0 || totals.srtt_us < l4.srtt_us_min {
        l4.srtt_us_min = totals.srtt_us;
    }
}

#[inline(always)]
fn closed(flow: &mut Flow, l4: &mut PeerL4, totals: &Totals) {
    count_growth(flow, l4, totals);
    match flow.state {
        Flow::CONNECTING => add(&mut l4.failed, 1),
        Flow::ESTABLISHED => add(&mut l4.closed, 1),
        _ => {}
    }
    flow.state = Flow::CLOSED;
}

#[inline(always)]
fn count_growth(flow: &mut Flow, l4: &mut PeerL4, totals: &Totals) {
    // Totals read zero when the kernel does not hold the socket locked: nothing new is known then.
    add(&mut l4.bytes_in, totals.bytes_in.saturating_sub(flow.bytes_in));
    add(&mut l4.bytes_out, totals.bytes_out.saturating_sub(flow.bytes_out));
    add(&mut l4.retransmits, totals.retransmits.saturating_sub(flow.retransmits));
    flow.bytes_in = flow.bytes_in.max(totals.bytes_in);
    flow.bytes_out = flow.bytes_out.max(totals.bytes_out);
    flow.retransmits = flow.retransmits.max(totals.retransmits);
}

/// Adds to a counter that other CPUs add to as well.
///
/// Rust's atomics lack read-modify-write on the BPF target, so this is the instruction itself (`BPF_XADD`).
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub fn add(counter: &mut u64, count: u64) {
    // SAFETY: a counter is 8-byte aligned and outlives the run.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({counter} + 0) += {count}",
            counter = in(reg) core::ptr::from_mut(counter),
            count = in(reg) count,
        );
    }
}

/// Adds to a counter.
#[cfg(not(target_arch = "bpf"))]
pub fn add(counter: &mut u64, count: u64) {
    *counter += count;
}

#[cfg(test)]
mod tests;
