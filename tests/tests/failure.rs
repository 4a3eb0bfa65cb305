//! Every way in which a peer can fail: what the client gets, how soon, and how often a write took place.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod failure_support;
mod support;

use std::time::{Duration, Instant};

use failure_support::{BadCertificates, NEW, Rig, assert_own_failure, assert_unavailable, start_at};
use http_body_util::BodyExt as _;
use mvproxy_tests::standin::{Documents, Fault};
use support::{BOTH, Caller, Http, bounded, ensure, eventually, only_new_serves, promptly, request};

/// Failover when the peer says no.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Failover when the peer says nothing.
const SOON: Duration = Duration::from_secs(5);

#[test]
fn a_peer_that_refuses_is_passed_over_at_once_and_every_write_takes_place_once() {
    bounded(async {
        let rig = Rig::start(2).await;
        rig.peers[0].trap.vanish();
        let api = only_new_serves();
        for http in BOTH {
            let mut session = rig.session(http).await;
            for number in 0..20 {
                let name = format!("refused-{number}-{http:?}").to_lowercase();
                let begun = Instant::now();
                let written = session.json("POST", &api.path(), &api.object(&name)).await;
                assert_eq!(written.status, 201, "{}", written.text());
                let read = session.get(&format!("{}/{name}", api.path())).await;
                assert_eq!(read.status, 200, "{}", read.text());
                assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
                assert_eq!(rig.created(&name).await, 1);
            }
        }
        assert_eq!(rig.seen("POST", &api.path()), [0, 40]);
    });
}

#[test]
fn a_peer_with_a_bad_certificate_gets_no_request_and_the_client_a_503_at_once() {
    bounded(async {
        let mut rig = Rig::start(1).await;
        let BadCertificates { wrong_name, expired, wrong_ca } = BadCertificates::of(&rig.pki);
        let api = only_new_serves();
        for (label, bad) in [("wrong name", wrong_name), ("expired", expired), ("wrong CA", wrong_ca)] {
            let peer = rig.peers.remove(0);
            let address = peer.standin.addr;
            drop(peer.standin);
            let standin = start_at(&rig.pki, &rig.store, "peer0", NEW, address, bad).await;
            peer.trap.cut();
            rig.peers.push(failure_support::Peer { standin, ..peer });
            for http in BOTH {
                let mut session = rig.session(http).await;
                for method in ["GET", "POST"] {
                    let begun = Instant::now();
                    let answer = session.fetch(request(method, &api.path())).await;
                    assert_unavailable(&answer, &format!("{method} with {label}"));
                    assert!(begun.elapsed() < AT_ONCE, "{label}: {:?}", begun.elapsed());
                }
            }
            assert!(rig.peers[0].standin.requests().is_empty(), "{label}: a request reached the server");
        }
    });
}

#[test]
fn a_peers_429_and_500_are_relayed_as_they_are_and_not_tried_elsewhere() {
    bounded(async {
        let rig = Rig::start(2).await;
        let api = only_new_serves();
        let mut row = 0;
        for (fault, code, reason, retry_after) in [
            (Fault::TooManyRequests { retry_after: 7 }, 429, "TooManyRequests", "7"),
            (Fault::InternalError, 500, "InternalError", ""),
        ] {
            for http in BOTH {
                for method in ["GET", "POST", "DELETE"] {
                    row += 1;
                    let target = format!("{}?row={row}", api.path());
                    for peer in &rig.peers {
                        peer.standin.faults().clear();
                        peer.standin.faults().inject(fault.clone(), &api.path(), 1);
                    }
                    let answer = rig.session(http).await.fetch(request(method, &target)).await;
                    let what = format!("{method} over {http:?}: {}", answer.text());
                    assert_eq!(answer.status, code, "{what}");
                    assert_eq!(answer.header("retry-after"), retry_after, "{what}");
                    let status = answer.json().unwrap();
                    assert_eq!(
                        (&status["kind"], &status["reason"]),
                        (&"Status".into(), &reason.into()),
                        "{what}"
                    );
                    assert_eq!(rig.seen(method, &target).iter().sum::<usize>(), 1, "{what}");
                }
            }
        }
    });
}

