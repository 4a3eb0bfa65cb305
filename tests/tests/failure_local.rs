//! While a node's own API server is down or not ready its peers answer, and health endpoints tell the truth.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod failure_support;
mod support;

use std::time::{Duration, Instant};

use failure_support::{Rig, assert_unavailable};
use serde_json::json;
use support::{BOTH, Http, aggregated, both_serve, bounded, ensure, eventually, request};

const AT_ONCE: Duration = Duration::from_secs(1);

#[test]
fn peers_answer_for_a_local_server_that_is_down_and_health_endpoints_do_not() {
    bounded(async {
        let mut rig = Rig::start(2).await;
        let api = both_serve();
        let known = rig.session(Http::Two).await.fetch(aggregated("/apis")).await;
        rig.local = None;
        for http in BOTH {
            let mut session = rig.session(http).await;
            for number in 0..10 {
                let name = format!("stand-in-{number}-{http:?}").to_lowercase();
                let begun = Instant::now();
                let written = session.json("POST", &api.path(), &api.object(&name)).await;
                assert_eq!(written.status, 201, "{}", written.text());
                let object = format!("{}/{name}", api.path());
                assert_eq!(session.get(&object).await.status, 200);
                let patch = json!({"data": {"key": "value"}});
                assert_eq!(session.json("PATCH", &object, &patch).await.status, 200);
                assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
                assert_eq!(rig.created(&name).await, 1);
            }
            for path in ["/apis", "/api"] {
                let answer = session.fetch(aggregated(path)).await;
                assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            }
            let still = session.fetch(aggregated("/apis")).await;
            assert_eq!(still.text(), known.text(), "merged discovery flaps");
            assert_eq!(session.get("/version").await.status, 200);
            for path in ["/livez", "/readyz", "/healthz", "/readyz?verbose", "/readyz/ping", "/metrics"] {
                let begun = Instant::now();
                assert_unavailable(&session.get(path).await, path);
                assert!(begun.elapsed() < AT_ONCE, "{path}: {:?}", begun.elapsed());
            }
        }
        assert_eq!(rig.seen("POST", &api.path()).iter().sum::<usize>(), 20, "each write went to one peer");
        let health = |peer: &failure_support::Peer| {
            let asked = peer.standin.requests();
            let is_health = |target: &str| {
                ["/livez", "/readyz", "/healthz", "/metrics"].iter().any(|path| target.starts_with(path))
            };
            asked.iter().any(|seen| is_health(&seen.target) && !seen.user.as_ref().is_some_and(is_proxy))
        };
        assert!(!rig.peers.iter().any(health), "a peer was asked about the health of this server");
    });
}

/// The proxy asks its peers about their own readiness.
fn is_proxy(user: &mvproxy_tests::standin::User) -> bool {
    user.name == "system:mixed-version-proxy"
}

#[test]
fn requests_go_back_to_the_local_server_as_soon_as_it_is_ready() {
    bounded(async {
        let mut rig = Rig::start(1).await;
        let target = format!("{}?back", both_serve().path());
        rig.local = None;
        let answer = rig.session(Http::Two).await.get(&target).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        // Long enough for the proxy to have given up more than once.
        tokio::time::sleep(Duration::from_secs(3)).await;
        rig.restart_local().await;
        let begun = Instant::now();
        let local = rig.local.as_ref().unwrap();
        eventually("the local server is used", async || {
            let answer = rig.session(Http::Two).await.get(&target).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            ensure(local.requests().iter().any(|seen| seen.target == target), || "not yet".to_owned())
        })
        .await;
        println!("back to the local server after {:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        for path in ["/livez", "/readyz"] {
            assert_eq!(rig.session(Http::One).await.get(path).await.status, 200, "{path}");
        }
    });
}

#[test]
fn a_local_server_that_stops_gracefully_fails_no_request_under_way() {
    bounded(async {
        let mut rig = Rig::start(1).await;
        let api = both_serve();
        let local = rig.local.take().unwrap();
        let stopping = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            local.stop().await.unwrap();
        };
        let rig = &rig;
        let clients = (0..8).map(|client| {
            let api = &api;
            async move {
                let http = BOTH[client % 2];
                let begun = Instant::now();
                let mut session = rig.session(http).await;
                let mut number = 0;
                while begun.elapsed() < Duration::from_secs(2) {
                    let name = format!("stop-{client}-{number}");
                    let written = session.json("POST", &api.path(), &api.object(&name)).await;
                    assert_eq!(written.status, 201, "{}", written.text());
                    assert_eq!(session.get(&format!("{}/{name}", api.path())).await.status, 200);
                    assert_eq!(rig.created(&name).await, 1);
                    number += 1;
                }
                number
            }
        });
        let (written, ()) = tokio::join!(futures_util::future::join_all(clients), stopping);
        println!("{} objects written while the local server stopped", written.iter().sum::<usize>());
        assert!(rig.seen("POST", &api.path())[0] > 0, "the peer was never needed");
    });
}

#[test]
fn without_local_failover_a_dead_local_server_is_a_503() {
    bounded(async {
        let mut rig = Rig::start_with(1, &[], &["--local-failover=false"]).await;
        rig.knows_all().await;
        rig.local = None;
        for http in BOTH {
            for method in ["GET", "POST"] {
                let answer = rig.session(http).await.fetch(request(method, &both_serve().path())).await;
                assert_unavailable(&answer, method);
            }
        }
        assert_eq!(rig.seen("GET", &both_serve().path()), [0]);
    });
}
