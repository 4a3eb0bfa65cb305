//! Asks a node for what its API server does not serve, from wherever clients are.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use mvproxy_tests::client::{Client, ClientOptions};
use mvproxy_tests::netns::Netns;

use super::cluster_support::{Cluster, Connecting, Session};
use super::support::only_new_serves;

/// Where a client is, and whom it dials.
pub struct Place<'a> {
    pub name: &'static str,
    pub netns: &'a Netns,
    pub options: ClientOptions,
}

/// One request on a connection of its own.
#[derive(Debug)]
pub struct Asked {
    /// Only read when something failed.
    #[allow(dead_code, reason = "shown by Debug")]
    pub place: &'static str,
    pub begun: Instant,
    pub took: Duration,
    /// Status code, or what went wrong.
    pub outcome: Result<u16, String>,
}

/// Clients of the first node: on itself, on the other node as its kubelet, and elsewhere.
pub fn places(cluster: &Cluster) -> [Place<'_>; 3] {
    let [node, other] = &cluster.nodes;
    let dial = |address: std::net::IpAddr| cluster.options((address, 6443).into());
    [
        Place { name: "the node itself", netns: &node.netns, options: cluster.options_on_node() },
        Place { name: "a kubelet", netns: &other.netns, options: dial(node.ip.into()) },
        Place { name: "elsewhere", netns: &cluster.elsewhere, options: cluster.options(node.address()) },
    ]
}

/// Asks once.
pub fn ask(place: &Place<'_>) -> Asked {
    let begun = Instant::now();
    let outcome = place.netns.block_on(async || {
        let mut session = Session::new(place.options.clone(), Connecting::Fresh);
        let get = Request::get(only_new_serves().path()).body(Bytes::new()).unwrap();
        session.fetch(get).await.map(|answer| answer.status.as_u16())
    });
    Asked { place: place.name, begun, took: begun.elapsed(), outcome }
}

/// Asks on a connection that is open.
#[allow(dead_code, reason = "every test binary uses its own part of this")]
pub async fn ask_on(client: &mut Client) -> Result<u16, String> {
    let answered = client.get(&only_new_serves().path()).await;
    answered.map(|answer| answer.status.as_u16()).map_err(|error| format!("{error:#}"))
}

/// Does something while clients of every place ask again and again, whether or not they are answered, and returns what they
/// met.
pub fn while_asking<T>(cluster: &Cluster, work: impl FnOnce() -> T) -> (T, Vec<Asked>) {
    let (done, all) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let places = places(cluster);
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                for place in &places {
                    scope.spawn(|| {
                        let asked = ask(place);
                        all.lock().expect("no holder of this lock panics").push(asked);
                    });
                }
                std::thread::sleep(PAUSE);
            }
        });
        let _stop = Stop(&done);
        work()
    });
    (result, all.into_inner().expect("no holder of this lock panics"))
}

/// Between two requests of a place.
const PAUSE: Duration = Duration::from_millis(150);

/// Ends the clients also when a test panics.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Requests that began and ended between two moments.
pub fn asked_between(asked: &[Asked], from: Instant, to: Instant) -> impl Iterator<Item = &Asked> {
    asked.iter().filter(move |asked| asked.begun >= from && asked.begun + asked.took <= to)
}
