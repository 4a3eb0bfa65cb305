//! Replaces a steering proxy again and again while clients connect anew for every request.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use cluster_support::{Cluster, Connecting, Session};
use http::Request;
use mvproxy_tests::client::ClientOptions;
use mvproxy_tests::netns::Netns;

const TAKEOVERS: usize = 50;
/// New connections a second, each with one request.
const RATE: u32 = 200;
/// What a machine has to manage that is busy with something else as well.
const LOWEST_RATE: f64 = 30.0;
const CLIENTS: u32 = 16;
/// Only the other node's API server serves it: 200 shows that a proxy answered.
const NEW_API: &str = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies";

/// What one client met.
#[derive(Default)]
struct Met {
    requests: usize,
    longest: Duration,
    failures: Vec<String>,
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn fifty_takeovers_fail_no_connection_and_no_request() {
    let mut cluster = Cluster::start("takeovers", ["v1.35", "v1.36"]);
    let options = cluster.options(cluster.nodes[0].address());
    let (done, begun) = (Arc::new(AtomicBool::new(false)), Instant::now());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (netns, options, done) = (Arc::clone(&cluster.elsewhere), options.clone(), Arc::clone(&done));
            std::thread::spawn(move || ask_again_and_again(&netns, &options, &done))
        })
        .collect();
    for number in 1..=TAKEOVERS {
        cluster.replace_proxy(0, number);
    }
    done.store(true, Relaxed);
    let met: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    let requests: usize = met.iter().map(|met| met.requests).sum();
    let failures: Vec<_> = met.iter().flat_map(|met| &met.failures).collect();
    let rate = f64::from(u32::try_from(requests).unwrap()) / begun.elapsed().as_secs_f64();
    println!(
        "{TAKEOVERS} takeovers in {:.0?}: {requests} connections ({rate:.0} a second), {} failed, longest request {:?}",
        begun.elapsed(),
        failures.len(),
        met.iter().map(|met| met.longest).max().unwrap_or_default(),
    );
    let decisions = cluster.nodes[0].steering();
    println!("connections: {decisions}");
    assert!(
        failures.is_empty(),
        "{} of {requests}: {:?}",
        failures.len(),
        &failures[..failures.len().min(5)]
    );
    let passed = ["refused", "stale", "no_listener", "other_abi"].map(|name| decisions.contains(name));
    assert_eq!(passed, [false; 4], "{decisions}");
    assert!(rate >= LOWEST_RATE, "only {rate:.0} connections a second");
}

/// Asks on a new connection each time, at its share of the rate as far as answers come in time.
fn ask_again_and_again(netns: &Netns, options: &ClientOptions, done: &AtomicBool) -> Met {
    netns.block_on(|| async {
        let mut met = Met::default();
        let mut ticks = tokio::time::interval(Duration::from_secs(1) * CLIENTS / RATE);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !done.load(Relaxed) {
            ticks.tick().await;
            let mut session = Session::new(options.clone(), Connecting::Fresh);
            let begun = Instant::now();
            let answer = session.fetch(Request::get(NEW_API).body(bytes::Bytes::new()).unwrap()).await;
            met.requests += 1;
            met.longest = met.longest.max(begun.elapsed());
            match answer {
                Ok(answer) if answer.status == 200 => {}
                Ok(answer) => met.failures.push(format!("{}: {}", answer.status, answer.text())),
                Err(error) => met.failures.push(error),
            }
        }
        met
    })
}
