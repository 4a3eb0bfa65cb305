//! The peer lane: what a peer's proxy sends on is not steered a second time.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster_support;
mod ebpf_support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster_support::Cluster;
use ebpf_support::{SECURE_PORT, Server, any_v4, ask_from, loopback, open};
use http::StatusCode;
use mvproxy::steering::LanePorts;
use mvproxy_tests::client::Client;
use mvproxy_tests::netns::{BpfFs, Netns};
use serde_json::Value;

const NODE: Ipv4Addr = Ipv4Addr::new(10, 79, 1, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 79, 1, 2);
/// What a proxy takes to find that its peer is back.
const SOON: Duration = Duration::from_secs(10);
/// Only the new API server serves it.
const NEW_API: &str = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies";

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn only_known_peers_and_reserved_ports_pass() {
    let LanePorts { first, last } = LanePorts::DEFAULT;
    let (node, peer) = (Netns::new("node").unwrap(), Netns::new("peer").unwrap());
    node.connect(IpAddr::V4(NODE), &peer, IpAddr::V4(PEER), "v0").unwrap();
    node.run(|| {
        let bpffs = BpfFs::mount().unwrap();
        let _api_server = Server::api_server((Ipv6Addr::UNSPECIFIED, SECURE_PORT));
        let steering = open(&bpffs.path());
        let worker = Server::worker("w0", any_v4(), steering.heartbeat(0));
        steering.register(&[worker.fd()]).unwrap();
        steering.set_steering(true).unwrap();
        let from_peer = |port: u16| peer.run(|| ask_from((PEER, port), (NODE, SECURE_PORT)));

        assert_eq!(from_peer(first), "w0", "nobody is known yet");
        steering.set_lane_peers(&[PEER.into()]).unwrap();
        for (port, expected) in
            [(first - 1, "w0"), (first + 1, "api"), (last, "api"), (last + 1, "w0"), (0, "w0")]
        {
            assert_eq!(from_peer(port), expected, "source port {port}");
        }
        assert_eq!(ask_from((Ipv4Addr::LOCALHOST, first), loopback()), "w0", "a client that is no peer");
        let stats = steering.stats().unwrap();
        assert_eq!((stats.lane, stats.steered, stats.failed_open()), (2, 5, 0));

        steering.set_lane_peers(&[NODE.into()]).unwrap();
        assert_eq!(from_peer(first + 2), "w0", "it is no peer any more");
    });
}

/// One counter of a node's steering program.
fn count(text: &str, name: &str) -> u64 {
    let counts: Value = serde_json::from_str(text).unwrap();
    counts[name].as_u64().unwrap_or_default()
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn rerouted_requests_pass_by_the_proxy_of_the_peer() {
    let mut cluster = Cluster::start("lane", ["v1.35", "v1.36"]);
    // The first proxy dialled its peer before anything was steered there; now it has to do so again.
    cluster.take_server(1).terminate();
    cluster.start_server(1, "v1.36");
    let elsewhere = Arc::clone(&cluster.elsewhere);
    elsewhere.block_on(|| async {
        let mut client = Client::connect(&cluster.options(cluster.nodes[0].address())).await.unwrap();
        let begun = Instant::now();
        while client.get(NEW_API).await.unwrap().status != StatusCode::OK {
            assert!(begun.elapsed() < SOON, "the restarted peer is not asked");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let [old, new] = [0, 1].map(|node| cluster.nodes[node].steering());
    println!("connections at the old node: {old}, at the new one: {new}");
    let handled = |node: &str| {
        let log = cluster.logs.join(format!("mvproxy-{node}.log"));
        std::fs::read_to_string(log).unwrap().contains(NEW_API)
    };
    assert_eq!((handled("a"), handled("b")), (true, false), "one proxy for a request");
    assert!(count(&new, "lane") > 0);
}
