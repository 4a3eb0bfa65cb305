//! Decides which worker's listener gets a new connection; in doubt none, which means the API server.

use mvproxy_common::{ABI_VERSION, MAX_WORKERS, MODE_STEER, SOURCES_ALL, SteerConfig, SteerStats, spread};

use crate::address::Address;

/// What the kernel and the maps say about a packet for which a listener is looked up.
pub trait Lookup {
    /// A listener; given back when dropped.
    type Socket;

    fn is_tcp(&self) -> bool;
    /// Destination port in host order.
    fn local_port(&self) -> u16;
    fn source(&self) -> Address;
    /// Source port in network order.
    fn source_port_be(&self) -> u16;
    /// Whether connections to this port are steered.
    fn is_steered(&self, port: u16) -> bool;
    /// Whether this is the proxy's own source.
    fn is_exempt(&self, source: Address) -> bool;
    /// The switch.
    fn mode(&self) -> Option<u32>;
    fn config(&self) -> Option<&SteerConfig>;
    /// Whether a peer has this address.
    fn is_peer(&self, source: Address) -> bool;
    /// Whether the address is among those that are steered where not all are.
    fn is_listed(&self, source: Address) -> bool;
    /// The listener of a worker.
    fn listener(&self, worker: u32) -> Option<Self::Socket>;
    /// When a worker last turned its accept loop, in nanoseconds since boot.
    fn heartbeat(&self, worker: u32) -> Option<u64>;
    /// Nanoseconds since boot.
    fn now(&self) -> u64;
    /// Makes the listener the receiver of the connection; false when the kernel refuses it for this packet.
    fn assign(&self, listener: &Self::Socket) -> bool;
}

/// What became of a lookup; every variant is one counter of [`SteerStats`].
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Steered { taken_over: bool },
    OtherPort,
    Exempt,
    ModePass,
    Lane,
    Canary,
    Stale,
    NoListener,
    Refused,
    OtherAbi,
}

/// Decides about one connection, and assigns the listener that it goes to.
#[inline(always)]
pub fn decide(lookup: &impl Lookup) -> Verdict {
    if !lookup.is_tcp() || !lookup.is_steered(lookup.local_port()) {
        return Verdict::OtherPort;
    }
    let source = lookup.source();
    if lookup.is_exempt(source) {
        return Verdict::Exempt;
    }
    if lookup.mode() != Some(MODE_STEER) {
        return Verdict::ModePass;
    }
    match lookup.config() {
        Some(config) if config.abi_version == ABI_VERSION => {
            if is_on_lane(lookup, source, config) {
                Verdict::Lane
            } else if is_chosen(lookup, source, config) {
                pick_worker(lookup, source, config)
            } else {
                Verdict::Canary
            }
        }
        _ => Verdict::OtherAbi,
    }
}

/// Whether this is a request that a peer's proxy sends to the API server: it must not be handled by a proxy twice.
#[inline(always)]
fn is_on_lane(lookup: &impl Lookup, source: Address, config: &SteerConfig) -> bool {
    let port = u16::from_be(lookup.source_port_be());
    config.lane_first <= port && port <= config.lane_last && lookup.is_peer(source)
}

/// Whether clients at this address are steered at all. The port has no say: a client always gets the same answer.
#[inline(always)]
fn is_chosen(lookup: &impl Lookup, source: Address, config: &SteerConfig) -> bool {
    if config.sources != SOURCES_ALL && !lookup.is_listed(source) {
        return false;
    }
    config.percent >= 100 || spread(0, source.words) % 100 < config.percent
}

/// Starts at a worker given by the client's address and takes the first that lives.
///
/// Unrolled by hand: for a loader without `CAP_PERFMON` the verifier also follows mispredicted branches, and on
/// those a loop has no end.
#[inline(always)]
fn pick_worker<L: Lookup>(lookup: &L, source: Address, config: &SteerConfig) -> Verdict {
    let mut choice = Choice {
        workers: config.workers,
        stale_after_ns: config.stale_after_ns,
        now: lookup.now(),
        next: spread(u32::from(lookup.source_port_be()), source.words),
        turn: 0,
        miss: Verdict::NoListener,
    };
    macro_rules! turns {
        ($($turn:literal)+) => {
            const { assert!([$($turn),+].len() == MAX_WORKERS as usize) };
            $(if choice.try_next(lookup) {
                return Verdict::Steered { taken_over: $turn > 0 };
            })+
        };
    }
    turns!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    choice.miss
}

/// The search for a worker.
struct Choice {
    workers: u32,
    stale_after_ns: u64,
    now: u64,
    /// The worker whose turn it is, modulo `workers`.
    next: u32,
    turn: u32,
    /// What it will be if no worker is found.
    miss: Verdict,
}

impl Choice {
    /// Tries the next worker; does nothing once every worker had its turn.
    #[inline(always)]
    fn try_next(&mut self, lookup: &impl Lookup) -> bool {
        if self.turn >= self.workers {
            return false;
        }
        let worker = self.next.wrapping_add(self.turn) % self.workers;
        self.turn += 1;
        let Some(listener) = lookup.listener(worker) else { return false };
        if !is_fresh(lookup.heartbeat(worker), self.now, self.stale_after_ns) {
            self.miss = Verdict::Stale;
            return false;
        }
        if !lookup.assign(&listener) {
            self.miss = Verdict::Refused;
            return false;
        }
        true
    }
}

#[inline(always)]
fn is_fresh(heartbeat: Option<u64>, now: u64, stale_after_ns: u64) -> bool {
    // The worker may have written after `now` was read.
    heartbeat.is_some_and(|boot_ns| now.saturating_sub(boot_ns) < stale_after_ns)
}

/// Counts a verdict, and tells of one that an operator should know of, if a line is due.
#[inline(always)]
pub fn account(
    stats: &mut SteerStats,
    verdict: &Verdict,
    now: impl FnOnce() -> u64,
    tell: impl FnOnce(&Verdict),
) {
    match verdict {
        Verdict::Steered { taken_over } => {
            stats.steered += 1;
            stats.taken_over += u64::from(*taken_over);
        }
        Verdict::OtherPort => stats.other_port += 1,
        Verdict::Exempt => stats.exempt += 1,
        Verdict::ModePass => stats.mode_pass += 1,
        Verdict::Lane => stats.lane += 1,
        Verdict::Canary => stats.canary += 1,
        Verdict::NoListener => stats.no_listener += 1,
        Verdict::Stale => {
            stats.stale += 1;
            if may_log(stats, now()) {
                tell(&Verdict::Stale);
            }
        }
        Verdict::Refused => {
            stats.refused += 1;
            if may_log(stats, now()) {
                tell(&Verdict::Refused);
            }
        }
        Verdict::OtherAbi => {
            stats.other_abi += 1;
            if may_log(stats, now()) {
                tell(&Verdict::OtherAbi);
            }
        }
    }
}

/// At most one line per second and CPU, however many clients connect.
#[inline(always)]
fn may_log(stats: &mut SteerStats, now: u64) -> bool {
    const EVERY_NS: u64 = 1_000_000_000;
    let due = now.saturating_sub(stats.logged_ns) >= EVERY_NS;
    if due {
        stats.logged_ns = now;
    }
    due
}

#[cfg(test)]
mod tests;
