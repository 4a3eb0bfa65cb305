//! Watches and connections that end early: nothing is lost, nothing comes twice, nothing hangs.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use mvproxy_tests::standin::Fault;
use mvproxy_tests::store::Range;
use serde_json::Value;

use crate::failure_support::{AT_ONCE, Rig, SOON, World};
use crate::support::{BOTH, only_new_serves, promptly, request};

/// Reads whole lines of a watch.
struct Lines {
    watch: Response<Incoming>,
    unread: Vec<u8>,
}

impl Lines {
    /// The next event's type and object name; `None` when the watch ended in order.
    async fn next(&mut self) -> Result<Option<(String, String)>, hyper::Error> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line).unwrap();
                let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
                return Ok(Some((event["type"].as_str().unwrap().to_owned(), name.to_owned())));
            }
            match promptly("an event or the end", self.watch.frame()).await {
                Some(frame) => self.unread.extend(frame?.into_data().unwrap()),
                None => return Ok(None),
            }
        }
    }
}

pub async fn a_watch_whose_peer_dies_goes_on_at_another_without_a_gap_or_a_repeat(world: World) {
    for http in BOTH {
        let rig = Rig::start(&world, 2).await;
        let api = only_new_serves();
        let revision = rig.store.list(&Range::default()).await.unwrap().revision;
        let target = format!("{}?watch=1&resourceVersion={revision}", api.path());
        let mut session = rig.session(http).await;
        let watch = session.open(request("GET", &target)).await.unwrap();
        assert_eq!(watch.status(), 200);
        let mut watch = Lines { watch, unread: Vec::new() };
        let mut writing = rig.session(http).await;
        let serves = rig.peers.iter().position(|peer| peer.saw("GET", &target) == 1).unwrap();
        for number in 0..6 {
            if number == 3 {
                rig.peers[serves].kill().await;
            }
            let begun = Instant::now();
            let outcome = rig.ask(&mut writing, "POST", &api).await;
            outcome.is_served().is_from_a_peer();
            let event = watch.next().await.unwrap();
            assert_eq!(event, Some(("ADDED".to_owned(), outcome.row.name)), "{http:?}");
            assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
        }
    }
}

/// An end in order would say that nothing more happened.
pub async fn a_watch_that_nobody_can_go_on_with_breaks_off_at_once(world: World) {
    for http in BOTH {
        let rig = Rig::start(&world, 1).await;
        let target = format!("{}?watch=1", only_new_serves().path());
        let mut session = rig.session(http).await;
        let watch = session.open(request("GET", &target)).await.unwrap();
        assert_eq!(watch.status(), 200);
        let begun = Instant::now();
        rig.peers[0].kill().await;
        let ended = Lines { watch, unread: Vec::new() }.next().await;
        assert!(ended.is_err(), "{http:?}: {ended:?}");
        assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
        assert_eq!(rig.peers[0].saw("GET", &target), 1, "{http:?}");
    }
}

/// kube-apiserver's `--goaway-chance` and every graceful stop do this.
pub async fn a_storm_of_goaways_fails_and_doubles_nothing(world: World) {
    let rig = Rig::start(&world, 1).await;
    let api = only_new_serves();
    // Every connection is told to go after one request, and now and then a request is refused unprocessed.
    rig.peers[0].inject(Fault::GoAway, &api.path(), usize::MAX);
    let storm = async {
        for _ in 0..40 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            rig.peers[0].turn_away_one();
        }
    };
    let clients = (0..10).map(async |client| {
        let mut session = rig.session(BOTH[client % 2]).await;
        let begun = Instant::now();
        let mut written = 0;
        while begun.elapsed() < Duration::from_secs(2) {
            let outcome = rig.ask(&mut session, "POST", &api).await;
            outcome.is_served().is_from_a_peer().took_less_than(SOON);
            let object = format!("{}/{}", api.path(), outcome.row.name);
            let read = rig.send(&mut session, rig.row_at("GET", &object)).await;
            assert_eq!((read.answer.status.as_u16(), read.seen.total()), (200, 1), "{read}");
            read.took_less_than(SOON);
            written += 1;
        }
        written
    });
    let (written, ()) = tokio::join!(join_all(clients), storm);
    let (written, away) = (written.iter().sum::<usize>(), rig.peers[0].turned_away());
    println!("{written} writes; turned away before they were processed: {away:?}");
    assert!(away.with_body + away.without > 0, "nothing met a GOAWAY before it was processed");
}
