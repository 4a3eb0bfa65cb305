//! Decides which worker's listener gets a new connection; in doubt none, which means the API server.

use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_log_ebpf::warn;
use mvproxy_common::{ABI_VERSION, MAX_WORKERS, MODE_STEER, SOURCES_ALL, SteerConfig, SteerStats, spread};

use crate::ctx::{Address, Lookup, boot_ns};
use crate::maps::{
    EXEMPT, HEARTBEATS, LANE_PEERS, STEER_CONFIG, STEER_MODE, STEER_PORTS, STEER_SOCKETS, STEER_SOURCES,
    STEER_STATS,
};

/// What became of a lookup; every variant is one counter of [`SteerStats`].
enum Verdict {
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

/// Steers one connection and counts the verdict.
#[inline(always)]
pub fn steer(lookup: &Lookup) {
    let verdict = decide(lookup);
    if let Some(stats) = STEER_STATS.get_ptr_mut(0) {
        // SAFETY: a per-CPU value; the kernel runs the program to its end on one CPU.
        account(unsafe { &mut *stats }, &verdict, lookup);
    }
}

#[inline(always)]
fn decide(lookup: &Lookup) -> Verdict {
    // SAFETY: of the maps below only whether a key exists is used, so nothing can change under a reference.
    let is_steered = |port: u16| unsafe { STEER_PORTS.get(port).is_some() };
    // SAFETY: as above.
    let is_exempt = |source: Address| unsafe { EXEMPT.get(source.source_key()).is_some() };

    if !lookup.is_tcp() || !is_steered(lookup.local_port()) {
        return Verdict::OtherPort;
    }
    let source = lookup.source();
    if is_exempt(source) {
        return Verdict::Exempt;
    }
    if STEER_MODE.get(0).is_none_or(|word| word.mode != MODE_STEER) {
        return Verdict::ModePass;
    }
    match STEER_CONFIG.get(0) {
        Some(config) if config.abi_version == ABI_VERSION => {
            if is_on_lane(lookup, source, config) {
                Verdict::Lane
            } else if is_chosen(source, config) {
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
fn is_on_lane(lookup: &Lookup, source: Address, config: &SteerConfig) -> bool {
    let port = u16::from_be(lookup.source_port_be());
    // SAFETY: only whether the key exists is used, so nothing can change under a reference.
    let is_peer = || unsafe { LANE_PEERS.get(source.source_key()).is_some() };
    config.lane_first <= port && port <= config.lane_last && is_peer()
}

/// Whether clients at this address are steered at all. The port has no say: a client always gets the same answer.
#[inline(always)]
fn is_chosen(source: Address, config: &SteerConfig) -> bool {
    if config.sources != SOURCES_ALL {
        let key = Key::new(128, source.source_key());
        if STEER_SOURCES.get(&key).is_none_or(|listed| *listed == 0) {
            return false;
        }
    }
    config.percent >= 100 || spread(0, source.words) % 100 < config.percent
}

/// Starts at a worker given by the client's address and takes the first that lives.
///
/// Unrolled by hand: for a loader without `CAP_PERFMON` the verifier also follows mispredicted branches, and on
/// those a loop has no end.
#[inline(always)]
fn pick_worker(lookup: &Lookup, source: Address, config: &SteerConfig) -> Verdict {
    let mut choice = Choice {
        workers: config.workers,
        stale_after_ns: config.stale_after_ns,
        now: boot_ns(),
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
    fn try_next(&mut self, lookup: &Lookup) -> bool {
        if self.turn >= self.workers {
            return false;
        }
        let worker = self.next.wrapping_add(self.turn) % self.workers;
        self.turn += 1;
        let Some(socket) = STEER_SOCKETS.socket(worker) else { return false };
        if !is_fresh(worker, self.now, self.stale_after_ns) {
            self.miss = Verdict::Stale;
            return false;
        }
        if !lookup.assign(&socket) {
            self.miss = Verdict::Refused;
            return false;
        }
        true
    }
}

#[inline(always)]
fn is_fresh(worker: u32, now: u64, stale_after_ns: u64) -> bool {
    HEARTBEATS.get_ptr(worker).is_some_and(|beat| {
        // SAFETY: an array value never goes away; volatile because the proxy writes it at any time.
        let boot_ns = unsafe { (&raw const (*beat).boot_ns).read_volatile() };
        // The worker may have written after `now` was read.
        now.saturating_sub(boot_ns) < stale_after_ns
    })
}

#[inline(always)]
fn account(stats: &mut SteerStats, verdict: &Verdict, lookup: &Lookup) {
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
            if may_log(stats) {
                warn!(lookup.raw(), "no worker has a fresh heartbeat; connections go to the API server");
            }
        }
        Verdict::Refused => {
            stats.refused += 1;
            if may_log(stats) {
                warn!(
                    lookup.raw(),
                    "no listener fits the client's address family; it goes to the API server"
                );
            }
        }
        Verdict::OtherAbi => {
            stats.other_abi += 1;
            if may_log(stats) {
                warn!(lookup.raw(), "maps have another layout; connections go to the API server");
            }
        }
    }
}

/// At most one line per second and CPU, however many clients connect.
#[inline(always)]
fn may_log(stats: &mut SteerStats) -> bool {
    const EVERY_NS: u64 = 1_000_000_000;
    let now = boot_ns();
    let due = now.saturating_sub(stats.logged_ns) >= EVERY_NS;
    if due {
        stats.logged_ns = now;
    }
    due
}
