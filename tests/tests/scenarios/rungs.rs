//! The routing ladder: which API server sees a request, and that no other does.

use crate::failure_support::{AT_ONCE, Rig, Server, World};
use crate::support::{BOTH, both_serve, ensure, eventually, only_new_serves};

const NOBODY_SERVES: &str = "/apis/nobody.example.com/v1/namespaces/default/things";
const READ_AND_WRITE: [&str; 2] = ["GET", "POST"];

pub async fn a_request_for_no_resource_is_served_locally(world: World) {
    let rig = Rig::start(&world, 2).await;
    for http in BOTH {
        let mut session = rig.session(http).await;
        for path in ["/version", "/healthz", "/apis/apps", "/openapi", "/nonsense"] {
            for method in READ_AND_WRITE {
                let row = rig.row_at(method, path);
                let straight = rig.straight(&row).await;
                rig.send(&mut session, row).await.is_like(&straight).took_less_than(AT_ONCE);
            }
        }
    }
}

pub async fn a_request_that_was_proxied_already_is_served_locally(world: World) {
    let rig = Rig::start(&world, 2).await;
    for mark in ["true", "false", ""] {
        let proxied = rig.admin.clone().header("x-kubernetes-peer-proxied", mark);
        for http in BOTH {
            let mut session = proxied.connect(rig.proxy.address, http).await;
            for method in READ_AND_WRITE {
                let row = rig.row(method, &only_new_serves());
                let straight = rig.straight(&row).await;
                assert_eq!(straight.status, 404, "the local server does not serve it");
                rig.send(&mut session, row).await.is_like(&straight).took_less_than(AT_ONCE);
                let outcome = rig.ask(&mut session, method, &both_serve()).await;
                outcome.is_served().is_from_local().took_less_than(AT_ONCE);
            }
        }
    }
}

pub async fn until_the_local_server_has_said_what_it_serves_it_gets_everything(world: World) {
    let rig = Rig::prepared(&world, 2, &[], async |local, _| local.fail_discovery()).await;
    eventually("the peers have been asked", async || {
        ensure(rig.peers.iter().all(|peer| peer.saw("GET", "/apis") > 1), || "not yet".to_owned())
    })
    .await;
    for http in BOTH {
        let mut session = rig.session(http).await;
        for method in READ_AND_WRITE {
            let row = rig.row(method, &only_new_serves());
            let straight = rig.straight(&row).await;
            assert_eq!(straight.status, 404, "the local server does not serve it");
            rig.send(&mut session, row).await.is_like(&straight).took_less_than(AT_ONCE);
            let outcome = rig.ask(&mut session, method, &both_serve()).await;
            outcome.is_served().is_from_local().took_less_than(AT_ONCE);
        }
    }
    rig.local.clear_faults();
    rig.knows_all().await;
}

pub async fn what_the_local_server_serves_goes_to_no_peer(world: World) {
    let rig = Rig::start(&world, 2).await;
    for http in BOTH {
        let mut session = rig.session(http).await;
        for method in READ_AND_WRITE {
            let outcome = rig.ask(&mut session, method, &both_serve()).await;
            outcome.is_served().is_from_local().took_less_than(AT_ONCE);
        }
    }
    let marked =
        rig.local.requests().iter().filter(|seen| seen.target.contains("row=")).any(|seen| seen.peer_proxied);
    assert!(!marked, "a local request is marked as proxied");
}

pub async fn what_nobody_serves_is_answered_by_the_local_server(world: World) {
    let rig = Rig::start(&world, 2).await;
    for http in BOTH {
        let mut session = rig.session(http).await;
        for path in [NOBODY_SERVES, "/apis/apps/v9/deployments", "/api/v1/namespaces/default/nonsense"] {
            for method in READ_AND_WRITE {
                let row = rig.row_at(method, path);
                let straight = rig.straight(&row).await;
                assert_eq!(straight.status, 404, "nobody serves {path}");
                rig.send(&mut session, row).await.is_like(&straight).took_less_than(AT_ONCE);
            }
        }
    }
}

pub async fn what_only_peers_serve_goes_to_one_of_them(world: World) {
    let rig = Rig::start(&world, 2).await;
    let mut seen = [0, 0];
    for http in BOTH {
        let mut session = rig.session(http).await;
        for _ in 0..5 {
            for method in READ_AND_WRITE {
                let outcome = rig.ask(&mut session, method, &only_new_serves()).await;
                outcome.is_served().is_from_a_peer().took_less_than(AT_ONCE);
                seen.iter_mut().zip(&outcome.seen.peers).for_each(|(sum, times)| *sum += times);
            }
        }
    }
    assert!(seen.iter().all(|times| *times > 0), "one of them has all the work: {seen:?}");
    let requests = rig.peers.iter().flat_map(Server::requests);
    let all_marked = requests.filter(|seen| seen.target.contains("row=")).all(|seen| seen.peer_proxied);
    assert!(all_marked, "a rerouted request is not marked, so it could be sent on");
}

pub async fn what_only_a_peer_serves_that_cannot_be_reached_is_503(world: World) {
    let rig = Rig::start(&world, 1).await;
    rig.peers[0].kill().await;
    for http in BOTH {
        let mut session = rig.session(http).await;
        for method in ["GET", "POST", "DELETE"] {
            let outcome = rig.ask(&mut session, method, &only_new_serves()).await;
            outcome.is_unavailable().took_less_than(AT_ONCE);
            let local = rig.ask(&mut session, "GET", &both_serve()).await;
            local.is_served().is_from_local().took_less_than(AT_ONCE);
        }
    }
    rig.peers[0].start_again().await;
    rig.knows_all().await;
}

pub async fn what_a_peer_that_never_answered_might_serve_is_503_until_it_has_answered_once(world: World) {
    let rig = Rig::prepared(&world, 1, &[], async |_, peers| peers[0].place.cut_off().await).await;
    rig.proxy.ready().await;
    for http in BOTH {
        let mut session = rig.session(http).await;
        for path in [NOBODY_SERVES, &only_new_serves().path()] {
            for method in READ_AND_WRITE {
                let outcome = rig.send(&mut session, rig.row_at(method, path)).await;
                outcome.is_unavailable().took_less_than(AT_ONCE);
            }
        }
        let local = rig.ask(&mut session, "GET", &both_serve()).await;
        local.is_served().is_from_local().took_less_than(AT_ONCE);
    }
    rig.peers[0].place.reconnect();
    rig.knows_all().await;
    for http in BOTH {
        let answer = rig.session(http).await.get(NOBODY_SERVES).await;
        assert_eq!(answer.status, 404, "everybody is accounted for: {}", answer.text());
    }
}
