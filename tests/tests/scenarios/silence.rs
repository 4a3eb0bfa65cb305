//! Peers that nothing is heard of any more: they are noticed soon, and delay nothing that others can do.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::failure_support::{AT_ONCE, Rig, SOON, World};
use crate::support::{BOTH, Http, both_serve, ensure, eventually, only_new_serves};

pub async fn a_peer_that_is_cut_off_is_noticed_soon_and_what_waits_for_it_goes_elsewhere(world: World) {
    let rig = Rig::start(&world, 2).await;
    let api = only_new_serves();
    rig.peers[0].place.cut_off().await;
    let begun = Instant::now();
    let reads = (0..10).map(async |number| {
        let mut session = rig.session(BOTH[number % 2]).await;
        let outcome = rig.ask(&mut session, "GET", &api).await;
        outcome.is_served().took_less_than(SOON);
        assert_eq!(outcome.seen.peers, [0, 1], "{outcome}");
    });
    let writes = (0..10).map(async |number| {
        let mut session = rig.session(BOTH[number % 2]).await;
        let outcome = rig.ask(&mut session, "POST", &api).await;
        outcome.took_less_than(SOON);
        if outcome.answer.status == 201 {
            outcome.is_served();
            assert_eq!(outcome.seen.peers, [0, 1], "{outcome}");
            return false;
        }
        outcome.is_in_doubt();
        assert_eq!((outcome.seen.total(), outcome.seen.stored), (0, 0), "{outcome}");
        true
    });
    let (_, in_doubt) = tokio::join!(join_all(reads), join_all(writes));
    assert!(in_doubt.contains(&true), "no write was on its way to the peer that was cut off");
    println!("what waited for a peer that was cut off was answered after {:?}", begun.elapsed());
    for number in 0..20 {
        let mut session = rig.session(BOTH[number % 2]).await;
        for method in ["POST", "GET"] {
            let outcome = rig.ask(&mut session, method, &api).await;
            outcome.is_served().is_from_a_peer().took_less_than(AT_ONCE);
        }
    }
}

pub async fn a_lone_peer_that_is_cut_off_is_503_soon_and_what_was_sent_to_it_is_not_sent_again(world: World) {
    let rig = Rig::start(&world, 1).await;
    let api = only_new_serves();
    rig.peers[0].place.cut_off().await;
    let mut sessions = Vec::new();
    for http in [Http::One, Http::Two, Http::One, Http::Two, Http::Two] {
        sessions.push(rig.session(http).await);
    }
    let [read, read2, write, write2, near] = &mut sessions[..] else { unreachable!("five sessions") };
    let local = async {
        for _ in 0..20 {
            let outcome = rig.ask(near, "GET", &both_serve()).await;
            outcome.is_served().is_from_local().took_less_than(AT_ONCE);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let ask = |session, method| rig.ask(session, method, &api);
    let (one, two, three, four, ()) =
        tokio::join!(ask(read, "GET"), ask(read2, "GET"), ask(write, "POST"), ask(write2, "POST"), local);
    one.is_unavailable().took_less_than(SOON);
    two.is_unavailable().took_less_than(SOON);
    three.is_in_doubt().took_less_than(SOON);
    four.is_in_doubt().took_less_than(SOON);
    println!("a read and a write that waited were answered after {:?} and {:?}", one.took, three.took);
    // From here on nothing was sent, so the client may try again.
    let more = sessions.iter_mut().map(async |session| {
        for method in ["POST", "GET"] {
            rig.ask(session, method, &api).await.is_unavailable().took_less_than(SOON);
        }
    });
    join_all(more).await;
    rig.peers[0].place.reconnect();
    let begun = Instant::now();
    rig.knows_all().await;
    println!("the peer was used again after {:?}", begun.elapsed());
    for row in [three.row, four.row] {
        let seen = rig.seen(&row).await;
        assert!(seen.total() <= 1 && seen.stored <= 1, "{row:?}: {seen:?}");
    }
}

pub async fn a_peer_that_is_cut_off_does_not_delay_what_is_learnt_of_others(world: World) {
    let rig = Rig::prepared(&world, 2, &[], async |_, peers| peers[0].place.cut_off().await).await;
    let api = only_new_serves();
    let begun = Instant::now();
    eventually("the other peer is known", async || {
        let answer = rig.session(Http::Two).await.get(&api.path()).await;
        ensure(answer.status == 200, || answer.text())
    })
    .await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    rig.peers[1].set_documents("v1.34");
    let begun = Instant::now();
    eventually("the change is known", async || {
        let answer = rig.session(Http::Two).await.get(&api.path()).await;
        ensure(answer.status == 503, || format!("{} {}", answer.status, answer.text()))
    })
    .await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}
