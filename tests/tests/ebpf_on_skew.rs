//! `--steering=on-skew` through an upgrade: at rest nothing is steered, a skew moves clients to the proxy, its end back.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(unreachable_pub, reason = "modules of a test binary are reached from that binary only")]

mod cluster_support;
mod ebpf_support;

#[path = "ebpf_overload/frozen.rs"]
mod frozen;

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster_support::{Cluster, Connecting, Node, Session};
use frozen::freeze;
use http::StatusCode;
use mvproxy_tests::client::Client;

const OLD: &str = "v1.35";
const NEW: &str = "v1.36";
/// Only the new API server serves it.
const NEW_API: &str = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies";
const CLIENTS: usize = 12;
/// Discovery, a proxy's second thoughts about its API server, and a busy machine.
const SOON: Duration = Duration::from_secs(30);

fn steers(node: &Node) -> bool {
    node.metrics().contains("\nmvproxy_steering 1")
}

/// Waits until `done` holds, and lets tasks of this runtime go on meanwhile.
async fn eventually(what: &str, mut done: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < SOON, "waited {SOON:?} in vain: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    begun.elapsed()
}

async fn connect(cluster: &Cluster) -> Client {
    let options = cluster.options(cluster.nodes[0].address()).with_http2();
    let mut client = Client::connect(&options).await.unwrap();
    assert_eq!(client.get("/version").await.unwrap().status, StatusCode::OK);
    client
}

async fn all_connect(cluster: &Cluster) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(connect(cluster).await);
    }
    clients
}

