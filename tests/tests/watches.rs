//! A thousand watches through one proxy: more than ten times what one upstream connection may carry.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod failure_support;
mod support;

use std::time::{Duration, Instant};

use failure_support::{Rig, World};
use futures_util::future::join_all;
use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use mvproxy_tests::client::Answer;
use mvproxy_tests::standin::{MAX_STREAMS, RecordedRequest};
use support::{Api, Http, Session, both_serve, bounded, only_new_serves, promptly, request};

const WATCHES: usize = 1_000;
/// The proxy allows a client no more streams on a connection than kube-apiserver does.
const WATCHES_PER_CLIENT: usize = 100;
/// Time in which every watch has its event.
const EVENT_LIMIT: Duration = Duration::from_secs(2);

#[test]
fn a_thousand_watches_of_the_local_server_have_an_event_within_2_s() {
    bounded(async {
        let rig = Rig::start(&World::Loopback, 1).await;
        let api = both_serve();
        let (clients, watches) = open(&rig, &api).await;
        all_see_one_event(&rig, &api, watches).await;
        assert_shared(&rig.local.requests(), &target(&api));
        assert_eq!(rig.peers[0].saw("GET", &target(&api)), 0, "the local server has them all");
        drop(clients);
    });
}

#[test]
fn a_thousand_rerouted_watches_have_an_event_within_2_s() {
    bounded(async {
        let rig = Rig::start(&World::Loopback, 1).await;
        let api = only_new_serves();
        let (clients, watches) = open(&rig, &api).await;
        all_see_one_event(&rig, &api, watches).await;
        assert_shared(&rig.peers[0].requests(), &target(&api));
        drop(clients);
    });
}

fn target(api: &Api) -> String {
    format!("{}?watch=1", api.path())
}

/// Opens all watches at once and returns when each has its response header.
async fn open(rig: &Rig, api: &Api) -> (Vec<Session>, Vec<Response<Incoming>>) {
    let begun = Instant::now();
    let mut clients = Vec::new();
    let mut watches = Vec::new();
    for _ in 0..WATCHES / WATCHES_PER_CLIENT {
        let session = rig.session(Http::Two).await;
        for _ in 0..WATCHES_PER_CLIENT {
            let (mut shared, target) = (session.client.share().unwrap(), target(api));
            watches.push(async move { shared.send(request("GET", &target)).await.unwrap() });
        }
        clients.push(session);
    }
    let watches = promptly("every watch opens", join_all(watches)).await;
    assert!(watches.iter().all(|watch| watch.status() == 200));
    println!("{} watches of {} opened in {:?}", watches.len(), api.resource, begun.elapsed());
    (clients, watches)
}

/// Writes one object; every watch must see it in time.
async fn all_see_one_event(rig: &Rig, api: &Api, mut watches: Vec<Response<Incoming>>) {
    let mut writing = rig.session(Http::One).await;
    let begun = Instant::now();
    let written: Answer = writing.json("POST", &api.path(), &api.object("seen")).await;
    assert_eq!(written.status, 201, "{}", written.text());
    join_all(watches.iter_mut().map(see)).await;
    println!("all had the event after {:?}", begun.elapsed());
    assert!(begun.elapsed() < EVENT_LIMIT, "{:?}", begun.elapsed());
}

/// Reads one line.
async fn see(watch: &mut Response<Incoming>) {
    let mut line: Vec<u8> = Vec::new();
    while !line.ends_with(b"\n") {
        let frame = promptly("the event", watch.frame()).await.expect("the watch goes on").unwrap();
        line.extend(frame.into_data().unwrap());
    }
    let line = String::from_utf8(line).unwrap();
    assert!(line.starts_with(r#"{"object":"#) || line.starts_with(r#"{"type":"ADDED""#), "{line}");
    assert!(line.contains(r#""name":"seen""#), "{line}");
}

/// No connection carried more than the server allows, and there are no more connections than that needs.
fn assert_shared(requests: &[RecordedRequest], target: &str) {
    let mut connections = std::collections::BTreeMap::<u64, usize>::new();
    for request in requests.iter().filter(|request| request.target == target) {
        *connections.entry(request.connection).or_default() += 1;
    }
    println!("{} connections: {connections:?}", connections.len());
    assert_eq!(connections.values().sum::<usize>(), WATCHES, "each watch arrived once");
    let most = connections.values().max().copied().unwrap_or_default();
    assert!(most <= MAX_STREAMS as usize, "{most} watches on one connection");
    assert!(connections.len() <= 3 * WATCHES / MAX_STREAMS as usize, "{} connections", connections.len());
}
