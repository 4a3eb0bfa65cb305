//! Gives userspace its view of the shared layouts: aya's `Pod`, and atomic cells over mapped memory.
#![expect(unsafe_code, reason = "Pod and SharedCells are promises about layout, kept next to the layouts")]

use core::mem::offset_of;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::{
    Heartbeat, LATENCY_BOUNDS_NS, PeerKey, PeerL4, PeerL7, SourceKey, SteerConfig, SteerMode, SteerStats,
    SynBudget, XdpConfig, XdpStats,
};

macro_rules! pod {
    ($($layout:ty),+ $(,)?) => {$(
        // SAFETY: `repr(C)` and made of integers only; the sizes asserted beside the type leave no padding.
        unsafe impl aya::Pod for $layout {}
    )+};
}

pod!(
    Heartbeat,
    PeerKey,
    PeerL4,
    PeerL7,
    SourceKey,
    SteerConfig,
    SteerMode,
    SteerStats,
    SynBudget,
    XdpConfig,
    XdpStats
);

/// A type that may be laid over memory which the kernel and other processes write at the same time.
///
/// # Safety
///
/// The type is `repr(C)`, consists of atomics only, is valid for every bit pattern, and its size is a
/// multiple of 8, the stride of BPF arrays.
pub unsafe trait SharedCells: Sync {}

// SAFETY: one AtomicU64.
unsafe impl SharedCells for HeartbeatCells {}
// SAFETY: `repr(C)`, atomics only; the assertions below give it the size of PeerL7, 192.
unsafe impl SharedCells for PeerL7Cells {}

/// [`Heartbeat`] as memory shared with the kernel.
#[repr(C)]
#[derive(Debug, Default)]
pub struct HeartbeatCells {
    /// See [`Heartbeat::boot_ns`].
    pub boot_ns: AtomicU64,
}

/// [`PeerL7`] as memory shared with the kernel and with a proxy being replaced; all access is relaxed.
#[repr(C)]
#[derive(Debug, Default)]
pub struct PeerL7Cells {
    /// The bytes of [`PeerL7::addr`] as two native-endian words.
    pub addr: [AtomicU64; 2],
    /// See [`PeerL7::port`].
    pub port: AtomicU16,
    /// See [`PeerL7::worker`].
    pub worker: AtomicU16,
    /// See [`PeerL7::in_use`].
    pub in_use: AtomicU32,
    /// See [`PeerL7::requests`].
    pub requests: AtomicU64,
    /// See [`PeerL7::responses_1xx`].
    pub responses_1xx: AtomicU64,
    /// See [`PeerL7::responses_2xx`].
    pub responses_2xx: AtomicU64,
    /// See [`PeerL7::responses_3xx`].
    pub responses_3xx: AtomicU64,
    /// See [`PeerL7::responses_4xx`].
    pub responses_4xx: AtomicU64,
    /// See [`PeerL7::responses_5xx`].
    pub responses_5xx: AtomicU64,
    /// See [`PeerL7::errors`].
    pub errors: AtomicU64,
    /// See [`PeerL7::errors_connect`].
    pub errors_connect: AtomicU64,
    /// See [`PeerL7::errors_timeout`].
    pub errors_timeout: AtomicU64,
    /// See [`PeerL7::rerouted`].
    pub rerouted: AtomicU64,
    /// See [`PeerL7::retried`].
    pub retried: AtomicU64,
    /// See [`PeerL7::upgrades`].
    pub upgrades: AtomicU64,
    /// See [`PeerL7::latency_ns_sum`].
    pub latency_ns_sum: AtomicU64,
    /// See [`PeerL7::latency`].
    pub latency: [AtomicU64; 8],
}

impl PeerL7Cells {
    /// Counts a final response: its class and the nanoseconds from request to response header.
    pub fn add_response(&self, code: u16, latency_ns: u64) {
        let class = match code {
            100..=199 => &self.responses_1xx,
            200..=299 => &self.responses_2xx,
            300..=399 => &self.responses_3xx,
            400..=499 => &self.responses_4xx,
            _ => &self.responses_5xx,
        };
        class.fetch_add(1, Relaxed);
        self.latency_ns_sum.fetch_add(latency_ns, Relaxed);
        let bucket = LATENCY_BOUNDS_NS.iter().take_while(|bound| latency_ns >= **bound).count();
        self.latency[bucket].fetch_add(1, Relaxed);
    }

