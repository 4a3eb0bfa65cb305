//! Overloads, hangs and replaces proxies that the kernel steers to: clients always find somebody who answers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "modules of a test binary are reached from that binary only")]

mod cluster_support;
mod ebpf_support;
mod support;

#[path = "ebpf_overload/asking.rs"]
mod asking;
#[path = "ebpf_overload/frozen.rs"]
mod frozen;

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use asking::{Asked, Place, ask, ask_on, asked_between, places, while_asking};
use cluster_support::{Cluster, Node, Process};
use ebpf_support::{SECURE_PORT, STALE_AFTER, Server, any_v4, eventually, loopback, open_impatient};
use frozen::freeze;
use mvproxy_tests::client::Client;
use mvproxy_tests::netns::{BpfFs, Netns};
use nix::sys::signal::Signal;
use support::{Caller, Upgraded};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::sleep;

/// What only the other node's API server serves: 200 shows that the proxy answered, 404 that the local API server did.
const PROXIED: u16 = 200;
const STRAIGHT: u16 = 404;
const DOCUMENTS: [&str; 2] = ["v1.34", "v1.36-all"];
/// By now the kernel has noticed a worker that hangs: its limit is a second.
const NOTICED: Duration = Duration::from_millis(1300);
/// Nobody who is answered at all waits for longer, once that has been noticed.
const SOON: Duration = Duration::from_secs(1);

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn a_full_worker_leaves_new_connections_to_the_api_server_and_takes_them_again() {
    let cluster = Cluster::start_with("full", DOCUMENTS, &["--workers=1", "--max-connections=8"]);
    let node = &cluster.nodes[0];
    let [own, kubelet, elsewhere] = places(&cluster);
    for place in [&own, &kubelet, &elsewhere] {
        assert_eq!(ask(place).outcome, Ok(PROXIED), "{}", place.name);
    }
    let full = elsewhere.netns.block_on(async || {
        let mut held = fill(node, &elsewhere).await;
        let ((), asked) = while_asking(&cluster, || {
            for place in [&own, &kubelet, &elsewhere] {
                for _ in 0..5 {
                    let asked = ask(place);
                    assert_eq!(asked.outcome, Ok(STRAIGHT), "{}", place.name);
                    assert!(asked.took < SOON, "{} waited for {:?}", place.name, asked.took);
                }
            }
            // Time enough for the others to ask, however fast the machine is.
            std::thread::sleep(Duration::from_secs(1));
            let line = "-workers excluded: 1 of 1 take no new connections: at --max-connections";
            let readyz = node.admin("/readyz?verbose");
            assert!(readyz.contains(line) && readyz.contains("readyz check passed"), "{readyz}");
        });
        for client in &mut held {
            assert_eq!(ask_on(client).await, Ok(PROXIED), "what is open goes on");
        }
        asked
    });
    // Its connections are closed by now.
    let ((), asked) = while_asking(&cluster, || {
        eventually_says(node, "mvproxy_workers{state=\"serves\"} 1");
        eventually("connections are steered again", || ask(&elsewhere).outcome == Ok(PROXIED));
    });
    assert_all_answered(&full);
    assert_each_is(STRAIGHT, "the API server", full.iter());
    assert_all_answered(&asked);
    let metrics = node.admin("/metrics");
    assert!(!metrics.contains("reason=\"limit\""), "connections were closed: {metrics}");
    assert!(node.steering().contains("\"stale\""), "the kernel passed none by: {}", node.steering());
}

