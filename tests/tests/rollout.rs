//! Restarts both API servers of a cluster one after the other while clients of each node go on working.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod cluster_support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cluster_support::{Cluster, Event, Failure, Load, Place, Share, Watcher};
use mvproxy_tests::netns::Netns;
use mvproxy_tests::store::{Expected, Key, Range, Store};
use serde_json::json;

/// Length of the load in seconds; longer ones repeat the restarts.
const SECONDS: &str = "MVPROXY_ROLLOUT_SECONDS";
const DEFAULT_SECONDS: u64 = 60;
/// What has to be asked at least, in the default length.
const FEWEST_REQUESTS: usize = 3_000;
const OLD: &str = "v1.35";
const NEW: &str = "v1.36";

/// One restart of one API server.
struct Restart {
    /// Seconds after the beginning of a round.
    at: u64,
    node: usize,
    how: Stop,
    /// Seconds without this API server.
    down: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// SIGTERM, as the kubelet does.
    Gracefully,
    /// kill -9.
    Killed,
}

/// One round, 56 s long: an upgrade of both nodes, a crash, and one more restart.
const ROUND: [Restart; 4] = [
    Restart { at: 3, node: 0, how: Stop::Gracefully, down: 3 },
    Restart { at: 16, node: 1, how: Stop::Gracefully, down: 4 },
    Restart { at: 30, node: 0, how: Stop::Killed, down: 5 },
    Restart { at: 44, node: 1, how: Stop::Gracefully, down: 3 },
];
const ROUND_SECONDS: u64 = 56;

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn a_rolling_restart_of_both_api_servers_fails_no_request_and_no_watch() {
    let seconds = std::env::var(SECONDS).map_or(DEFAULT_SECONDS, |text| text.parse().expect(SECONDS));
    let length = Duration::from_secs(seconds);
    let mut cluster = Cluster::start("rollout", [OLD, OLD]);
    let first = revision(&cluster);
    // Both loads write to namespaces of their own, so that each can be compared with the store by itself.
    let steered = Load::new("default", length, Duration::from_millis(25));
    let straight = Load::new("kube-public", length, Duration::from_millis(100));
    let mut clients: Vec<JoinHandle<Vec<Watcher>>> = Vec::new();
    let mut straight_clients: Vec<JoinHandle<Vec<Watcher>>> = Vec::new();
    for node in 0..cluster.nodes.len() {
        clients.extend(start_steered(&cluster, node, &steered, first));
        straight_clients.push(start_straight(&cluster, node, &straight, first));
    }

    let kills = restart_again_and_again(&mut cluster, steered.ends);
    std::thread::sleep(steered.ends.saturating_duration_since(Instant::now()));
    for load in [&steered, &straight] {
        end_watches(&cluster, load);
    }
    let watches = join(clients);
    let straight_watches = join(straight_clients);

    for node in &cluster.nodes {
        println!("connections at {}: {}", node.name, node.steering());
    }
    println!("through mvproxy: {}", steered.ledger.summary());
    println!("straight to the API servers: {}", straight.ledger.summary());
    let gaps = [check_watches(&cluster, &steered, &watches, first)];
    println!("watches: {} through mvproxy, opened {} times", watches.len(), opened(&watches));
    println!("watches: {} straight, opened {} times", straight_watches.len(), opened(&straight_watches));
    let writes = wait_for(steered.ledger.check_writes(&cluster.store, &range(&steered)));
    let straight_writes = wait_for(straight.ledger.check_writes(&cluster.store, &range(&straight)));
    println!("writes straight to the API servers: {straight_writes:?}");

    assert_eq!(writes.as_ref().err(), None, "writes lost or doubled");
    assert_eq!(gaps, [String::new()], "gaps or repeats in watches");
    let (in_doubt, failures): (Vec<_>, Vec<_>) =
        steered.ledger.failures().into_iter().partition(|failure| is_lost_with_a_server(failure, &kills));
    println!(
        "writes that a killed server took with it, so that nobody knows of their effect: {}",
        in_doubt.len()
    );
    assert!(failures.is_empty(), "logs in {}: {failures:#?}", cluster.logs.display());
    let asked = steered.ledger.requests();
    assert!(seconds < DEFAULT_SECONDS || asked >= FEWEST_REQUESTS, "only {asked} requests");
    assert!(
        !straight.ledger.failures().is_empty(),
        "the restarts did not happen: nothing failed without a proxy"
    );
}

/// Clients of one node: some elsewhere, some on the node itself.
fn start_steered(
    cluster: &Cluster,
    node: usize,
    load: &Arc<Load>,
    after: u64,
) -> [JoinHandle<Vec<Watcher>>; 2] {
    let at = &cluster.nodes[node];
    let elsewhere = Place { name: format!("to {}", at.name), options: cluster.options(at.address()) };
    let on_node = Place { name: format!("on {}", at.name), options: cluster.options_on_node() };
    [
        start(&cluster.elsewhere, load, elsewhere, Share::All, after),
        start(&at.netns, load, on_node, Share::Kept, after),
    ]
}