    /// Makes this the shard of `worker` for a peer; counts stay.
    pub fn assign(&self, peer: &PeerKey, worker: u16, in_use: u32) {
        for (cell, word) in self.addr.iter().zip(words_of(&peer.addr)) {
            cell.store(word, Relaxed);
        }
        self.port.store(peer.port, Relaxed);
        self.worker.store(worker, Relaxed);
        self.in_use.store(in_use, Relaxed);
    }

    /// Reads every field; fields of one snapshot may be a request apart.
    pub fn snapshot(&self) -> PeerL7 {
        PeerL7 {
            addr: bytes_of([self.addr[0].load(Relaxed), self.addr[1].load(Relaxed)]),
            port: self.port.load(Relaxed),
            worker: self.worker.load(Relaxed),
            in_use: self.in_use.load(Relaxed),
            requests: self.requests.load(Relaxed),
            responses_1xx: self.responses_1xx.load(Relaxed),
            responses_2xx: self.responses_2xx.load(Relaxed),
            responses_3xx: self.responses_3xx.load(Relaxed),
            responses_4xx: self.responses_4xx.load(Relaxed),
            responses_5xx: self.responses_5xx.load(Relaxed),
            errors: self.errors.load(Relaxed),
            errors_connect: self.errors_connect.load(Relaxed),
            errors_timeout: self.errors_timeout.load(Relaxed),
            rerouted: self.rerouted.load(Relaxed),
            retried: self.retried.load(Relaxed),
            upgrades: self.upgrades.load(Relaxed),
            latency_ns_sum: self.latency_ns_sum.load(Relaxed),
            latency: core::array::from_fn(|bucket| self.latency[bucket].load(Relaxed)),
        }
    }
}

fn words_of(addr: &[u8; 16]) -> [u64; 2] {
    let (words, _) = addr.as_chunks::<8>();
    [u64::from_ne_bytes(words[0]), u64::from_ne_bytes(words[1])]
}

fn bytes_of(words: [u64; 2]) -> [u8; 16] {
    let mut addr = [0; 16];
    for (bytes, word) in addr.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *bytes = word.to_ne_bytes();
    }
    addr
}

macro_rules! assert_same_layout {
    ($plain:ty, $cells:ty: $($field:ident),+ $(,)?) => {
        const _: () = {
            assert!(size_of::<$plain>() == size_of::<$cells>());
            assert!(align_of::<$plain>() == align_of::<$cells>());
            $(assert!(offset_of!($plain, $field) == offset_of!($cells, $field));)+
        };
    };
}

assert_same_layout!(Heartbeat, HeartbeatCells: boot_ns);
assert_same_layout!(
    PeerL7, PeerL7Cells:
    addr, port, worker, in_use, requests,
    responses_1xx, responses_2xx, responses_3xx, responses_4xx, responses_5xx,
    errors, errors_connect, errors_timeout, rerouted, retried, upgrades, latency_ns_sum, latency,
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_land_in_their_class_and_bucket() {
        let cells = PeerL7Cells::default();
        for (code, latency_ns) in
            [(101, 0), (200, 999_999), (304, 1_000_000), (404, 9_999_999_999), (503, 10_000_000_000)]
        {
            cells.add_response(code, latency_ns);
        }
        let shard = cells.snapshot();
        assert_eq!(
            [
                shard.responses_1xx,
                shard.responses_2xx,
                shard.responses_3xx,
                shard.responses_4xx,
                shard.responses_5xx
            ],
            [1; 5]
        );
        assert_eq!(shard.latency, [2, 1, 0, 0, 0, 0, 1, 1]);
        assert_eq!(shard.latency_ns_sum, 20_001_999_998);
    }

    #[test]
    fn assigned_shard_reads_back_its_peer() {
        let cells = PeerL7Cells::default();
        let addr = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
        let peer = PeerKey { addr, port: 6443, pad: [0; 6] };
        cells.assign(&peer, 3, crate::SHARD_IN_USE);
        let shard = cells.snapshot();
        assert_eq!((shard.addr, shard.port, shard.worker), (peer.addr, 6443, 3));
        assert_eq!(shard.in_use, crate::SHARD_IN_USE);
    }
}
