//! Watches and connections that end early: nothing is lost, nothing comes twice, nothing hangs.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod failure_support;
mod support;

use std::time::{Duration, Instant};

use failure_support::Rig;
use futures_util::future::join_all;
use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use mvproxy_tests::standin::Fault;
use serde_json::Value;
use support::{BOTH, bounded, only_new_serves, promptly, request};

const AT_ONCE: Duration = Duration::from_secs(1);

/// Reads whole lines of a watch.
struct Lines {
    watch: Response<Incoming>,
    unread: Vec<u8>,
}

impl Lines {
    /// The next event's type and object name; `None` when the watch ended in whatever way.
    async fn next(&mut self) -> Option<(String, String)> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line).unwrap();
                let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
                return Some((event["type"].as_str().unwrap().to_owned(), name.to_owned()));
            }
            let frame = promptly("an event or the end", self.watch.frame()).await?.ok()?;
            self.unread.extend(frame.into_data().unwrap());
        }
    }
}

#[test]
fn a_watch_whose_peer_dies_goes_on_at_another_without_a_gap_or_a_repeat() {
    bounded(async {
        for http in BOTH {
            let rig = Rig::start(2).await;
            let api = only_new_serves();
            let revision = rig.store.list(&mvproxy_tests::store::Range::default()).await.unwrap().revision;
            let target = format!("{}?watch=1&resourceVersion={revision}", api.path());
            let mut session = rig.session(http).await;
            let watch = session.open(request("GET", &target)).await.unwrap();
            let mut watch = Lines { watch, unread: Vec::new() };
            let mut writing = rig.session(http).await;
            let serves = rig.seen("GET", &target).iter().position(|count| *count == 1).unwrap();
            for number in 0..6 {
                if number == 3 {
                    rig.peers[serves].trap.vanish();
                }
                let name = format!("event-{number}");
                let begun = Instant::now();
                let written = writing.json("POST", &api.path(), &api.object(&name)).await;
                assert_eq!(written.status, 201, "{}", written.text());
                let event = watch.next().await;
                assert_eq!(event, Some(("ADDED".to_owned(), name)), "{http:?}");
                assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
            }
        }
    });
}

#[test]
fn a_watch_that_nobody_can_go_on_with_ends_at_once() {
    bounded(async {
        for http in BOTH {
            let rig = Rig::start(1).await;
            let target = format!("{}?watch=1", only_new_serves().path());
            let mut session = rig.session(http).await;
            let watch = session.open(request("GET", &target)).await.unwrap();
            let begun = Instant::now();
            rig.peers[0].trap.vanish();
            assert_eq!(Lines { watch, unread: Vec::new() }.next().await, None, "{http:?}");
            assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
        }
    });
}

/// kube-apiserver's `--goaway-chance` and every graceful stop do this.
#[test]
fn a_storm_of_goaways_fails_and_doubles_nothing() {
    bounded(async {
        let rig = Rig::start(1).await;
        let api = only_new_serves();
        // Every connection is told to go after one request, and now and then a write is refused unprocessed.
        rig.peers[0].standin.faults().inject(Fault::GoAway, &api.path(), usize::MAX);
        let storm = async {
            for _ in 0..40 {
                tokio::time::sleep(Duration::from_millis(50)).await;
                rig.peers[0].trap.go_away_once();
            }
        };
        let (rig, api) = (&rig, &api);
        let clients = (0..10).map(|client| async move {
            let mut session = rig.session(BOTH[client % 2]).await;
            let begun = Instant::now();
            let mut number = 0;
            while begun.elapsed() < Duration::from_secs(2) {
                let name = format!("storm-{client}-{number}");
                let written = session.json("POST", &api.path(), &api.object(&name)).await;
                assert_eq!(written.status, 201, "{}", written.text());
                let read = session.get(&format!("{}/{name}", api.path())).await;
                assert_eq!(read.status, 200, "{}", read.text());
                assert_eq!(rig.created(&name).await, 1);
                number += 1;
            }
            number
        });
        let (written, ()) = tokio::join!(join_all(clients), storm);
        let (written, away) = (written.iter().sum::<usize>(), rig.peers[0].trap.sent_away());
        println!("{written} writes; reads and writes sent away before they were processed: {away:?}");
        assert!(away.iter().sum::<usize>() > 0, "nothing met a GOAWAY before it was processed");
    });
}
