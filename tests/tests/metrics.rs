//! What /metrics counts is what really reached the API servers.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::net::SocketAddr;

use support::{
    BOTH, Caller, Cluster, Metrics, both_serve, bounded, ensure, eventually, only_new_serves, request,
};

const REROUTED: &str = "apiserver_rerouted_request_total";

/// Requests that clients, not proxies' own discovery, sent to a server.
fn arrived(node: &support::Node) -> u64 {
    let own = |request: &&mvproxy_tests::standin::RecordedRequest| {
        request.user.as_ref().is_none_or(|user| user.name != "system:mixed-version-proxy")
    };
    node.standin.requests().iter().filter(own).map(|_| 1).sum()
}

fn requests_to(metrics: &Metrics, peer: SocketAddr) -> u64 {
    metrics.sum("mvproxy_peer_requests_total", &[("peer", &peer.to_string())])
}

#[test]
fn rerouted_requests_are_counted_by_code_and_resource() {
    bounded(async {
        let cluster = Cluster::start().await;
        let (admin, api) = (Caller::admin(&cluster.pki), only_new_serves());
        let before = cluster.old.proxy.metrics().await;
        let (path, missing) = (api.path(), format!("{}/missing", api.path()));
        for http in BOTH {
            let mut session = admin.connect(cluster.old.proxy.address, http).await;
            assert_eq!(session.get(&path).await.status, 200);
            assert_eq!(session.get(&path).await.status, 200);
            assert_eq!(session.get(&missing).await.status, 404);
            let name = format!("counted-{http:?}").to_lowercase();
            assert_eq!(session.json("POST", &path, &api.object(&name)).await.status, 201);
            assert_eq!(session.get(&both_serve().path()).await.status, 200);
            assert_eq!(session.get("/api/v1/nonsense").await.status, 404);
        }
        let after = cluster.old.proxy.metrics().await;
        let labels = [("group", api.group.as_str()), ("version", &api.version), ("resource", &api.resource)];
        for (code, counted) in [("200", 4), ("404", 2), ("201", 2)] {
            let labels = [&labels[..], &[("code", code)]].concat();
            assert_eq!(after.sum(REROUTED, &labels) - before.sum(REROUTED, &labels), counted, "{code}");
        }
        let total = after.sum(REROUTED, &[]) - before.sum(REROUTED, &[]);
        assert_eq!(total, 8, "nothing else was rerouted");
        assert_eq!(cluster.new.proxy.metrics().await.sum(REROUTED, &[]), before.sum(REROUTED, &[]));
    });
}

#[test]
fn requests_per_api_server_match_what_arrived_there() {
    bounded(async {
        let cluster = Cluster::start().await;
        let admin = Caller::admin(&cluster.pki);
        let (old, new) = (cluster.old.standin.addr, cluster.new.standin.addr);
        cluster.old.standin.clear_requests();
        cluster.new.standin.clear_requests();
        let before = cluster.old.proxy.metrics().await;
        for address in &cluster.old.proxy.addresses {
            for http in BOTH {
                let mut session = admin.connect(*address, http).await;
                for target in [&only_new_serves().path(), &both_serve().path(), "/version", "/apis"] {
                    assert_eq!(session.fetch(request("GET", target)).await.status, 200, "{target}");
                }
            }
        }
        let (at_old, at_new) = (arrived(&cluster.old), arrived(&cluster.new));
        assert_eq!((at_old, at_new), (12, 4));
        eventually("counters and servers agree", async || {
            let after = cluster.old.proxy.metrics().await;
            let counted = |peer| requests_to(&after, peer) - requests_to(&before, peer);
            let wanted = (at_old, at_new);
            ensure((counted(old), counted(new)) == wanted, || {
                format!("counted {} and {}, arrived {wanted:?}", counted(old), counted(new))
            })
        })
        .await;
    });
}

#[test]
fn metrics_carry_no_labels_that_clients_choose() {
    bounded(async {
        let cluster = Cluster::start().await;
        let alice = Caller::alice(&cluster.pki);
        let before = cluster.old.proxy.metrics().await;
        let mut session = alice.connect(cluster.old.proxy.address, BOTH[1]).await;
        for number in 0..50 {
            session.get(&format!("/apis/group-{number}.example.com/v1/things-{number}")).await;
            session.get(&format!("{}/name-{number}", only_new_serves().path())).await;
        }
        let after = cluster.old.proxy.metrics().await;
        let grown = after.series(REROUTED) - before.series(REROUTED);
        assert!(grown <= 1, "{grown} new series");
    });
}
