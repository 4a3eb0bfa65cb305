//! Peers that say no, or say it late: at once, or as they said it, and each write once.

use std::time::Duration;

use futures_util::future::join_all;
use mvproxy_tests::standin::Fault;

use crate::failure_support::{AT_ONCE, BadCertificates, Rig, Row, World};
use crate::support::{BOTH, Caller, both_serve, only_new_serves};

pub async fn a_peer_that_refuses_is_passed_over_at_once_and_every_write_takes_place_once(world: World) {
    let rig = Rig::start(&world, 2).await;
    rig.peers[0].kill().await;
    for http in BOTH {
        let mut session = rig.session(http).await;
        for _ in 0..20 {
            for method in ["POST", "GET"] {
                let outcome = rig.ask(&mut session, method, &only_new_serves()).await;
                outcome.is_served().is_from_a_peer().took_less_than(AT_ONCE);
                assert_eq!(outcome.seen.peers, [0, 1]);
            }
        }
    }
}

pub async fn a_peer_with_a_bad_certificate_gets_no_request_and_the_client_a_503_at_once(world: World) {
    let rig = Rig::start(&world, 1).await;
    let peer = &rig.peers[0];
    let BadCertificates { wrong_name, expired, wrong_ca } = BadCertificates::of(&rig.pki);
    for (label, bad) in [("wrong name", wrong_name), ("expired", expired), ("wrong CA", wrong_ca)] {
        peer.kill().await;
        let before = peer.requests().len();
        peer.start_as(bad).await;
        for http in BOTH {
            let mut session = rig.session(http).await;
            for method in ["GET", "POST"] {
                let outcome = rig.ask(&mut session, method, &only_new_serves()).await;
                outcome.is_unavailable().took_less_than(AT_ONCE);
            }
        }
        assert_eq!(peer.requests().len(), before, "{label}: a request reached the server");
    }
    peer.kill().await;
    peer.start_again().await;
    rig.knows_all().await;
}

pub async fn a_peers_429_and_500_are_relayed_as_they_are_and_not_tried_elsewhere(world: World) {
    let rig = Rig::start(&world, 2).await;
    let api = only_new_serves();
    for (fault, code, reason, retry_after) in [
        (Fault::TooManyRequests { retry_after: 7 }, 429, "TooManyRequests", "7"),
        (Fault::InternalError, 500, "InternalError", ""),
    ] {
        for http in BOTH {
            for method in ["GET", "POST", "DELETE"] {
                rig.each_peer_suffers(&fault);
                let outcome = rig.ask(&mut rig.session(http).await, method, &api).await;
                outcome.is_relayed(code, reason, retry_after).is_from_a_peer().took_less_than(AT_ONCE);
            }
        }
    }
}

/// kube-apiserver says so before it looks at a request, so that even a write may go on.
pub async fn what_a_server_that_is_shutting_down_turns_away_goes_to_another(world: World) {
    let rig = Rig::start(&world, 2).await;
    let api = only_new_serves();
    for http in BOTH {
        for method in ["GET", "POST", "DELETE"] {
            // Whichever is asked first.
            rig.peers[0].inject(Fault::ShuttingDown, &api.path(), 1);
            rig.peers[1].inject(Fault::ShuttingDown, &api.path(), 1);
            let both = rig.ask(&mut rig.session(http).await, method, &api).await;
            assert_eq!((both.answer.status.as_u16(), both.seen.total()), (503, 0), "{both}");
            assert!(both.answer.text().contains("apiserver is shutting down"), "{both}");
            assert_eq!(both.answer.header("retry-after"), "1", "{both}");
        }
        for method in ["GET", "POST"] {
            rig.peers[0].inject(Fault::ShuttingDown, &api.path(), usize::MAX);
            for _ in 0..8 {
                let outcome = rig.ask(&mut rig.session(http).await, method, &api).await;
                outcome.is_served().is_from_a_peer().took_less_than(AT_ONCE);
                assert_eq!(outcome.seen.peers, [0, 1]);
            }
            rig.peers[0].clear_faults();
        }
    }
}

/// Whatever answers through an API server's proxy subresources can claim what it likes.
pub async fn what_a_pod_claims_says_nothing_of_the_server_before_it(world: World) {
    let rig = Rig::start(&world, 2).await;
    let pod = "/api/v1/namespaces/default/pods/hostile/proxy/";
    rig.local.inject(Fault::ShuttingDown, pod, usize::MAX);
    for http in BOTH {
        let mut session = rig.session(http).await;
        for _ in 0..20 {
            let claim = rig.row_at("GET", pod);
            session.get(&claim.target).await;
            assert_eq!(rig.local.saw("GET", &claim.target), 0, "the stand-in turned it away");
            rig.ask(&mut session, "GET", &both_serve()).await.is_served().is_from_local();
        }
    }
}

pub async fn an_answer_that_takes_its_time_is_waited_for_and_delays_no_other(world: World) {
    let rig = Rig::start(&world, 1).await;
    let (api, delay) = (only_new_serves(), Duration::from_secs(3));
    let mut rows = Vec::new();
    for http in BOTH {
        for method in ["GET", "POST"] {
            rows.push((rig.session(http).await, rig.session(http).await, rig.row(method, &api)));
        }
    }
    rig.peers[0].inject(Fault::Delay(delay), &api.path(), rows.len());
    let slow_ones: Vec<Row> = rows.iter().map(|(_, _, row)| row.clone()).collect();
    let waits = rows.iter_mut().map(async |(one, other, row)| {
        let (waited, quick) = tokio::join!(rig.send(one, row.clone()), async {
            for slow in &slow_ones {
                rig.has_seen(slow).await;
            }
            rig.ask(other, &row.method, &api).await
        });
        waited.is_served().is_from_a_peer().took_less_than(delay + AT_ONCE);
        assert!(waited.took >= delay, "{waited}");
        quick.is_served().is_from_a_peer().took_less_than(AT_ONCE);
    });
    join_all(waits).await;
}

pub async fn strangers_are_told_no_more_than_others(world: World) {
    let rig = Rig::start(&world, 1).await;
    rig.peers[0].kill().await;
    for caller in [Caller::nobody(&rig.pki), Caller::bob(&rig.pki), Caller::alice(&rig.pki)] {
        for http in BOTH {
            let mut session = caller.connect(rig.proxy.address, http).await;
            for method in ["GET", "POST"] {
                let outcome = rig.ask(&mut session, method, &only_new_serves()).await;
                outcome.is_unavailable().took_less_than(AT_ONCE);
            }
        }
    }
}