#[test]
fn an_answer_that_takes_its_time_is_waited_for_and_delays_no_other() {
    bounded(async {
        let rig = Rig::start(1).await;
        let api = only_new_serves();
        let slow = format!("{}/slow", api.path());
        let delay = Duration::from_secs(3);
        for http in BOTH {
            rig.peers[0].standin.faults().inject(Fault::Delay(delay), &slow, 1);
            let (mut one, mut other) = (rig.session(http).await, rig.session(http).await);
            let begun = Instant::now();
            let (waited, others) = tokio::join!(one.get(&slow), async {
                tokio::time::sleep(Duration::from_millis(200)).await;
                let begun = Instant::now();
                assert_eq!(other.get(&api.path()).await.status, 200);
                begun.elapsed()
            });
            assert_eq!(waited.status, 404, "the peer's own answer: {}", waited.text());
            assert!(begun.elapsed() >= delay && begun.elapsed() < delay + AT_ONCE, "{:?}", begun.elapsed());
            assert!(others < AT_ONCE, "{others:?}");
        }
        assert_eq!(rig.seen("GET", &slow), [2], "sent once each");
    });
}

#[test]
fn an_answer_that_breaks_off_is_cut_for_the_client_as_well_and_not_asked_for_again() {
    bounded(async {
        let rig = Rig::start(2).await;
        for (row, http) in BOTH.into_iter().enumerate() {
            for peer in &rig.peers {
                peer.standin.faults().clear();
                // Of this path only: probes and discovery would use it up.
                peer.standin.faults().inject(Fault::CutBody { after: 20 }, &only_new_serves().path(), 1);
            }
            let target = format!("{}?row={row}", only_new_serves().path());
            let mut session = rig.session(http).await;
            let begun = Instant::now();
            let head = session.open(request("GET", &target)).await.unwrap();
            assert_eq!(head.status(), 200);
            let body = promptly("the body ends", head.into_body().collect()).await;
            assert!(body.is_err(), "{http:?}: the body seems whole");
            assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
            assert_eq!(rig.seen("GET", &target).iter().sum::<usize>(), 1, "{http:?}");
        }
    });
}

/// What breaks off before a response header came is sent again only where that cannot have an effect twice.
#[test]
fn a_read_without_an_answer_is_sent_again_and_a_write_is_not() {
    bounded(async {
        let rig = Rig::start(1).await;
        let api = only_new_serves();
        for http in BOTH {
            for method in ["GET", "POST"] {
                let name = format!("cut-{method}-{http:?}").to_lowercase();
                let target = format!("{}?name={name}", api.path());
                // What has never worked on a connection is taken for the server's fault, not for the connection's.
                rig.knows_all().await;
                let faults = rig.peers[0].standin.faults();
                faults.inject(Fault::Delay(Duration::from_millis(500)), &api.path(), 1);
                let mut session = rig.session(http).await;
                let begun = Instant::now();
                let asked = async {
                    match method {
                        "GET" => session.get(&target).await,
                        _ => session.json(method, &target, &api.object(&name)).await,
                    }
                };
                let (answer, ()) = tokio::join!(asked, async {
                    eventually("it has arrived", async || {
                        ensure(rig.seen(method, &target) == [1], || "not yet".to_owned())
                    })
                    .await;
                    rig.peers[0].trap.cut();
                });
                assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
                if method == "GET" {
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    assert_eq!(rig.seen(method, &target), [2]);
                } else {
                    assert_own_failure(&answer, 502, "InternalError", method);
                    assert_eq!(answer.header("retry-after"), "", "client-go would send it again");
                    assert_eq!(rig.seen(method, &target), [1]);
                    tokio::time::sleep(Duration::from_millis(600)).await;
                    assert!(rig.created(&name).await <= 1);
                }
            }
        }
    });
}

#[test]
fn a_read_that_nobody_answers_is_a_503_and_may_be_tried_again() {
    bounded(async {
        let rig = Rig::start(1).await;
        let target = format!("{}?gone", only_new_serves().path());
        rig.peers[0].standin.faults().inject(Fault::Delay(SOON), &only_new_serves().path(), 1);
        for http in BOTH {
            let mut session = rig.session(http).await;
            let (answer, ()) = tokio::join!(session.get(&target), async {
                tokio::time::sleep(Duration::from_millis(300)).await;
                rig.peers[0].trap.vanish();
            });
            assert_unavailable(&answer, "a read on its way");
        }
    });
}

#[test]
fn a_write_that_a_goaway_says_was_not_processed_is_sent_again_with_its_body() {
    bounded(async {
        let rig = Rig::start(1).await;
        let api = only_new_serves();
        for (round, http) in BOTH.into_iter().enumerate() {
            let name = format!("away-{http:?}").to_lowercase();
            rig.peers[0].trap.go_away();
            let begun = Instant::now();
            let written = rig.session(http).await.json("POST", &api.path(), &api.object(&name)).await;
            assert_eq!(written.status, 201, "{}", written.text());
            assert_eq!(written.json().unwrap()["metadata"]["name"], name.as_str(), "the body came along");
            assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
            assert_eq!(rig.peers[0].trap.sent_away()[1], round + 1, "the trap never saw the request");
            assert_eq!(rig.created(&name).await, 1);
            assert_eq!(rig.seen("POST", &api.path()), [round + 1]);
        }
    });
}

