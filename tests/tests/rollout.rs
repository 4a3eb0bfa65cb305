//! Restarts or kills both API servers of a cluster one after the other while clients of each node go on working.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod cluster_support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cluster_support::{Cluster, Event, Failure, Load, Place, Share, Watcher, differences};
use mvproxy_tests::netns::Netns;
use mvproxy_tests::store::{Expected, Key, Range, Store};
use serde_json::json;

/// Length of the rolling restart in seconds; longer ones repeat it.
const SECONDS: &str = "MVPROXY_ROLLOUT_SECONDS";
const DEFAULT_SECONDS: u64 = 60;
/// What has to be asked at least, in the default length.
const FEWEST_REQUESTS: usize = 3_000;
const OLD: &str = "v1.35";
const NEW: &str = "v1.36";

/// The API servers' restarts, one after the other.
struct Schedule {
    how: Stop,
    restarts: &'static [Restart],
    /// Seconds after which it begins anew.
    round: u64,
}

/// One restart of one API server.
struct Restart {
    /// Seconds after the beginning of a round.
    at: u64,
    node: usize,
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

/// An upgrade of both nodes, and another.
const ROLLING: Schedule = Schedule {
    how: Stop::Gracefully,
    restarts: &[
        Restart { at: 3, node: 0, down: 3 },
        Restart { at: 16, node: 1, down: 4 },
        Restart { at: 30, node: 0, down: 5 },
        Restart { at: 44, node: 1, down: 3 },
    ],
    round: 56,
};

/// Crashes of each API server.
const CRASHES: Schedule = Schedule {
    how: Stop::Killed,
    restarts: &[
        Restart { at: 1, node: 0, down: 2 },
        Restart { at: 5, node: 1, down: 2 },
        Restart { at: 9, node: 0, down: 2 },
        Restart { at: 12, node: 1, down: 2 },
    ],
    round: 20,
};
const CRASHES_SECONDS: u64 = 20;
/// A write that was on its way when its server was killed is answered within this time.
const TOLD: Duration = Duration::from_secs(2);

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn a_rolling_restart_of_both_api_servers_fails_no_request_and_no_watch() {
    let seconds = std::env::var(SECONDS).map_or(DEFAULT_SECONDS, |text| text.parse().expect(SECONDS));
    let run = Run::through("rollout", &ROLLING, Duration::from_secs(seconds));
    run.has_no_lost_or_doubled_write();
    run.has_no_gap_or_repeat_in_a_watch();
    let failures = run.steered.ledger.failures();
    assert!(failures.is_empty(), "logs in {}: {failures:#?}", run.cluster.logs.display());
    let asked = run.steered.ledger.requests();
    assert!(seconds < DEFAULT_SECONDS || asked >= FEWEST_REQUESTS, "only {asked} requests");
}

/// Neither a proxy nor a client can know whether a write took place that was on its way when its server was killed, so the
/// client is told; sending it again might double it.
#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn a_killed_api_server_fails_nothing_but_writes_on_their_way() {
    let run = Run::through("crashes", &CRASHES, Duration::from_secs(CRASHES_SECONDS));
    run.has_no_lost_or_doubled_write();
    run.has_no_gap_or_repeat_in_a_watch();
    let was_on_its_way = |failure: &Failure| {
        run.stops.iter().any(|kill| failure.begun <= *kill && failure.ended < *kill + TOLD)
    };
    let (in_doubt, failures): (Vec<_>, Vec<_>) = run
        .steered
        .ledger
        .failures()
        .into_iter()
        .partition(|failure| failure.is_write && failure.in_doubt && was_on_its_way(failure));
    assert!(failures.is_empty(), "logs in {}: {failures:#?}", run.cluster.logs.display());
    assert!(!in_doubt.is_empty(), "no write was on its way to a server that was killed");
    assert_eq!(opened(&run.watches), run.watches.len(), "a watch broke off");
    println!(
        "writes that a killed server took with it, so that nobody knows of their effect: {}",
        in_doubt.len()
    );
}

/// A load that has gone through a schedule of restarts.
struct Run {
    cluster: Cluster,
    /// Through the proxies.
    steered: Arc<Load>,
    watches: Vec<Watcher>,
    /// The store's revision when it began.
    first: u64,
    /// When API servers had ended.
    stops: Vec<Instant>,
}

impl Run {
    /// Goes through it and prints how it went, with and without proxies.
    fn through(label: &str, schedule: &Schedule, length: Duration) -> Self {
        let mut cluster = Cluster::start(label, [OLD, OLD]);
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
        let stops = restart_again_and_again(&mut cluster, schedule, steered.ends);
        std::thread::sleep(steered.ends.saturating_duration_since(Instant::now()));
        for load in [&steered, &straight] {
            end_watches(&cluster, load);
        }
        let (watches, straight_watches) = (join(clients), join(straight_clients));

        for node in &cluster.nodes {
            println!("connections at {}: {}", node.name, node.steering());
        }
        println!("through mvproxy: {}", steered.ledger.summary());
        println!("watches: {} through mvproxy, opened {} times", watches.len(), opened(&watches));
        println!("straight to the API servers: {}", straight.ledger.summary());
        let straight_writes = wait_for(straight.ledger.check_writes(&cluster.store, &range(&straight)));
        println!("writes straight to the API servers: {straight_writes:?}");
        println!("watches: {} straight, opened {} times", straight_watches.len(), opened(&straight_watches));
        assert!(
            !straight.ledger.failures().is_empty(),
            "the restarts did not happen: nothing failed without a proxy"
        );
        Self { cluster, steered, watches, first, stops }
    }

    fn has_no_lost_or_doubled_write(&self) {
        let checked = wait_for(self.steered.ledger.check_writes(&self.cluster.store, &range(&self.steered)));
        assert_eq!(checked.as_ref().err(), None, "writes lost or doubled");
        println!("writes through mvproxy: {checked:?}");
    }

    fn has_no_gap_or_repeat_in_a_watch(&self) {
        let differences = check_watches(&self.cluster, &self.steered, &self.watches, self.first);
        assert_eq!(differences, "", "gaps or repeats in watches");
    }
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

/// Returns the moments at which a server had ended.
fn restart_again_and_again(cluster: &mut Cluster, schedule: &Schedule, ends: Instant) -> Vec<Instant> {
    let begun = Instant::now();
    let mut stops = Vec::new();
    for round in 0..=ends.duration_since(begun).as_secs() / schedule.round {
        for restart in schedule.restarts {
            let at = begun + Duration::from_secs(round * schedule.round + restart.at);
            // The last one is over well before the load ends.
            if at + Duration::from_secs(restart.down + 5) > ends {
                return stops;
            }
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            let server = cluster.take_server(restart.node);
            let name = cluster.nodes[restart.node].name;
            match schedule.how {
                Stop::Gracefully => server.terminate(),
                Stop::Killed => server.kill(),
            }
            stops.push(Instant::now());
            println!("{:>6.1} s: {name} is down", begun.elapsed().as_secs_f32());
            std::thread::sleep(Duration::from_secs(restart.down));
            cluster.start_server(restart.node, NEW);
            println!("{:>6.1} s: {name} serves again", begun.elapsed().as_secs_f32());
        }
    }
    stops
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
    differences(watches, &written)
}

fn wait_for<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(work)
}
