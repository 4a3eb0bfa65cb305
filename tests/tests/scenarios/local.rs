//! While a node's own API server is down or not ready its peers answer, and health endpoints tell the truth.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use crate::failure_support::{AT_ONCE, Rig, Server, World, assert_unavailable};
use crate::support::{BOTH, Http, aggregated, both_serve, ensure, eventually};

const ABOUT_THIS_SERVER: [&str; 6] =
    ["/livez", "/readyz", "/healthz", "/readyz?verbose", "/readyz/ping", "/metrics"];

pub async fn peers_answer_for_a_local_server_that_is_down_and_health_endpoints_do_not(world: World) {
    let rig = Rig::start(&world, 2).await;
    let api = both_serve();
    let known = rig.session(Http::Two).await.fetch(aggregated("/apis")).await;
    rig.local.kill().await;
    for http in BOTH {
        let mut session = rig.session(http).await;
        for _ in 0..10 {
            let outcome = rig.ask(&mut session, "POST", &api).await;
            outcome.is_served().is_from_a_peer().took_less_than(AT_ONCE);
            let object = format!("{}/{}", api.path(), outcome.row.name);
            let patch = json!({"data": {"key": "value"}});
            assert_eq!(session.json("PATCH", &object, &patch).await.status, 200);
            let read = session.get(&object).await;
            assert_eq!(read.json().unwrap()["data"], patch["data"], "{}", read.text());
            let list = rig.ask(&mut session, "GET", &api).await;
            list.is_served().is_from_a_peer().took_less_than(AT_ONCE);
        }
        for path in ["/apis", "/api"] {
            let answer = session.fetch(aggregated(path)).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        }
        let still = session.fetch(aggregated("/apis")).await;
        assert_eq!(still.text(), known.text(), "merged discovery flaps");
        assert_eq!(session.get("/version").await.status, 200);
        for path in ABOUT_THIS_SERVER {
            let begun = Instant::now();
            assert_unavailable(&session.get(path).await, path);
            assert!(begun.elapsed() < AT_ONCE, "{path}: {:?}", begun.elapsed());
        }
    }
    assert!(!rig.peers.iter().any(was_asked_how_it_does), "a peer was asked about the health of this server");
}

/// By clients: the proxy itself asks its peers about their own readiness.
fn was_asked_how_it_does(server: &Server) -> bool {
    let is_health = |target: &str| ABOUT_THIS_SERVER.iter().any(|path| target.starts_with(path));
    let is_proxy = |user: &mvproxy_tests::standin::User| user.name == "system:mixed-version-proxy";
    let requests = server.requests();
    requests.iter().any(|seen| is_health(&seen.target) && !seen.user.as_ref().is_some_and(is_proxy))
}

pub async fn requests_go_back_to_the_local_server_as_soon_as_it_is_ready(world: World) {
    let rig = Rig::start(&world, 1).await;
    let api = both_serve();
    rig.local.kill().await;
    let mut session = rig.session(Http::Two).await;
    let begun = Instant::now();
    // Long enough for the proxy to have given up more than once.
    while begun.elapsed() < Duration::from_secs(3) {
        for method in ["GET", "POST"] {
            let outcome = rig.ask(&mut session, method, &api).await;
            outcome.is_served().is_from_a_peer().took_less_than(AT_ONCE);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    rig.local.start_again().await;
    let begun = Instant::now();
    eventually("the local server is used", async || {
        let outcome = rig.ask(&mut rig.session(Http::Two).await, "POST", &api).await;
        outcome.is_served().took_less_than(AT_ONCE);
        ensure(outcome.seen.local == 1, || "not yet".to_owned())
    })
    .await;
    println!("back to the local server after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    for path in ["/livez", "/readyz"] {
        assert_eq!(rig.session(Http::One).await.get(path).await.status, 200, "{path}");
    }
}

pub async fn a_local_server_that_stops_gracefully_fails_no_request_under_way(world: World) {
    let rig = Rig::start(&world, 1).await;
    let api = both_serve();
    let stopping = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        rig.local.stop().await;
    };
    let clients = (0..8).map(async |client| {
        let begun = Instant::now();
        let mut session = rig.session(BOTH[client % 2]).await;
        let mut by_peers = 0;
        while begun.elapsed() < Duration::from_secs(2) {
            let outcome = rig.ask(&mut session, "POST", &api).await;
            outcome.is_served().took_less_than(AT_ONCE);
            by_peers += outcome.seen.peers[0];
            let object = format!("{}/{}", api.path(), outcome.row.name);
            assert_eq!(session.get(&object).await.status, 200);
        }
        by_peers
    });
    let (by_peers, ()) = tokio::join!(join_all(clients), stopping);
    let by_peers: usize = by_peers.iter().sum();
    println!("{by_peers} objects were written at the peer");
    assert!(by_peers > 0, "the peer was never needed");
}

pub async fn without_local_failover_a_dead_local_server_is_a_503(world: World) {
    let rig = Rig::start_with(&world, 1, &["--local-failover=false"]).await;
    rig.local.kill().await;
    for http in BOTH {
        let mut session = rig.session(http).await;
        for method in ["GET", "POST"] {
            let outcome = rig.ask(&mut session, method, &both_serve()).await;
            outcome.is_unavailable().took_less_than(AT_ONCE);
        }
    }
}
