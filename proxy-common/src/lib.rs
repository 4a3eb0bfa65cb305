//! Lays out the values that the kernel programs and the proxy share in BPF maps.
//!
//! Every type is `repr(C)`, made of integers only and free of padding (the kernel compares keys byte by
//! byte), and its size is asserted. Whoever changes a layout raises [`ABI_VERSION`].
#![no_std]

mod peer;
mod steer;
#[cfg(feature = "user")]
mod user;
mod xdp;

pub use peer::{
    LATENCY_BOUNDS_NS, PeerKey, PeerL4, PeerL7, SHARD_FREE, SHARD_IN_USE, shard_index, slot_of_shard,
};
pub use steer::{
    Heartbeat, MODE_PASS, MODE_STEER, SOURCES_ALL, SOURCES_LISTED, SourceKey, SteerConfig, SteerMode,
    SteerStats, spread, v4_mapped,
};
#[cfg(feature = "user")]
pub use user::{HeartbeatCells, PeerL7Cells, SharedCells};
pub use xdp::{
    CLASS_LISTED, CLASS_NAMES, CLASS_NODE, CLASS_OTHER, CLASS_PEER, MAX_SYN_SOURCES, MAX_XDP_ADDRESSES,
    ROLE_NODE, ROLE_PEER, SYN_BURST_NS, SynBudget, XDP_CLASSES, XdpConfig, XdpStats,
};

/// Version of all layouts in this crate, kept in `STEER_CONFIG`.
pub const ABI_VERSION: u32 = 4;

/// Workers that can be steered to; also the number of shards per peer.
pub const MAX_WORKERS: u32 = 16;

/// Peers with counters of their own.
pub const MAX_PEERS: u32 = 64;

/// Slot that all peers beyond [`MAX_PEERS`] share.
pub const OVERFLOW_SLOT: u32 = MAX_PEERS;

/// Entries of `PEER_L7`: one shard per worker for every peer and for the overflow slot.
pub const PEER_L7_SHARDS: u32 = (MAX_PEERS + 1) * MAX_WORKERS;

/// Ports and exempt sources that the steering tables can hold.
pub const MAX_STEER_RULES: u32 = 16;

/// Networks that `STEER_SOURCES` can hold: those of two proxies while one takes over from the other.
pub const MAX_STEER_SOURCES: u32 = 2048;
