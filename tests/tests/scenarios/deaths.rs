//! Peers that break off in the middle: nothing is taken for whole that is not, and nothing is done twice.

use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use mvproxy_tests::standin::Fault;

use crate::failure_support::{AT_ONCE, Rig, SOON, Server, World, assert_unavailable};
use crate::support::{BOTH, Caller, Http, ensure, eventually, only_new_serves, promptly};

/// Nothing of it has reached the client, so it is no answer.
pub async fn a_small_answer_that_breaks_off_is_none(world: World) {
    let rig = Rig::start(&world, 2).await;
    let api = only_new_serves();
    for (fault, dies) in [(Fault::CutBody { after: 20 }, false), (Fault::StallBody { after: 20 }, true)] {
        for http in BOTH {
            for method in ["GET", "POST"] {
                rig.knows_all().await;
                rig.each_peer_suffers(&fault);
                let row = rig.row(method, &api);
                let mut session = rig.session(http).await;
                let (outcome, seen_by) = tokio::join!(rig.send(&mut session, row.clone()), async {
                    rig.has_seen(&row).await;
                    let seen_by = rig.only_peer_that_saw(&row);
                    rig.peers[1 - seen_by].clear_faults();
                    if dies {
                        rig.has_stored(&row).await;
                        rig.peers[seen_by].kill().await;
                    }
                    seen_by
                });
                outcome.took_less_than(AT_ONCE);
                match (method, dies) {
                    ("GET", true) => {
                        assert_eq!(outcome.answer.status, 200, "{outcome}");
                        assert_eq!(outcome.seen.peers, [1, 1], "{outcome}");
                    }
                    // Only this one stream was reset: the answer itself may be what is wrong, and would be again.
                    ("GET", false) => {
                        assert_unavailable(&outcome.answer, &outcome.to_string());
                        assert_eq!(outcome.seen.total(), 1, "{outcome}");
                    }
                    _ => {
                        outcome.is_in_doubt();
                        assert_eq!((outcome.seen.total(), outcome.seen.stored), (1, 1), "{outcome}");
                    }
                }
                if dies {
                    rig.peers[seen_by].start_again().await;
                }
            }
        }
    }
}

pub async fn a_large_answer_that_breaks_off_is_cut_for_the_client_as_well_and_not_asked_for_again(
    world: World,
) {
    let rig = Rig::start(&world, 2).await;
    let (api, after) = (only_new_serves(), 300 * 1024);
    // The first makes lists large.
    let first = rig.send(&mut rig.session(Http::Two).await, rig.large_row(&api, 2 * after)).await;
    first.is_served().is_from_a_peer();
    for (fault, dies) in [(Fault::CutBody { after }, false), (Fault::StallBody { after }, true)] {
        for http in BOTH {
            for row in [rig.row("GET", &api), rig.large_row(&api, 2 * after)] {
                rig.each_peer_suffers(&fault);
                let mut session = rig.session(http).await;
                let begun = Instant::now();
                let head = session.open(row.request()).await.unwrap();
                assert!(head.status().is_success(), "{}", head.status());
                let serves = &rig.peers[rig.only_peer_that_saw(&row)];
                if dies {
                    serves.kill().await;
                }
                let body = promptly("the body ends", head.into_body().collect()).await;
                assert!(body.is_err(), "{} over {http:?}, {fault:?}: the body seems whole", row.method);
                assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
                let seen = rig.seen(&row).await;
                assert_eq!((seen.total(), seen.stored), (1, usize::from(row.method == "POST")), "{seen:?}");
                if dies {
                    serves.start_again().await;
                }
            }
        }
    }
}

/// What breaks off before a response header came is sent again only where that cannot have an effect twice.
pub async fn a_read_without_an_answer_is_sent_again_and_a_write_is_not(world: World) {
    let rig = Rig::start(&world, 1).await;
    let (api, delay) = (only_new_serves(), Duration::from_millis(500));
    for http in BOTH {
        for method in ["GET", "POST"] {
            // What has never worked on a connection is taken for the server's fault, not for the connection's.
            rig.knows_all().await;
            rig.peers[0].inject(Fault::Delay(delay), &api.path(), 1);
            let row = rig.row(method, &api);
            let mut session = rig.session(http).await;
            let (outcome, ()) = tokio::join!(rig.send(&mut session, row.clone()), async {
                rig.has_seen(&row).await;
                rig.peers[0].reset_connections().await;
            });
            outcome.took_less_than(AT_ONCE);
            if method == "GET" {
                assert_eq!(outcome.answer.status, 200, "{outcome}");
                assert_eq!(outcome.seen.peers, [2], "{outcome}");
            } else {
                outcome.is_in_doubt();
                assert_eq!(outcome.seen.peers, [1], "{outcome}");
                // The peer may go on with what it had begun.
                tokio::time::sleep(delay).await;
                assert!(rig.created(&row.name).await <= 1, "{outcome}");
            }
        }
    }
}

