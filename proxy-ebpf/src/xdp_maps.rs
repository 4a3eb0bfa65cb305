//! Declares the maps of what is counted on the wire; names have at most 15 bytes because the kernel keeps no more.

use aya_ebpf::btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, PerCpuHashMap};
use aya_ebpf::macros::btf_map;
use mvproxy_common::{
    MAX_PEERS, MAX_SYN_SOURCES, MAX_XDP_ADDRESSES, SourceKey, SynBudget, XDP_CLASSES, XdpConfig, XdpStats,
};

/// Parameters.
#[btf_map]
pub static XDP_CONFIG: Array<XdpConfig, 1> = Array::new();

/// Whose an address is: this node's, a peer's, or both.
#[btf_map]
pub static XDP_ADDRESSES: HashMap<SourceKey, u32, { MAX_XDP_ADDRESSES as usize }> = HashMap::new();

/// Segments to the API server by class of their source, per CPU.
#[btf_map]
pub static XDP_STATS: PerCpuArray<XdpStats, { XDP_CLASSES as usize }> = PerCpuArray::new();

/// Segments from each peer's node, per CPU; the proxy adds the entries.
#[btf_map]
pub static XDP_PEERS: PerCpuHashMap<SourceKey, XdpStats, { MAX_PEERS as usize }> = PerCpuHashMap::new();

/// What sources have left of their budgets.
#[btf_map]
pub static SYN_BUDGETS: LruHashMap<SourceKey, SynBudget, { MAX_SYN_SOURCES as usize }> = LruHashMap::new();
