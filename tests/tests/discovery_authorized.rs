//! Merged discovery is shown to those, and only those, whom the API server lets read the very document they ask for.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use bytes::Bytes;
use http::{HeaderValue, Request};
use mvproxy_tests::pki::{Pki, Subject};
use support::{BOTH, Caller, Cluster, Http, aggregated, bounded, only_new_serves, request};

/// Every document that is merged, in the forms there are: of the old server's, of the new one's, of neither alone.
fn merged_documents() -> Vec<Request<Bytes>> {
    let api = only_new_serves();
    let mut all = vec![aggregated("/apis"), request("GET", "/apis"), request("GET", "/apis/")];
    for path in [format!("/apis/{}", api.group), format!("/apis/{}/{}", api.group, api.version)] {
        all.push(request("GET", &path));
    }
    for accept in ["application/vnd.kubernetes.protobuf", "application/yaml"] {
        let of_all = all.iter().take(1).map(|one| {
            let aggregated = one.headers()["accept"].to_str().unwrap().replace("application/json", accept);
            (one.uri().clone(), aggregated)
        });
        let plain = all[1].uri().clone();
        let requests: Vec<_> = of_all.chain([(plain, accept.to_owned())]).collect();
        all.extend(
            requests
                .into_iter()
                .map(|(uri, accept)| Request::get(uri).header("accept", accept).body(Bytes::new()).unwrap()),
        );
    }
    all
}

fn member(pki: &Pki, group: &str) -> Caller {
    let subject = Subject { common_name: "carol", organizations: &[group], uid: None };
    Caller::nobody(pki).labelled(group).certificate(pki.client(&subject))
}

#[test]
fn who_may_not_read_discovery_gets_the_api_servers_refusal() {
    bounded(async {
        let cluster = Cluster::start().await;
        let pki = &cluster.pki;
        let subject = Subject { common_name: "stranger", ..Subject::default() };
        let stranger = Caller::nobody(pki).labelled("a stranger").certificate(pki.stranger(&subject));
        let tag = Caller::alice(pki).ask(cluster.old.proxy.address, Http::Two, aggregated("/apis")).await;
        let tag = tag.headers["etag"].clone();
        for (caller, status) in [
            (Caller::nobody(pki), 403),
            (member(pki, "no-discovery"), 403),
            (Caller::nobody(pki).token("wrong"), 401),
            (stranger, 401),
            (Caller::front_proxy(pki), 401),
        ] {
            for http in BOTH {
                for asked in merged_documents() {
                    let mut knowing = asked.clone();
                    knowing.headers_mut().insert("if-none-match", tag.clone());
                    for asked in [asked, knowing] {
                        let what = format!("{} {:?} over {http:?}", caller.label, asked);
                        let straight = caller.ask(cluster.old.standin.addr, http, asked.clone()).await;
                        let through = caller.ask(cluster.old.proxy.address, http, asked).await;
                        assert_eq!(
                            (straight.status, through.status.as_u16()),
                            (through.status, status),
                            "{what}"
                        );
                        // In protobuf where that is asked for, which stand-ins do not speak.
                        if !what.contains("protobuf") {
                            assert_eq!(straight.text(), through.text(), "{what}");
                        }
                        assert!(!through.headers.contains_key("etag"), "{what}");
                    }
                }
            }
        }
    });
}

/// The grant counts for the path that is asked for: who may read the roots may not read what is below.
#[test]
fn leave_is_asked_for_the_very_path() {
    bounded(async {
        let cluster = Cluster::start().await;
        let caller = member(&cluster.pki, "only-discovery-roots");
        let mut session = caller.connect(cluster.old.proxy.address, Http::Two).await;
        for asked in merged_documents() {
            let is_root = asked.uri().path() == "/apis";
            let what = format!("{asked:?}");
            let answer = session.fetch(asked).await;
            assert_eq!(answer.status, if is_root { 200 } else { 403 }, "{what}: {}", answer.text());
        }
    });
}

#[test]
fn every_kind_of_identity_reads_every_merged_document() {
    bounded(async {
        let cluster = Cluster::start().await;
        let pki = &cluster.pki;
        let asserted = Caller::front_proxy(pki).header("x-remote-user", "dave");
        for caller in [Caller::alice(pki), Caller::bob(pki), Caller::admin(pki), asserted] {
            for http in BOTH {
                for asked in merged_documents() {
                    let what = format!("{} {asked:?} over {http:?}", caller.label);
                    let answer = caller.ask(cluster.old.proxy.address, http, asked).await;
                    assert_eq!(answer.status, 200, "{what}: {}", answer.text());
                    assert!(!answer.body.is_empty(), "{what}");
                }
            }
        }
    });
}

/// The request that asks for leave is the client's own, as far as audit and authorisation see it.
#[test]
fn the_api_server_sees_who_asks_for_what() {
    bounded(async {
        let cluster = Cluster::start().await;
        let alice = Caller::alice(&cluster.pki).header("user-agent", "kubectl/v1.25.0");
        for asked in merged_documents() {
            let target = asked.uri().to_string();
            let before = cluster.old.requests_for(&target).len();
            let answer = alice.ask(cluster.old.proxy.address, Http::Two, asked).await;
            assert_eq!(answer.status, 200);
            let seen = cluster.old.requests_for(&target);
            let own: Vec<_> = seen[before..]
                .iter()
                .filter(|request| request.user.as_ref().is_some_and(|user| user.name == "alice"))
                .collect();
            assert_eq!(own.len(), 1, "{target}: {seen:?}");
            assert_eq!(own[0].headers["user-agent"], HeaderValue::from_static("kubectl/v1.25.0"));
            assert_eq!(own[0].method, "GET");
        }
    });
}

/// While the local server is away its stand-ins say who may read what, and nobody gets more than from them.
#[test]
fn a_stand_in_authorises_in_the_local_servers_place() {
    bounded(async {
        let cluster = Cluster::start().await;
        let mut before = Vec::new();
        let alice = Caller::alice(&cluster.pki);
        for asked in merged_documents() {
            before.push(alice.ask(cluster.old.proxy.address, Http::Two, asked).await.body);
        }
        drop(cluster.old.standin);
        let refused = [Caller::nobody(&cluster.pki), member(&cluster.pki, "no-discovery")];
        for (asked, before) in merged_documents().into_iter().zip(before) {
            let answer = alice.ask(cluster.old.proxy.address, Http::Two, asked.clone()).await;
            assert_eq!((answer.status.as_u16(), answer.body), (200, before), "{asked:?}");
            for caller in &refused {
                let answer = caller.ask(cluster.old.proxy.address, Http::Two, asked.clone()).await;
                assert_eq!(answer.status, 403, "{} {asked:?}: {}", caller.label, answer.text());
            }
        }
    });
}
