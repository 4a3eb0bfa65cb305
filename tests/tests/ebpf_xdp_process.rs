//! What operators see of the program for interfaces: metrics, `/readyz?verbose`, `mvproxy check`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster_support;

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use cluster_support::Cluster;
use mvproxy_tests::client::Client;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);
const FLAGS: [&str; 2] = ["--xdp-interface=between,clients1,no-such-if", "--xdp-syn-rate=500"];
/// The other node, where it is between the nodes.
const PEER: &str = "10.61.0.2";

/// The value of a metric, with its labels.
fn value(metrics: &str, name: &str) -> Option<u64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// Waits for the metrics of the first node to say so.
fn wait_for(cluster: &Cluster, what: &str, holds: impl Fn(&str) -> bool) -> String {
    let begun = Instant::now();
    loop {
        let metrics = cluster.nodes[0].metrics();
        if holds(&metrics) {
            return metrics;
        }
        let shown: Vec<_> = metrics.lines().filter(|line| line.contains("mvproxy_xdp")).collect();
        assert!(begun.elapsed() < LIMIT, "{what}: {shown:#?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Findings about the wire: verdict and text of each.
fn findings(cluster: &Cluster, flags: &[&str]) -> Vec<(String, String)> {
    let text = cluster.check(0, flags);
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let all = report["findings"].as_array().unwrap();
    let text = |finding: &Value, field: &str| finding[field].as_str().unwrap_or_default().to_owned();
    let of_wire = all.iter().filter(|finding| finding["check"] == "xdp");
    of_wire.map(|finding| (text(finding, "verdict"), text(finding, "found"))).collect()
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn operators_see_what_is_counted_where_and_why_not() {
    let mut cluster = Cluster::start_with("wire", ["v1.35", "v1.36"], &FLAGS);
    let connect = |cluster: &Cluster| {
        cluster.elsewhere.block_on(|| async {
            let options = cluster.options(cluster.nodes[0].address());
            let answer = Client::connect(&options).await.unwrap().get("/version").await.unwrap();
            assert_eq!(answer.status, 200);
        });
    };
    let peer_syns = format!("mvproxy_xdp_peer_syns_total{{peer=\"{PEER}\"}}");
    let clients = "mvproxy_xdp_syns_total{source=\"other\"}";
    let before = value(&cluster.nodes[0].metrics(), clients).unwrap();
    for _ in 0..5 {
        connect(&cluster);
    }
    let metrics = wait_for(&cluster, "five clients", |metrics| {
        value(metrics, clients).is_some_and(|it| it >= before + 5)
    });
    assert_eq!(value(&metrics, clients), Some(before + 5));
    for (interface, mode, attached) in
        [("between", "native", 1), ("clients1", "native", 1), ("no-such-if", "none", 0)]
    {
        let name = format!("mvproxy_xdp_attached{{interface=\"{interface}\",mode=\"{mode}\"}}");
        assert_eq!(value(&metrics, &name), Some(attached), "{name}");
    }
    assert_eq!(value(&metrics, "mvproxy_xdp_syns_dropped_total{source=\"other\"}"), Some(0));
    let to_node = SocketAddr::from((cluster.nodes[0].ip, 6443));
    cluster.nodes[1].netns.run(|| drop(TcpStream::connect(to_node).unwrap()));
    wait_for(&cluster, "a peer", |metrics| value(metrics, &peer_syns).is_some_and(|syns| syns > 0));

    let ready = cluster.nodes[0].admin("/readyz?verbose");
    for line in [
        "[+]mixed-version-proxy-xdp ok: counts on between (native)",
        "[+]mixed-version-proxy-xdp ok: counts on clients1 (native)",
        "[+]mixed-version-proxy-xdp excluded: packets on no-such-if are not counted: there is no interface",
    ] {
        assert!(ready.contains(line), "{line} is not in {ready}");
    }
    let other = cluster.nodes[1].metrics();
    assert!(!other.contains("mvproxy_xdp"), "the other node has no interface to count on");

    let found = findings(&cluster, &[]);
    assert_eq!(found.len(), 4, "{found:?}");
    for ((verdict, text), (expected, part)) in found.iter().zip([
        ("pass", "maps and program load"),
        ("pass", "a proxy counts on between"),
        ("pass", "a proxy counts on clients1"),
        ("warn", "there is no interface no-such-if"),
    ]) {
        assert!(verdict == expected && text.contains(part), "{verdict}: {text}");
    }
    let found = findings(&cluster, &["--xdp-interface=lo"]);
    assert!(found[4].1.contains("lo is free"), "{found:?}");

    // A rolling update.
    let counted = value(&cluster.nodes[0].metrics(), clients).unwrap();
    cluster.replace_proxy(0, 1);
    connect(&cluster);
    let metrics = cluster.nodes[0].admin_of_second("/metrics");
    assert!(value(&metrics, clients).unwrap() > counted, "counts go on: {counted}");
}
