//! Lays out the maps that decide whether and where a new connection is steered.

/// Value of [`SteerMode::mode`]: every connection goes to the API server.
pub const MODE_PASS: u32 = 0;
/// Value of [`SteerMode::mode`]: connections on steered ports go to a live worker.
pub const MODE_STEER: u32 = 1;

/// The switch in `STEER_MODE`; an operator may write it with `bpftool map update`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SteerMode {
    /// [`MODE_PASS`] or [`MODE_STEER`].
    pub mode: u32,
}

/// The parameters in `STEER_CONFIG`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SteerConfig {
    /// [`crate::ABI_VERSION`] of whoever wrote the maps; 0 in a map that was just created.
    pub abi_version: u32,
    /// Slots of `STEER_SOCKETS` that are used, at most [`crate::MAX_WORKERS`].
    pub workers: u32,
    /// Age in nanoseconds from which a heartbeat counts as that of a hung worker.
    pub stale_after_ns: u64,
    /// [`SOURCES_ALL`] or [`SOURCES_LISTED`].
    pub sources: u32,
    /// Of these sources, how many in a hundred are steered; see [`spread`].
    pub percent: u32,
    /// Lowest source port of the peer lane; 0 when there is none.
    pub lane_first: u16,
    /// Highest source port of the peer lane; 0 when there is none.
    pub lane_last: u16,
    /// Zero.
    pub pad: u32,
}

/// Value of [`SteerConfig::sources`]: `STEER_SOURCES` is not asked.
pub const SOURCES_ALL: u32 = 0;
/// Value of [`SteerConfig::sources`]: only sources whose longest match in `STEER_SOURCES` is 1.
pub const SOURCES_LISTED: u32 = 1;

/// A worker's entry in `HEARTBEATS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// `CLOCK_BOOTTIME` in nanoseconds when the worker last turned its accept loop.
    pub boot_ns: u64,
}

/// A key of `EXEMPT`, sources whose connections are never steered, and of `LANE_PEERS`, those for which the source port
/// decides.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SourceKey {
    /// IPv6 address in network order; IPv4 as v4-mapped.
    pub addr: [u8; 16],
}

/// What the steering program decided, one value per CPU in `STEER_STATS`.
///
/// Every lookup adds one to exactly one of the fields but `taken_over` and `logged_ns`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SteerStats {
    /// Handed to a worker.
    pub steered: u64,
    /// Another port or protocol.
    pub other_port: u64,
    /// From an exempt source.
    pub exempt: u64,
    /// The mode word says pass.
    pub mode_pass: u64,
    /// No worker had a fresh heartbeat, though one had a listener.
    pub stale: u64,
    /// No slot held a listener.
    pub no_listener: u64,
    /// The kernel refused every live listener, such as an IPv6-only one for an IPv4 client.
    pub refused: u64,
    /// The maps were written by a release with other layouts.
    pub other_abi: u64,
    /// Of `steered`: not the first choice, because that worker was hung or gone.
    pub taken_over: u64,
    /// From a source that is not part of the canary.
    pub canary: u64,
    /// Requests of a peer's proxy, by its address and source port.
    pub lane: u64,
    /// `CLOCK_BOOTTIME` in nanoseconds of the last log line from this CPU.
    pub logged_ns: u64,
}

impl SteerStats {
    /// Adds another CPU's counts; of `logged_ns` the latest is kept.
    pub fn add(&mut self, other: &Self) {
        self.steered += other.steered;
        self.other_port += other.other_port;
        self.exempt += other.exempt;
        self.mode_pass += other.mode_pass;
        self.stale += other.stale;
        self.no_listener += other.no_listener;
        self.refused += other.refused;
        self.other_abi += other.other_abi;
        self.taken_over += other.taken_over;
        self.canary += other.canary;
        self.lane += other.lane;
        self.logged_ns = self.logged_ns.max(other.logged_ns);
    }

    /// Each decision's name and count.
    pub fn decisions(&self) -> [(&'static str, u64); 10] {
        [
            ("steered", self.steered),
            ("other_port", self.other_port),
            ("exempt", self.exempt),
            ("mode_pass", self.mode_pass),
            ("stale", self.stale),
            ("no_listener", self.no_listener),
            ("refused", self.refused),
            ("other_abi", self.other_abi),
            ("canary", self.canary),
            ("lane", self.lane),
        ]
    }

    /// Connections on a steered port that went to the API server although steering was on and the source was
    /// not exempt.
    pub fn failed_open(&self) -> u64 {
        self.stale + self.no_listener + self.refused + self.other_abi
    }
}

/// Spreads source addresses, given as the words in which they lie in memory, over all numbers. Whether a source is part of
/// the canary depends on `spread(0, words) % 100`.
#[inline]
pub const fn spread(seed: u32, words: [u32; 4]) -> u32 {
    let [a, b, c, d] = words;
    mix(mix(mix(mix(seed, a), b), c), d)
}

/// One round of a hash that changes half of all bits when one changes, so that the addresses of one network spread evenly
/// (the finalizer of `MurmurHash3`).
#[inline]
const fn mix(hash: u32, word: u32) -> u32 {
    let hash = hash ^ word;
    let hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    let hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

/// The v4-mapped form (RFC 4291, 2.5.5.2) of an IPv4 address given in network order.
pub const fn v4_mapped(ip: [u8; 4]) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ip[0], ip[1], ip[2], ip[3]]
}

const _: () = {
    assert!(size_of::<SteerMode>() == 4);
    assert!(size_of::<SteerConfig>() == 32);
    assert!(size_of::<Heartbeat>() == 8);
    assert!(size_of::<SourceKey>() == 16);
    assert!(size_of::<SteerStats>() == 96);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_percentage_of_neighbouring_sources_is_near_what_was_asked_for() {
        for percent in [1_u32, 10, 50, 90] {
            let hits = (0..=u16::MAX).filter(|host| {
                let [high, low] = host.to_be_bytes();
                let address = v4_mapped([10, 7, high, low]);
                let (words, _) = address.as_chunks::<4>();
                let words = [words[0], words[1], words[2], words[3]].map(u32::from_ne_bytes);
                spread(0, words) % 100 < percent
            });
            let wanted = 65_536 * percent / 100;
            let found = u32::try_from(hits.count()).unwrap_or(u32::MAX);
            assert!(found.abs_diff(wanted) < 655, "{percent} %: {found} instead of {wanted}");
        }
    }
}
