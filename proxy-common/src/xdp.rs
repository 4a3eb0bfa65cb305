//! Lays out what is counted on the wire, and the budgets of connection attempts.

/// The parameters in `XDP_CONFIG`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpConfig {
    /// The API server's port in host order.
    pub port: u16,
    /// Zero.
    pub pad: [u8; 6],
    /// What one SYN costs of a source's budget, which is [`SYN_BURST_NS`]; 0 for no budget.
    pub syn_interval_ns: u64,
    /// `CLOCK_BOOTTIME` in nanoseconds from which budgets do not count: the proxy moves it on as long as it lives, so that
    /// nothing is dropped for a proxy that is gone.
    pub budget_until_ns: u64,
}

/// Packets to the API server's port, one value per CPU and class in `XDP_STATS`, per CPU and peer in `XDP_PEERS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpStats {
    /// TCP segments, those that were dropped included.
    pub packets: u64,
    /// Their bytes on the wire, Ethernet header included.
    pub bytes: u64,
    /// Of `packets`: attempts to connect (SYN without ACK).
    pub syns: u64,
    /// Of `syns`: dropped, because their source had used up its budget.
    pub dropped: u64,
}

impl XdpStats {
    /// Adds other counts.
    #[inline]
    pub fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.syns += other.syns;
        self.dropped += other.dropped;
    }
}

/// A source's entry in `SYN_BUDGETS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SynBudget {
    /// `CLOCK_BOOTTIME` in nanoseconds at which the budget will be whole again.
    pub whole_ns: u64,
}

/// A whole budget: what a source may spend at once is what it may spend in a second.
pub const SYN_BURST_NS: u64 = 1_000_000_000;

/// Index in `XDP_STATS`: none of the others.
pub const CLASS_OTHER: u32 = 0;
/// Index in `XDP_STATS`: nodes of peers.
pub const CLASS_PEER: u32 = 1;
/// Index in `XDP_STATS`: this node.
pub const CLASS_NODE: u32 = 2;
/// Index in `XDP_STATS`: sources that are steered where not all are (`STEER_SOURCES`).
pub const CLASS_LISTED: u32 = 3;
/// Names of the classes, by index.
pub const CLASS_NAMES: [&str; 4] = ["other", "peer", "node", "listed"];
/// Entries of `XDP_STATS`.
pub const XDP_CLASSES: u32 = 4;

/// Bit of a value in `XDP_ADDRESSES`: an address of this node.
pub const ROLE_NODE: u32 = 1;
/// Bit of a value in `XDP_ADDRESSES`: an address of a peer.
pub const ROLE_PEER: u32 = 2;

/// Addresses of this node and its peers that `XDP_ADDRESSES` can hold.
pub const MAX_XDP_ADDRESSES: u32 = 1024;

/// Sources with budgets of their own at a time; the one that was quiet longest gives way.
pub const MAX_SYN_SOURCES: u32 = 16_384;

const _: () = {
    assert!(size_of::<XdpConfig>() == 24);
    assert!(size_of::<XdpStats>() == 32);
    assert!(size_of::<SynBudget>() == 8);
    assert!(CLASS_NAMES.len() == XDP_CLASSES as usize);
};
