//! Declares every map; names have at most 15 bytes because the kernel keeps no more.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::btf_maps::{Array, HashMap, PerCpuArray, SkStorage};
use aya_ebpf::macros::btf_map;
use mvproxy_common::{
    Heartbeat, MAX_PEERS, MAX_STEER_RULES, MAX_WORKERS, PEER_L7_SHARDS, PeerKey, PeerL4, PeerL7, SourceKey,
    SteerMode, SteerStats,
};
use mvproxy_ebpf::flow::Flow;
use mvproxy_ebpf::slots::SocketSlots;

const MMAPABLE: usize = BPF_F_MMAPABLE as usize;
const WORKERS: usize = MAX_WORKERS as usize;
const PEERS: usize = MAX_PEERS as usize;
const RULES: usize = MAX_STEER_RULES as usize;

/// Ports in host order whose connections are steered.
#[btf_map]
pub static STEER_PORTS: HashMap<u16, u32, RULES> = HashMap::new();

/// Listening socket of every worker; the kernel empties a slot when its socket closes.
#[btf_map]
pub static STEER_SOCKETS: SocketSlots = SocketSlots::new();

/// The switch.
#[btf_map]
pub static STEER_MODE: Array<SteerMode, 1> = Array::new();

/// When each worker last turned its accept loop; mapped by the proxy.
#[btf_map]
pub static HEARTBEATS: Array<Heartbeat, WORKERS, MMAPABLE> = Array::new();

/// What was decided, per CPU.
#[btf_map]
pub static STEER_STATS: PerCpuArray<SteerStats, 1> = PerCpuArray::new();

/// Source addresses that are never steered: the proxy's way to the API server.
#[btf_map]
pub static EXEMPT: HashMap<SourceKey, u32, RULES> = HashMap::new();

/// Addresses of peers: what comes from them by a port of the lane was steered once already.
#[btf_map]
pub static LANE_PEERS: HashMap<SourceKey, u32, PEERS> = HashMap::new();

/// Which peers are counted, and their slot in `PEER_L7`.
#[btf_map]
pub static PEER_SLOTS: HashMap<PeerKey, u32, PEERS> = HashMap::new();

/// Connections to each peer; the proxy adds the entry together with the one in `PEER_SLOTS`.
#[btf_map]
pub static PEER_L4: HashMap<PeerKey, PeerL4, PEERS> = HashMap::new();

/// Requests to each peer, mapped and written by the proxy alone; declared here to be pinned with the others.
#[btf_map]
pub static PEER_L7: Array<PeerL7, { PEER_L7_SHARDS as usize }, MMAPABLE> = Array::new();

/// What was already counted of a connection; pinned, so that a successor counts on.
#[btf_map]
pub static FLOWS: SkStorage<Flow> = SkStorage::new();