#[test]
fn a_peer_that_hangs_is_noticed_soon_and_what_waits_for_it_goes_elsewhere() {
    bounded(async {
        let rig = Rig::start(2).await;
        let api = only_new_serves();
        rig.peers[0].trap.freeze();
        let begun = Instant::now();
        let reads = (0..10).map(|number| {
            let (rig, target) = (&rig, format!("{}?read={number}", api.path()));
            async move {
                let answer = rig.session(Http::Two).await.get(&target).await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                assert!(begun.elapsed() < SOON, "read {number} took {:?}", begun.elapsed());
            }
        });
        futures_util::future::join_all(reads).await;
        println!("reads that waited for a peer that hangs were answered after {:?}", begun.elapsed());
        for number in 0..20 {
            let begun = Instant::now();
            let name = format!("hung-{number}");
            let written = rig.session(Http::Two).await.json("POST", &api.path(), &api.object(&name)).await;
            assert_eq!(written.status, 201, "{}", written.text());
            assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
            assert_eq!(rig.created(&name).await, 1);
        }
    });
}

#[test]
fn a_write_that_waits_for_a_peer_that_hangs_fails_soon_and_is_not_sent_again() {
    bounded(async {
        let rig = Rig::start(1).await;
        let api = only_new_serves();
        rig.peers[0].trap.freeze();
        let begun = Instant::now();
        let mut session = rig.session(Http::Two).await;
        let answer = session.json("POST", &api.path(), &api.object("hung")).await;
        assert_own_failure(&answer, 502, "InternalError", "a write on its way");
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        // From here on nothing was sent, so the client may try again.
        let begun = Instant::now();
        let answer = session.json("POST", &api.path(), &api.object("hung")).await;
        assert_unavailable(&answer, "a write that was not sent");
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        rig.peers[0].trap.thaw();
        eventually("the peer is used again", async || {
            let answer = rig.session(Http::Two).await.get(&api.path()).await;
            ensure(answer.status == 200, || answer.text())
        })
        .await;
        assert!(rig.created("hung").await <= 1);
        assert!(rig.seen("POST", &api.path()) <= vec![1]);
    });
}

#[test]
fn a_peer_that_hangs_does_not_delay_what_is_learnt_of_others() {
    bounded(async {
        let rig = Rig::start_unsynced(2, &[0]).await;
        let api = only_new_serves();
        let begun = Instant::now();
        eventually("the other peer is known", async || {
            let answer = rig.session(Http::Two).await.get(&api.path()).await;
            ensure(answer.status == 200, || answer.text())
        })
        .await;
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        rig.peers[1].standin.set_documents(Documents::load("v1.34").unwrap());
        let begun = Instant::now();
        eventually("the change is known", async || {
            let answer = rig.session(Http::Two).await.get(&api.path()).await;
            ensure(answer.status == 503, || format!("{} {}", answer.status, answer.text()))
        })
        .await;
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    });
}

#[test]
fn what_a_peer_that_never_answered_might_serve_is_503_until_it_has_answered_once() {
    bounded(async {
        let rig = Rig::start_unsynced(1, &[0]).await;
        let nobody_serves = "/apis/nobody.example.com/v1/namespaces/default/things";
        for http in BOTH {
            let mut session = rig.session(http).await;
            for target in [nobody_serves, &only_new_serves().path()] {
                for method in ["GET", "POST"] {
                    let begun = Instant::now();
                    let answer = session.fetch(request(method, target)).await;
                    assert_unavailable(&answer, &format!("{method} {target} over {http:?}"));
                    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
                }
            }
            let local = session.get("/api/v1/namespaces/default/configmaps").await;
            assert_eq!(local.status, 200, "what is served here needs nobody else: {}", local.text());
        }
        rig.peers[0].trap.thaw();
        rig.knows_all().await;
        for http in BOTH {
            let answer = rig.session(http).await.get(nobody_serves).await;
            assert_eq!(answer.status, 404, "everybody is accounted for: {}", answer.text());
        }
    });
}

#[test]
fn strangers_are_told_no_more_than_others() {
    bounded(async {
        let rig = Rig::start(1).await;
        rig.peers[0].trap.vanish();
        for caller in [Caller::nobody(&rig.pki), Caller::bob(&rig.pki), Caller::alice(&rig.pki)] {
            for http in BOTH {
                let answer = caller.get(rig.proxy.address, http, &only_new_serves().path()).await;
                assert_unavailable(&answer, &caller.label);
            }
        }
    });
}