fn all_closed(clients: &[Client]) -> bool {
    clients.iter().all(Client::is_closed)
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn a_skew_moves_clients_to_the_proxy_and_its_end_back() {
    let mut cluster = Cluster::start_with("on-skew", [OLD, OLD], &["--steering=on-skew"]);
    let elsewhere = Arc::clone(&cluster.elsewhere);
    elsewhere.block_on(|| async {
        let mut direct = all_connect(&cluster).await;
        assert!(!steers(&cluster.nodes[0]), "at rest");
        assert_eq!(direct[0].get(NEW_API).await.unwrap().status, StatusCode::NOT_FOUND);

        cluster.take_server(1).terminate();
        cluster.start_server(1, NEW);
        eventually("the skew is seen", || steers(&cluster.nodes[0])).await;
        let moved = eventually("direct connections are cut", || all_closed(&direct)).await;
        println!("{CLIENTS} connections were cut within {moved:?}");
        let mut steered = all_connect(&cluster).await;
        assert_eq!(steered[0].get(NEW_API).await.unwrap().status, StatusCode::OK);
        assert!(!all_closed(&steered), "steered ones are not cut");

        cluster.take_server(0).terminate();
        assert_eq!(
            steered[1].get("/api/v1/namespaces").await.unwrap().status,
            StatusCode::OK,
            "a peer answers"
        );
        cluster.start_server(0, NEW);
        eventually("the end of the skew is seen", || !steers(&cluster.nodes[0])).await;
        let moved = eventually("steered clients are told to leave", || all_closed(&steered)).await;
        println!("{CLIENTS} connections were let go within {moved:?}");
        let mut direct = connect(&cluster).await;
        assert_eq!(direct.get(NEW_API).await.unwrap().status, StatusCode::OK);
        println!("{}", cluster.nodes[0].steering());
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn peers_stand_in_for_a_failed_api_server_without_any_skew() {
    let mut cluster = Cluster::start_with("on-skew-failover", [NEW, NEW], &["--steering=on-skew"]);
    let elsewhere = Arc::clone(&cluster.elsewhere);
    elsewhere.block_on(|| async {
        let mut client = Session::new(cluster.options(cluster.nodes[0].address()), Connecting::Fresh);
        let request = || http::Request::get("/api/v1/namespaces").body(bytes::Bytes::new()).unwrap();
        assert_eq!(client.fetch(request()).await.unwrap().status, StatusCode::OK);
        assert!(!steers(&cluster.nodes[0]), "at rest");

        cluster.take_server(0).kill();
        let begun = Instant::now();
        while client.fetch(request()).await.is_err() {
            assert!(begun.elapsed() < SOON, "nobody stands in");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        println!("a peer stood in after {:?}", begun.elapsed());
        for _ in 0..20 {
            assert_eq!(client.fetch(request()).await.unwrap().status, StatusCode::OK);
        }

        cluster.start_server(0, NEW);
        eventually("at rest again", || !steers(&cluster.nodes[0])).await;
        assert_eq!(client.fetch(request()).await.unwrap().status, StatusCode::OK);
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn of_two_at_rest_one_steers_and_the_other_takes_over_when_it_ends() {
    let mut cluster = Cluster::start_with("on-skew-two", [OLD, OLD], &["--steering=on-skew"]);
    let second = cluster.start_second_proxy(0, &[]);
    let elsewhere = Arc::clone(&cluster.elsewhere);
    elsewhere.block_on(|| async {
        let steers_second = |node: &Node| node.admin_of_second("/metrics").contains("\nmvproxy_steering 1");
        eventually("the second knows its server", || {
            cluster.nodes[0].admin_of_second("/metrics").contains("\nmvproxy_local_known 1")
        })
        .await;
        cluster.take_server(1).terminate();
        cluster.start_server(1, NEW);
        let node = &cluster.nodes[0];
        eventually("one of them steers", || steers(node) != steers_second(node)).await;
        // Both have noticed by then: discovery asks every five seconds.
        tokio::time::sleep(Duration::from_secs(6)).await;
        let first_steers = steers(node);
        assert_ne!(first_steers, steers_second(node));
        println!("the {} one has the slots", if first_steers { "first" } else { "second" });
        let other_steers = || if first_steers { steers_second(node) } else { steers(node) };
        let ended = if first_steers { node.proxy() } else { &second };
        ended.signal(nix::sys::signal::Signal::SIGKILL);
        let took = eventually("the other takes over", other_steers).await;
        println!("the other took over within {took:?}");
        let mut client = connect(&cluster).await;
        assert_eq!(client.get(NEW_API).await.unwrap().status, StatusCode::OK);
    });
}

/// Connections that a proxy cut.
fn cuts(node: &Node) -> u64 {
    let metrics = node.metrics();
    let line = metrics.lines().find_map(|line| line.strip_prefix("mvproxy_connections_cut_total "));
    line.expect("it is counted").parse().expect("a number")
}

fn clients_of_a_hung_proxy_are_moved_when_it_is_well_again(mode: &str) {
    let flags = [format!("--steering={mode}"), "--workers=2".to_owned()];
    let flags = flags.each_ref().map(String::as_str);
    let cluster = Cluster::start_with(&format!("hung-{mode}"), [OLD, NEW], &flags);
    let node = &cluster.nodes[0];
    cluster.elsewhere.block_on(|| async {
        eventually("the skew is seen", || steers(node)).await;
        let before = cuts(node);
        let frozen = ["worker-0", "worker-1"].map(|name| freeze(node.proxy(), name));
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let mut clients = all_connect(&cluster).await;
        assert_eq!(clients[0].get(NEW_API).await.unwrap().status, StatusCode::NOT_FOUND);
        // Longer than it would take to move them, were there somebody to move them to.
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(cuts(node), before, "nobody is moved to a proxy that hangs");
        assert!(clients.iter().all(|client| !client.is_closed()));
        drop(frozen);
        let moved = eventually("they are moved when it is well again", || all_closed(&clients)).await;
        println!("{CLIENTS} connections were cut within {moved:?}");
        let mut client = connect(&cluster).await;
        assert_eq!(client.get(NEW_API).await.unwrap().status, StatusCode::OK);
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn clients_of_a_hung_proxy_that_always_steers_are_moved_when_it_is_well_again() {
    clients_of_a_hung_proxy_are_moved_when_it_is_well_again("always");
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn clients_of_a_hung_proxy_that_steers_on_skew_are_moved_when_it_is_well_again() {
    clients_of_a_hung_proxy_are_moved_when_it_is_well_again("on-skew");
}