/// Clients on one node whose source is never steered.
fn start_straight(cluster: &Cluster, node: usize, load: &Arc<Load>, after: u64) -> JoinHandle<Vec<Watcher>> {
    let at = &cluster.nodes[node];
    let place = Place { name: format!("straight on {}", at.name), options: cluster.straight_options() };
    start(&at.netns, load, place, Share::All, after)
}

fn start(
    netns: &Arc<Netns>,
    load: &Arc<Load>,
    place: Place,
    share: Share,
    after: u64,
) -> JoinHandle<Vec<Watcher>> {
    let (netns, load) = (Arc::clone(netns), Arc::clone(load));
    std::thread::spawn(move || netns.block_on(|| load.run(place, share, after)))
}

fn join(clients: Vec<JoinHandle<Vec<Watcher>>>) -> Vec<Watcher> {
    let join = |thread: JoinHandle<_>| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    clients.into_iter().flat_map(join).collect()
}

/// Whether a write was on its way when its server was killed. Neither a proxy nor a client can know whether such a write
/// took place, so the client is told; sending it again might double it.
fn is_lost_with_a_server(failure: &Failure, kills: &[Instant]) -> bool {
    failure.in_doubt
        && kills.iter().any(|kill| failure.begun <= *kill && failure.ended < *kill + Duration::from_secs(2))
}

/// Returns the moments at which a server had been killed.
fn restart_again_and_again(cluster: &mut Cluster, ends: Instant) -> Vec<Instant> {
    let begun = Instant::now();
    let mut kills = Vec::new();
    for round in 0..=ends.duration_since(begun).as_secs() / ROUND_SECONDS {
        for restart in &ROUND {
            let at = begun + Duration::from_secs(round * ROUND_SECONDS + restart.at);
            // The last one is over well before the load ends.
            if at + Duration::from_secs(restart.down + 5) > ends {
                return kills;
            }
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            let server = cluster.take_server(restart.node);
            let name = cluster.nodes[restart.node].name;
            match restart.how {
                Stop::Gracefully => server.terminate(),
                Stop::Killed => {
                    server.kill();
                    kills.push(Instant::now());
                }
            }
            println!("{:>6.1} s: {name} is down", begun.elapsed().as_secs_f32());
            std::thread::sleep(Duration::from_secs(restart.down));
            cluster.start_server(restart.node, NEW);
            println!("{:>6.1} s: {name} serves again", begun.elapsed().as_secs_f32());
        }
    }
    kills
}

fn opened(watches: &[Watcher]) -> usize {
    watches.iter().map(|watch| watch.opened).sum()
}

fn range(load: &Load) -> Range {
    Range {
        resource: Some((String::new(), "configmaps".to_owned())),
        namespace: Some(load.namespace.to_owned()),
        name: None,
    }
}

fn revision(cluster: &Cluster) -> u64 {
    wait_for(async {
        Store::connect(&cluster.store).await.unwrap().list(&Range::default()).await.unwrap().revision
    })
}

/// Writes one last object and tells the watches which.
fn end_watches(cluster: &Cluster, load: &Load) {
    let key = Key::new("", "configmaps", load.namespace, "last");
    let object = json!({"metadata": {"name": "last", "namespace": load.namespace}, "data": {"mark": "last"}});
    // Clients finish the object they are at; their writes come before the last one.
    std::thread::sleep(Duration::from_secs(1));
    let last = wait_for(async {
        let store = Store::connect(&cluster.store).await.unwrap();
        store.put(&key, object, Expected::Absent).await.unwrap().revision
    });
    load.last_revision.store(last, Ordering::Relaxed);
}

/// Each watch saw each write once and in order; the differences in words.
fn check_watches(cluster: &Cluster, load: &Load, watches: &[Watcher], after: u64) -> String {
    let written = wait_for(async {
        let store = Store::connect(&cluster.store).await.unwrap();
        store.events(&range(load), after, Duration::ZERO).await.unwrap().events
    });
    let last = load.last_revision.load(Ordering::Relaxed);
    let kind = |event: &mvproxy_tests::store::Event| match (&event.previous, &event.value) {
        (None, _) => "ADDED",
        (Some(_), Some(_)) => "MODIFIED",
        (Some(_), None) => "DELETED",
    };
    let written: Vec<Event> = written
        .iter()
        .filter(|event| event.revision <= last)
        .map(|event| Event { kind: kind(event).to_owned(), revision: event.revision })
        .collect();
    println!("{} events in {}", written.len(), load.namespace);
    let differs = watches.iter().filter_map(|watch| {
        let common = watch.events.iter().zip(&written).take_while(|(seen, written)| seen == written).count();
        let (seen, total) = (watch.events.len(), written.len());
        let next = (watch.events.get(common), written.get(common));
        (common < seen.max(total))
            .then(|| format!("{}: {seen} of {total}, differs at {next:?}\n", watch.name))
    });
    differs.collect()
}

fn wait_for<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(work)
}
