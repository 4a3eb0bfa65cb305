//! Checks the embedded BPF objects without loading it, which needs no privilege.

use std::collections::BTreeMap;
use std::io::Write as _;

use aya_obj::{Map, Object, ProgramSection};
use mvproxy::steering::{object, xdp};
use mvproxy_common::{
    Heartbeat, MAX_PEERS, MAX_STEER_RULES, MAX_STEER_SOURCES, MAX_SYN_SOURCES, MAX_WORKERS,
    MAX_XDP_ADDRESSES, PEER_L7_SHARDS, PeerKey, PeerL4, PeerL7, SourceKey, SteerConfig, SteerMode,
    SteerStats, SynBudget, XDP_CLASSES, XdpConfig, XdpStats,
};

/// The kernel keeps 15 bytes of a name and a zero.
const MAX_NAME: usize = 15;
/// Lets userspace map an array (`BPF_F_MMAPABLE`).
const MMAPABLE: u32 = 1 << 10;

/// The object for steering.
fn parsed() -> Option<Object> {
    parsed_of(object())
}

/// The object for interfaces.
fn parsed_xdp() -> Option<Object> {
    parsed_of(xdp::object())
}

/// An object, or a loud skip: an unprivileged run without BPF compiler is a normal thing.
fn parsed_of(object: Option<&[u8]>) -> Option<Object> {
    let Some(bytes) = object else {
        // Straight to the terminal: libtest hides what macros print in tests that pass.
        writeln!(std::io::stderr(), "\n*** SKIPPED: no BPF object was built: cargo xtask build-ebpf ***")
            .expect("stderr is open");
        return None;
    };
    Some(Object::parse(bytes).expect("aya can parse what it will load"))
}

#[test]
fn names_fit_the_kernel() {
    for object in [parsed(), parsed_xdp()].into_iter().flatten() {
        for name in object.maps.keys().chain(object.programs.keys()) {
            // Constants of aya-log; never pinned and not meant for operators.
            let is_section = name.starts_with('.');
            assert!(is_section || name.len() <= MAX_NAME, "{name} has {} bytes", name.len());
        }
    }
}

#[test]
fn programs_are_those_the_proxy_attaches() {
    let Some(object) = parsed() else { return };
    assert!(matches!(object.programs["steer_listener"].section, ProgramSection::SkLookup));
    assert!(matches!(object.programs["count_sock_ops"].section, ProgramSection::SockOps));
    assert_eq!(object.programs.len(), 2);
    let Some(object) = parsed_xdp() else { return };
    let is_xdp = |section| matches!(section, &ProgramSection::Xdp { frags: true, .. });
    assert!(is_xdp(&object.programs["peer_xdp"].section));
    assert_eq!(object.programs.len(), 1);
}

#[test]
fn map_sizes_are_those_of_the_shared_types() {
    fn layout<K, V>(entries: u32) -> (usize, usize, u32) {
        (size_of::<K>(), size_of::<V>(), entries)
    }
    let Some(object) = parsed() else { return };
    let expected = BTreeMap::from([
        ("STEER_PORTS", layout::<u16, u32>(MAX_STEER_RULES)),
        // 8-byte values: with 4 the kernel refuses to read a slot.
        ("STEER_SOCKETS", layout::<u32, u64>(MAX_WORKERS)),
        ("STEER_MODE", layout::<u32, SteerMode>(1)),
        ("STEER_CONFIG", layout::<u32, SteerConfig>(1)),
        ("HEARTBEATS", layout::<u32, Heartbeat>(MAX_WORKERS)),
        ("STEER_STATS", layout::<u32, SteerStats>(1)),
        ("EXEMPT", layout::<SourceKey, u32>(MAX_STEER_RULES)),
        ("STEER_SOURCES", (4 + size_of::<SourceKey>(), size_of::<u32>(), MAX_STEER_SOURCES)),
        ("LANE_PEERS", layout::<SourceKey, u32>(MAX_PEERS)),
        ("PEER_SLOTS", layout::<PeerKey, u32>(MAX_PEERS)),
        ("PEER_L4", layout::<PeerKey, PeerL4>(MAX_PEERS)),
        ("PEER_L7", layout::<u32, PeerL7>(PEER_L7_SHARDS)),
        ("FLOWS", layout::<i32, [u64; 4]>(0)),
    ]);
    assert_eq!(layouts(&object), expected);

    let Some(object) = parsed_xdp() else { return };
    let expected = BTreeMap::from([
        ("XDP_CONFIG", layout::<u32, XdpConfig>(1)),
        ("XDP_ADDRESSES", layout::<SourceKey, u32>(MAX_XDP_ADDRESSES)),
        ("XDP_STATS", layout::<u32, XdpStats>(XDP_CLASSES)),
        ("XDP_PEERS", layout::<SourceKey, XdpStats>(MAX_PEERS)),
        ("SYN_BUDGETS", layout::<SourceKey, SynBudget>(MAX_SYN_SOURCES)),
        // Those that it shares with steering.
        ("STEER_CONFIG", expected["STEER_CONFIG"]),
        ("STEER_SOURCES", expected["STEER_SOURCES"]),
    ]);
    assert_eq!(layouts(&object), expected);
}

/// Sizes of key and value and the number of entries of each map.
fn layouts(object: &Object) -> BTreeMap<&str, (usize, usize, u32)> {
    let typed = object.maps.iter().filter(|(_, map)| matches!(map, Map::Btf(_)));
    let sizes = |map: &Map| (map.key_size() as usize, map.value_size() as usize, map.max_entries());
    typed.map(|(name, map)| (name.as_str(), sizes(map))).collect()
}

#[test]
fn mapped_arrays_are_mappable() {
    let Some(object) = parsed() else { return };
    for (name, map) in &object.maps {
        let is_mapped = ["HEARTBEATS", "PEER_L7"].contains(&name.as_str());
        assert_eq!(map.map_flags() & MMAPABLE != 0, is_mapped, "{name}");
    }
}

#[test]
fn type_information_and_licence_are_there() {
    for object in [parsed(), parsed_xdp()].into_iter().flatten() {
        assert!(object.btf.is_some(), "without BTF, dumps show hex");
        assert_eq!(object.license.to_bytes(), b"Dual MIT/GPL");
        for (name, map) in &object.maps {
            if let Map::Btf(map) = map {
                assert!(map.def.btf_value_type_id > 0, "{name} has no value type");
            }
        }
    }
}
