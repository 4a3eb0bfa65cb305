//! Lays out the counters that are kept for every peer.

use crate::{MAX_WORKERS, PEER_L7_SHARDS};

/// A peer API server's address, key of `PEER_SLOTS` and `PEER_L4`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PeerKey {
    /// IPv6 address in network order; IPv4 as v4-mapped.
    pub addr: [u8; 16],
    /// Port in host order.
    pub port: u16,
    /// Zero, so that equal keys are equal bytes.
    pub pad: [u8; 6],
}

/// Connections from the proxy to one peer, written by the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerL4 {
    /// Connections that were established.
    pub opened: u64,
    /// Established connections that ended.
    pub closed: u64,
    /// Attempts that ended before they were established.
    pub failed: u64,
    /// Payload bytes received, `tcpi_bytes_received` of `TCP_INFO`.
    pub bytes_in: u64,
    /// Bytes that the peer acknowledged, `tcpi_bytes_acked` of `TCP_INFO` (SYN and FIN count one each).
    pub bytes_out: u64,
    /// Segments sent again, `tcpi_total_retrans` of `TCP_INFO`.
    pub retransmits: u64,
    /// Round trips that were measured.
    pub rtt_samples: u64,
    /// Smoothed round-trip time in microseconds after the latest sample.
    pub srtt_us_last: u64,
    /// Smallest smoothed round-trip time in microseconds; 0 before the first sample.
    pub srtt_us_min: u64,
}

/// Requests of one worker to one peer, an entry of `PEER_L7` written by the proxy.
///
/// Three cache lines long, so that workers never write to the same line.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerL7 {
    /// Address of the peer as in [`PeerKey`]; unspecified in the overflow slot.
    pub addr: [u8; 16],
    /// Port of the peer in host order.
    pub port: u16,
    /// Worker that writes this shard.
    pub worker: u16,
    /// [`SHARD_FREE`] or [`SHARD_IN_USE`].
    pub in_use: u32,
    /// Requests sent.
    pub requests: u64,
    /// Final responses with a 1xx code (101 after an upgrade).
    pub responses_1xx: u64,
    /// Final responses with a 2xx code.
    pub responses_2xx: u64,
    /// Final responses with a 3xx code.
    pub responses_3xx: u64,
    /// Final responses with a 4xx code.
    pub responses_4xx: u64,
    /// Final responses with a 5xx code.
    pub responses_5xx: u64,
    /// Requests that ended without a response.
    pub errors: u64,
    /// Of `errors`: no connection or no TLS session could be had.
    pub errors_connect: u64,
    /// Of `errors`: the peer did not answer in time.
    pub errors_timeout: u64,
    /// Requests that the local API server does not serve.
    pub rerouted: u64,
    /// Requests that were tried at another server before.
    pub retried: u64,
    /// Requests that became an upgraded connection.
    pub upgrades: u64,
    /// Sum of the times from request to response header, in nanoseconds.
    pub latency_ns_sum: u64,
    /// Responses by time to response header; bucket `i` is below [`LATENCY_BOUNDS_NS`]`[i]`, the last has
    /// no bound.
    pub latency: [u64; 8],
}

/// Value of [`PeerL7::in_use`] in a shard that belongs to no peer.
pub const SHARD_FREE: u32 = 0;
/// Value of [`PeerL7::in_use`] in a shard that belongs to a peer.
pub const SHARD_IN_USE: u32 = 1;

/// Upper bounds of all [`PeerL7::latency`] buckets but the last: 1, 5, 25, 100, 500 ms, 2.5 s and 10 s.
pub const LATENCY_BOUNDS_NS: [u64; 7] =
    [1_000_000, 5_000_000, 25_000_000, 100_000_000, 500_000_000, 2_500_000_000, 10_000_000_000];

impl PeerL7 {
    /// Adds another shard's counts; address and worker stay.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.responses_1xx += other.responses_1xx;
        self.responses_2xx += other.responses_2xx;
        self.responses_3xx += other.responses_3xx;
        self.responses_4xx += other.responses_4xx;
        self.responses_5xx += other.responses_5xx;
        self.errors += other.errors;
        self.errors_connect += other.errors_connect;
        self.errors_timeout += other.errors_timeout;
        self.rerouted += other.rerouted;
        self.retried += other.retried;
        self.upgrades += other.upgrades;
        self.latency_ns_sum += other.latency_ns_sum;
        for (sum, count) in self.latency.iter_mut().zip(other.latency) {
            *sum += count;
        }
    }
}

/// Index into `PEER_L7` of a worker's shard of a slot.
///
/// Workers beyond [`MAX_WORKERS`] share shards, which costs contention and loses no count.
pub const fn shard_index(slot: u32, worker: u32) -> u32 {
    slot * MAX_WORKERS + worker % MAX_WORKERS
}

/// Slot that an index into `PEER_L7` belongs to.
pub const fn slot_of_shard(index: u32) -> u32 {
    index / MAX_WORKERS
}

const _: () = {
    assert!(size_of::<PeerKey>() == 24);
    assert!(size_of::<PeerL4>() == 72);
    assert!(size_of::<PeerL7>() == 192);
    assert!(shard_index(crate::OVERFLOW_SLOT, MAX_WORKERS - 1) == PEER_L7_SHARDS - 1);
};
