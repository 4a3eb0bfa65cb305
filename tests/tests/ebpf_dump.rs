//! Reads the pinned maps with bpftool, as an operator does.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ebpf_support;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use ebpf_support::{SECURE_PORT, Server, any_v4, ask, loopback, open, options};
use mvproxy::steering::{Steering, SteeringOptions, XdpOptions};
use mvproxy_tests::netns::{BpfFs, Netns, stdout_of};
use serde_json::Value;

/// Entries of a pinned map, with the names that come from BTF.
fn dump(dir: &Path, map: &str) -> Vec<Value> {
    let pin = dir.join(map);
    let text = stdout_of("bpftool", &["--json", "map", "dump", "pinned", pin.to_str().unwrap()]).unwrap();
    let entries: Vec<Value> = serde_json::from_str(&text).unwrap();
    entries.into_iter().map(|entry| entry["formatted"].clone()).collect()
}

fn field_names(value: &Value) -> Vec<&str> {
    let object = value.as_object().unwrap_or_else(|| panic!("no named fields: {value}"));
    object.keys().map(String::as_str).collect()
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn counter_maps_have_named_fields() {
    Netns::new("dump").unwrap().run(|| {
        let bpffs = BpfFs::mount().unwrap();
        let dir = bpffs.path();
        let _api_server = Server::api_server((Ipv6Addr::UNSPECIFIED, SECURE_PORT));
        let steering = open(&dir);
        let worker = Server::worker("w0", any_v4(), steering.heartbeat(0));
        steering.register(&[worker.fd()]).unwrap();
        steering.set_steering(true).unwrap();
        assert_eq!(ask(loopback()), "w0");
        let counters = steering.counters();
        let peer = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 7), 6443));
        let slot = counters.slot(peer);
        counters.shard(3, slot).requests.fetch_add(5, Relaxed);
        counters.shard(3, slot).add_response(404, 1);

        let stats = &dump(&dir, "STEER_STATS")[0]["values"];
        let steered: u64 =
            stats.as_array().unwrap().iter().map(|cpu| cpu["value"]["steered"].as_u64().unwrap()).sum();
        assert_eq!(steered, 1);

        let shards = dump(&dir, "PEER_L7");
        let shard = shards.iter().find(|shard| shard["value"]["requests"] == 5).expect("the shard");
        let value = &shard["value"];
        assert_eq!(
            (&value["worker"], &value["port"], &value["responses_4xx"]),
            (&3.into(), &6443.into(), &1.into())
        );

        let slots = dump(&dir, "PEER_SLOTS");
        assert_eq!((slots.len(), &slots[0]["key"]["port"], &slots[0]["value"]), (1, &6443.into(), &0.into()));
        assert_eq!(field_names(&slots[0]["key"]), ["addr", "pad", "port"]);

        let l4 = dump(&dir, "PEER_L4");
        let names = field_names(&l4[0]["value"]);
        for name in ["opened", "closed", "failed", "bytes_in", "bytes_out", "retransmits", "srtt_us_min"] {
            assert!(names.contains(&name), "{name} is missing: {names:?}");
        }
        assert_eq!(dump(&dir, "STEER_MODE")[0]["value"]["mode"], 1);
        assert_eq!(dump(&dir, "STEER_CONFIG")[0]["value"]["workers"], 1);
        assert!(dump(&dir, "HEARTBEATS")[0]["value"]["boot_ns"].as_u64().unwrap() > 0);
        assert_eq!(field_names(&dump(&dir, "EXEMPT")[0]["key"]), ["addr"]);
        assert_eq!(dump(&dir, "STEER_PORTS")[0]["key"], SECURE_PORT);
        drop(worker);
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn maps_of_the_wire_have_named_fields() {
    Netns::new("wire").unwrap().run(|| {
        let bpffs = BpfFs::mount().unwrap();
        let dir = bpffs.path();
        let peer = Ipv4Addr::new(192, 0, 2, 7);
        let xdp = XdpOptions { interfaces: vec!["lo".to_owned()], syn_rate: NonZeroU32::new(5) };
        let steering = Steering::open(&SteeringOptions { xdp, ..options(dir.clone(), 2) }).unwrap();
        steering.xdp().unwrap().refresh(Some(&[peer.into()])).unwrap();
        let _api_server = Server::api_server((Ipv6Addr::UNSPECIFIED, SECURE_PORT));
        assert_eq!(ask(loopback()), "api");

        let classes = dump(&dir, "XDP_STATS");
        // The class of this node.
        let per_cpu = classes[2]["values"].as_array().unwrap();
        let syns: u64 = per_cpu.iter().map(|cpu| cpu["value"]["syns"].as_u64().unwrap()).sum();
        assert_eq!((classes.len(), syns), (4, 1));
        assert_eq!(field_names(&per_cpu[0]["value"]), ["bytes", "dropped", "packets", "syns"]);
        let peers = dump(&dir, "XDP_PEERS");
        assert_eq!((peers.len(), field_names(&peers[0]["key"])), (1, vec!["addr"]));
        let config = &dump(&dir, "XDP_CONFIG")[0]["value"];
        assert_eq!((&config["port"], &config["syn_interval_ns"]), (&SECURE_PORT.into(), &200_000_000.into()));
        assert!(config["budget_until_ns"].as_u64().unwrap() > 0);
        let roles: Vec<_> = dump(&dir, "XDP_ADDRESSES").iter().map(|entry| entry["value"].clone()).collect();
        assert!(roles.contains(&2.into()) && roles.contains(&1.into()), "{roles:?}");
        assert_eq!(dump(&dir, "SYN_BUDGETS").len(), 0, "this node needs none");
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn socket_slots_can_be_read() {
    Netns::new("slots").unwrap().run(|| {
        let bpffs = BpfFs::mount().unwrap();
        let steering = open(&bpffs.path());
        let worker = Server::worker("w0", any_v4(), steering.heartbeat(0));
        steering.register(&[worker.fd()]).unwrap();
        let pin = bpffs.path().join("STEER_SOCKETS");
        let lookup = ["map", "lookup", "pinned", pin.to_str().unwrap(), "key", "0", "0", "0", "0"];
        let text = stdout_of("bpftool", &[&["--json"], &lookup[..]].concat()).unwrap();
        let entry: Value = serde_json::from_str(&text).unwrap();
        let bytes: Vec<_> = entry["value"].as_array().unwrap().iter().map(parse_hex).collect();
        let cookie = u64::from_ne_bytes(bytes.try_into().unwrap());
        assert_eq!(cookie, socket2::SockRef::from(&worker.fd()).cookie().unwrap());
    });
}

fn parse_hex(byte: &Value) -> u8 {
    u8::from_str_radix(byte.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}
