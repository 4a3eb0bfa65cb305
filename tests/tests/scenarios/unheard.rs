//! Peers that restart while nobody can hear them, so that connections to their former life seem to be open.

use std::time::Duration;

use futures_util::future::join_all;
use mvproxy_tests::standin::Fault;

use crate::failure_support::{AT_ONCE, Rig, SOON, World};
use crate::support::{BOTH, Caller, Http, only_new_serves};

/// HTTP/1.1 connections that the proxy keeps.
const IDLE_CONNECTIONS: usize = 8;
/// By now the proxy has asked in vain how a server does, but has not given up its connections to it.
const KNOWN_TO_FAIL: Duration = Duration::from_millis(2_600);

pub async fn a_lone_peer_is_dialled_afresh_however_many_old_connections_there_are(world: World) {
    let rig = Rig::start(&world, 1).await;
    let (peer, api) = (&rig.peers[0], only_new_serves());
    // Strangers' requests go over HTTP/1.1, where no PING finds dead connections.
    let nobody = Caller::nobody(&rig.pki);
    peer.inject(Fault::Delay(Duration::from_millis(500)), &api.path(), IDLE_CONNECTIONS);
    let at_once = (0..IDLE_CONNECTIONS).map(async |_| {
        let mut session = nobody.connect(rig.proxy.address, Http::Two).await;
        rig.ask(&mut session, "GET", &api).await.is_relayed(403, "Forbidden", "");
    });
    join_all(at_once).await;
    let mut session = nobody.connect(rig.proxy.address, Http::Two).await;
    peer.restart_unheard().await;
    let outcome = rig.ask(&mut session, "GET", &api).await;
    // Its first life saw nothing of this, only the second.
    outcome.is_relayed(403, "Forbidden", "").took_less_than(AT_ONCE);
}

pub async fn a_peer_that_seemed_dead_is_dialled_afresh_when_no_other_is_left(world: World) {
    for http in BOTH {
        let rig = Rig::start(&world, 2).await;
        let mut sessions = [rig.session(http).await, rig.session(http).await];
        rig.peers[0].place.isolate();
        rig.peers[1].kill().await;
        tokio::time::sleep(KNOWN_TO_FAIL).await;
        rig.peers[0].restart_unheard().await;
        // Of two requests in a row each begins with another peer.
        let reads = sessions.iter_mut().map(async |session| {
            let outcome = rig.ask(session, "GET", &only_new_serves()).await;
            outcome.is_served().is_from_a_peer().took_less_than(SOON);
        });
        join_all(reads).await;
    }
}