/// Opens connections until the worker is at its limit and stays there.
async fn fill(node: &Node, place: &Place<'_>) -> Vec<Client> {
    let mut held = Vec::new();
    let mut full_since = None;
    while full_since.is_none_or(|since: Instant| since.elapsed() < SOON) {
        // The other node's proxy has some of the places, and some are about to be free.
        if says(node, "mvproxy_workers{state=\"at_limit\"} 1") {
            full_since.get_or_insert_with(Instant::now);
            sleep(Duration::from_millis(50)).await;
            continue;
        }
        full_since = None;
        let mut client = Client::connect(&place.options).await.unwrap();
        if ask_on(&mut client).await == Ok(PROXIED) {
            held.push(client);
        }
    }
    held
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn a_source_at_its_limit_is_closed_and_nobody_else() {
    let flags = ["--workers=1", "--max-connections-per-source=8"];
    let cluster = Cluster::start_with("source", DOCUMENTS, &flags);
    let node = &cluster.nodes[0];
    let [own, kubelet, noisy] = places(&cluster);
    let pod = serde_json::json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}});
    noisy.netns.block_on(async || {
        let mut client = Client::connect(&noisy.options).await.unwrap();
        let created = client.send_json("POST", "/api/v1/namespaces/default/pods", &pod).await.unwrap();
        assert_eq!(created.status, 201, "{}", created.text());
        let mut exec = exec_in_pod(&cluster, &noisy).await;
        let mut plain = TcpStream::connect(noisy.options.address).await.unwrap();
        // The API server waits for the rest of what is no TLS.
        plain.write_all(b"GET ").await.unwrap();
        let mut more = Vec::new();
        for _ in 0..5 {
            more.push(Client::connect(&noisy.options).await.unwrap());
        }

        for _ in 0..3 {
            assert!(Client::connect(&noisy.options).await.is_err(), "a ninth connection of one source");
        }
        for place in [&own, &kubelet] {
            assert_eq!(ask(place).outcome, Ok(PROXIED), "{}", place.name);
        }
        assert_eq!(ask_on(&mut client).await, Ok(PROXIED), "what is open goes on");
        assert_eq!(exec.echo(b"still there").await.unwrap(), b"still there");

        // Each kind of connection gives its place back.
        exec.finish().await.unwrap();
        eventually("an exec's place is free", || ask(&noisy).outcome == Ok(PROXIED));
        let mut exec = exec_in_pod(&cluster, &noisy).await;
        assert!(Client::connect(&noisy.options).await.is_err(), "it is taken again");
        drop(plain);
        eventually("a spliced connection's place is free", || ask(&noisy).outcome == Ok(PROXIED));
        assert_eq!(exec.echo(b"still there").await.unwrap(), b"still there");
        drop(more);
    });
    let counted = "mvproxy_client_connections_ended_total{reason=\"source_limit\"}";
    assert!(node.admin("/metrics").contains(counted), "{}", node.admin("/metrics"));
}

