//! The network between two nodes goes down: nothing hangs, nothing local suffers, and all is well when it is back.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod cluster_support;
mod support;

use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster_support::{Cluster, Connecting, Session};
use http::Request;
use mvproxy_tests::client::{Answer, ClientOptions};
use mvproxy_tests::store::{Range, Store};
use serde_json::{Value, json};
use support::{both_serve, only_new_serves};

/// A dead peer is noticed, and what waits for it answered, within this time.
const NOTICED: Duration = Duration::from_secs(5);
/// What has nothing to do with the dead peer takes no longer.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Requests that are on their way when the link goes down.
const WAITING: usize = 8;

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn a_peer_behind_a_dead_link_is_noticed_and_delays_nothing_else() {
    let cluster = Cluster::start("link", ["v1.34", "v1.36-all"]);
    let options = cluster.options(cluster.nodes[0].address());
    let written = cluster.elsewhere.block_on(|| live_through(&cluster, options));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Store::connect(&cluster.store).await.unwrap();
        let events = store.events(&Range::default(), 0, Duration::ZERO).await.unwrap().events;
        for (name, confirmed) in written {
            let times = events.iter().filter(|event| event.key.name == name).count();
            assert!(times == usize::from(confirmed) || (!confirmed && times <= 1), "{name}: {times} times");
        }
    });
}

/// Returns the names of what was written, and whether that was confirmed.
async fn live_through(cluster: &Cluster, options: ClientOptions) -> Vec<(String, bool)> {
    let far = only_new_serves();
    let mut written = Vec::new();
    let mut session = Session::new(options.clone(), Connecting::Kept);
    assert_eq!(get(&mut session, &far.path()).await.0.status, 200, "rerouted while the link is up");

    cluster.nodes[1].set_link(false);
    let begun = Instant::now();
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..WAITING {
        let (options, far) = (options.clone(), far.clone());
        waiting.spawn(async move {
            let mut session =
                Session::new(ClientOptions { http2: number % 4 < 2, ..options }, Connecting::Fresh);
            let name = format!("link-{number}");
            if number % 2 == 0 {
                let (answer, took) = get(&mut session, &far.path()).await;
                assert_unavailable(&answer);
                assert!(took < NOTICED, "a read took {took:?}");
                return None;
            }
            let (answer, took) = post(&mut session, &far.path(), &far.object(&name)).await;
            // It was sent, so nobody can know; or it was not, and may be sent again.
            assert!(answer.status == 502 || answer.status == 503, "{}", answer.text());
            assert_eq!(answer.status == 503, !answer.header("retry-after").is_empty(), "{}", answer.text());
            assert!(took < NOTICED, "a write took {took:?}");
            Some((name, false))
        });
    }
    let near = both_serve();
    for _ in 0..20 {
        let (answer, took) = get(&mut session, &near.path()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(took < AT_ONCE, "what is local took {took:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    written.extend(waiting.join_all().await.into_iter().flatten());
    println!("everything that waited for the dead peer was answered after {:?}", begun.elapsed());

    // By now the peer is known to be dead.
    for _ in 0..5 {
        let (answer, took) = get(&mut session, &far.path()).await;
        assert_unavailable(&answer);
        assert!(took < NOTICED, "{took:?}");
    }
    cluster.nodes[1].set_link(true);
    let begun = Instant::now();
    while get(&mut session, &far.path()).await.0.status != 200 {
        assert!(begun.elapsed() < NOTICED, "not used again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("the peer was used again {:?} after its link was up", begun.elapsed());
    let (answer, _) = post(&mut session, &far.path(), &far.object("after")).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    written.push(("after".to_owned(), true));
    written
}

async fn get(session: &mut Session, target: &str) -> (Answer, Duration) {
    let begun = Instant::now();
    let answer = session.fetch(Request::get(target).body(Bytes::new()).unwrap()).await.unwrap();
    (answer, begun.elapsed())
}

async fn post(session: &mut Session, target: &str, object: &Value) -> (Answer, Duration) {
    let begun = Instant::now();
    let request = Request::post(target).header("content-type", "application/json");
    let answer = session.fetch(request.body(Bytes::from(object.to_string())).unwrap()).await.unwrap();
    (answer, begun.elapsed())
}

#[track_caller]
fn assert_unavailable(answer: &Answer) {
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.header("retry-after"), "1");
    let status = answer.json().unwrap();
    assert_eq!((&status["kind"], &status["reason"]), (&json!("Status"), &json!("ServiceUnavailable")));
    assert!(!answer.text().contains("10.61"), "an address: {}", answer.text());
}
