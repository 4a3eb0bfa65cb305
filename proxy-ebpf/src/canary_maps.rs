//! Declares the maps that steering and the counters on the wire share.

use aya_ebpf::btf_maps::{Array, LpmTrie};
use aya_ebpf::macros::btf_map;
use mvproxy_common::{MAX_STEER_SOURCES, SourceKey, SteerConfig};

/// Parameters and the version of all layouts.
#[btf_map]
pub static STEER_CONFIG: Array<SteerConfig, 1> = Array::new();

/// Networks of clients that are steered (1) or not (0), where not all are; the longest match counts.
#[btf_map]
pub static STEER_SOURCES: LpmTrie<SourceKey, u32, { MAX_STEER_SOURCES as usize }> = LpmTrie::new();