async fn exec_in_pod(cluster: &Cluster, place: &Place<'_>) -> Upgraded {
    let caller = Caller {
        label: "an administrator".to_owned(),
        trust: cluster.trust.clone(),
        identity: Some(cluster.admin.clone()),
        headers: http::HeaderMap::new(),
    };
    let target = "/api/v1/namespaces/default/pods/p/exec?command=sh&stdin=true";
    let headers = ["Connection: Upgrade", "Upgrade: SPDY/3.1", "Content-Length: 0"];
    let upgraded = Upgraded::ask(&caller, place.options.address, target, &headers).await.unwrap();
    assert!(upgraded.head.starts_with("HTTP/1.1 101"), "{}", upgraded.head);
    upgraded
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn threads_that_hang_are_passed_over_and_no_connection_fails() {
    let cluster = Cluster::start_with("hung", DOCUMENTS, &["--workers=2"]);
    let node = &cluster.nodes[0];
    let ((one_hangs, both_hang, thawed), asked) = while_asking(&cluster, || {
        std::thread::sleep(NOTICED);
        let first = freeze(node.proxy(), "worker-0");
        let one_hangs = Instant::now();
        eventually_says(node, "mvproxy_workers{state=\"silent\"} 1");
        let readyz = node.admin("/readyz?verbose");
        assert!(readyz.contains("1 of 2 take no new connections: silent for too long"), "{readyz}");
        std::thread::sleep(NOTICED * 2);

        let second = freeze(node.proxy(), "worker-1");
        let both_hang = Instant::now();
        eventually_says(node, "mvproxy_workers{state=\"silent\"} 2");
        std::thread::sleep(NOTICED * 2);

        drop((first, second));
        let thawed = Instant::now();
        eventually_says(node, "mvproxy_workers{state=\"serves\"} 2");
        std::thread::sleep(NOTICED);
        (one_hangs, both_hang, thawed)
    });
    assert_all_answered(&asked);
    assert_each_is(PROXIED, "the other worker", asked_between(&asked, one_hangs + NOTICED, both_hang));
    assert_each_is(STRAIGHT, "the API server", asked_between(&asked, both_hang + NOTICED, thawed));
    let since = thawed + Duration::from_millis(500);
    assert_each_is(PROXIED, "both workers", asked_between(&asked, since, Instant::now()));
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn a_successor_does_not_make_its_hung_predecessor_look_alive_nor_the_other_way_round() {
    let cluster = Cluster::start_with("succession", DOCUMENTS, &["--workers=2"]);
    let node = &cluster.nodes[0];
    let [own, _, elsewhere] = places(&cluster);
    node.proxy().signal(Signal::SIGSTOP);
    std::thread::sleep(NOTICED);
    assert_eq!(ask(&elsewhere).outcome, Ok(STRAIGHT));

    // It never gets to know what the local API server serves, and so never takes the slots; its workers run all the same.
    let waiting = cluster.start_second_proxy(0, &["--local-apiserver=127.0.0.1:1"]);
    let running = "mvproxy_workers{state=\"serves\"} 2";
    eventually(running, || node.admin_of_second("/metrics").contains(running));
    assert!(node.admin_of_second("/readyz").contains("readyz check failed"));
    let begun = Instant::now();
    while begun.elapsed() < NOTICED * 2 {
        for place in [&own, &elsewhere] {
            let asked = ask(place);
            assert_eq!(asked.outcome, Ok(STRAIGHT), "{}", place.name);
            assert!(asked.took < SOON, "{} waited for {:?}", place.name, asked.took);
        }
    }
    drop(waiting);

    let successor: Process = cluster.start_second_proxy(0, &[]);
    eventually("the successor is steered to", || ask(&elsewhere).outcome == Ok(PROXIED));
    node.proxy().signal(Signal::SIGCONT);
    eventually_says(node, "mvproxy_workers{state=\"serves\"} 2");
    assert_eq!(ask(&elsewhere).outcome, Ok(PROXIED));
    successor.signal(Signal::SIGSTOP);
    std::thread::sleep(NOTICED);
    for place in [&own, &elsewhere] {
        let asked = ask(place);
        assert_eq!(asked.outcome, Ok(STRAIGHT), "{}", place.name);
        assert!(asked.took < SOON, "{} waited for {:?}", place.name, asked.took);
    }
    successor.signal(Signal::SIGCONT);
    eventually("the successor is steered to", || ask(&elsewhere).outcome == Ok(PROXIED));
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn beats_count_from_the_moment_a_listener_is_in_its_slot() {
    Netns::new("beats").unwrap().run(|| {
        let bpffs = BpfFs::mount().unwrap();
        let _api_server = Server::api_server((Ipv6Addr::UNSPECIFIED, SECURE_PORT));
        let old = open_impatient(&bpffs.path());
        let old_worker = Server::worker("old", any_v4(), old.heartbeat(0));
        old.register(&[old_worker.fd()]).unwrap();
        old.set_steering(true).unwrap();
        assert_eq!(ebpf_support::ask(loopback()), "old");
        old_worker.hang();

        let new = open_impatient(&bpffs.path());
        let new_worker = Server::worker("new", any_v4(), new.heartbeat(0));
        std::thread::sleep(STALE_AFTER);
        assert_eq!(ebpf_support::ask(loopback()), "api", "the new one beats, but the slot is the old one's");
        new.register(&[new_worker.fd()]).unwrap();
        assert_eq!(ebpf_support::ask(loopback()), "new", "the very next connection");

        old_worker.resume();
        new_worker.hang();
        std::thread::sleep(STALE_AFTER);
        assert_eq!(ebpf_support::ask(loopback()), "api", "the old one beats, but the slot is the new one's");
        new.release();
        new_worker.resume();
        assert_eq!(ebpf_support::ask(loopback()), "api", "nobody has the slot");
    });
}

fn eventually_says(node: &Node, line: &str) {
    eventually(line, || says(node, line));
}

/// Whether the proxy's metrics have this line.
fn says(node: &Node, line: &str) -> bool {
    node.admin("/metrics").lines().any(|found| found == line)
}

fn assert_all_answered(asked: &[Asked]) {
    let failed: Vec<_> = asked.iter().filter(|asked| asked.outcome.is_err()).collect();
    assert!(failed.is_empty(), "{} of {} failed: {:?}", failed.len(), asked.len(), failed.first());
}

fn assert_each_is<'a>(status: u16, whose: &str, asked: impl Iterator<Item = &'a Asked>) {
    let mut count = 0;
    for asked in asked {
        count += 1;
        assert_eq!(asked.outcome, Ok(status), "{whose} answers: {asked:?}");
        assert!(asked.took < SOON, "{whose} answers soon: {asked:?}");
    }
    assert!(count > 5, "{whose} was asked {count} times");
}