pub async fn a_read_whose_peer_dies_goes_to_another_and_a_write_does_not(world: World) {
    let rig = Rig::start(&world, 2).await;
    let api = only_new_serves();
    for http in BOTH {
        for method in ["GET", "POST"] {
            rig.knows_all().await;
            let row = rig.row(method, &api);
            rig.each_peer_suffers(&Fault::Delay(SOON));
            let mut session = rig.session(http).await;
            let (outcome, dead) = tokio::join!(rig.send(&mut session, row.clone()), async {
                rig.has_seen(&row).await;
                let dead = rig.only_peer_that_saw(&row);
                rig.peers[1 - dead].clear_faults();
                rig.peers[dead].kill().await;
                dead
            });
            outcome.took_less_than(AT_ONCE);
            if method == "GET" {
                assert_eq!(outcome.answer.status, 200, "{outcome}");
                assert_eq!(outcome.seen.peers, [1, 1], "{outcome}");
            } else {
                outcome.is_in_doubt();
                assert_eq!((outcome.seen.total(), outcome.seen.stored), (1, 0), "{outcome}");
            }
            rig.peers[dead].start_again().await;
        }
    }
}

/// A connection that has worked may have broken for any reason. One that was made for the request broke because of the
/// server, which is then left alone for the second after which the client may try again.
pub async fn a_read_that_breaks_off_on_a_new_connection_is_not_sent_there_again(world: World) {
    let api = only_new_serves();
    for peers in [1, 2] {
        let rig = Rig::start(&world, peers).await;
        // Nobody has used a token yet, and connections are kept apart by that.
        let bob = Caller::bob(&rig.pki);
        for http in BOTH {
            for method in ["GET", "POST"] {
                rig.each_peer_suffers(&Fault::Delay(SOON));
                let row = rig.row(method, &api);
                let mut session = bob.connect(rig.proxy.address, http).await;
                let (outcome, ()) = tokio::join!(rig.send(&mut session, row.clone()), async {
                    rig.has_seen(&row).await;
                    let seen_by = rig.only_peer_that_saw(&row);
                    rig.peers.iter().for_each(Server::clear_faults);
                    rig.peers[seen_by].reset_connections().await;
                });
                outcome.took_less_than(AT_ONCE);
                match (method, peers) {
                    ("GET", 1) => {
                        assert_unavailable(&outcome.answer, &outcome.to_string());
                        assert_eq!(outcome.seen.peers, [1], "{outcome}");
                    }
                    ("GET", _) => {
                        assert_eq!(outcome.answer.status, 200, "{outcome}");
                        assert_eq!(outcome.seen.peers, [1, 1], "{outcome}");
                    }
                    _ => {
                        outcome.is_in_doubt();
                        assert_eq!(outcome.seen.total(), 1, "{outcome}");
                    }
                }
                for peer in &rig.peers {
                    peer.reset_connections().await;
                }
            }
        }
    }
}

pub async fn a_read_that_nobody_answers_is_a_503_and_a_write_a_502(world: World) {
    let rig = Rig::start(&world, 1).await;
    let api = only_new_serves();
    for http in BOTH {
        for method in ["GET", "POST"] {
            rig.knows_all().await;
            rig.peers[0].inject(Fault::Delay(SOON), &api.path(), 1);
            let row = rig.row(method, &api);
            let mut session = rig.session(http).await;
            let (outcome, ()) = tokio::join!(rig.send(&mut session, row.clone()), async {
                rig.has_seen(&row).await;
                rig.peers[0].kill().await;
            });
            outcome.took_less_than(AT_ONCE);
            if method == "GET" {
                // It may be sent again, and the client is told so.
                assert_unavailable(&outcome.answer, "a read on its way");
            } else {
                outcome.is_in_doubt();
            }
            assert_eq!((outcome.seen.total(), outcome.seen.stored), (1, 0), "{outcome}");
            rig.peers[0].start_again().await;
        }
    }
}

pub async fn a_write_that_a_goaway_says_was_not_processed_is_sent_again_with_its_body(world: World) {
    let rig = Rig::start(&world, 1).await;
    let (peer, api) = (&rig.peers[0], only_new_serves());
    for (round, http) in BOTH.into_iter().enumerate() {
        let mut session = rig.session(http).await;
        // Open connections go after their next request, so that a write needs a new one.
        peer.inject(Fault::GoAway, &api.path(), usize::MAX);
        peer.turn_away_write();
        eventually("a write meets it", async || {
            let outcome = rig.ask(&mut session, "POST", &api).await;
            outcome.is_served().is_from_a_peer().took_less_than(AT_ONCE);
            ensure(peer.turned_away().with_body == round + 1, || format!("{:?}", peer.turned_away()))
        })
        .await;
        peer.clear_faults();
    }
}
