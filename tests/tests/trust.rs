//! Clients of different standing never share what one of them could spoil for the others.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Response;
use mvproxy_tests::client::ClientOptions;
use mvproxy_tests::pki::forge::{Attribute, CN, Draft, Signer};
use mvproxy_tests::pki::{Identity, Pki};
use mvproxy_tests::standin::RecordedRequest;
use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};
use support::{
    BOTH, Caller, Cluster, Http, Proxy, ProxyOptions, Resuming, Session, Upstream, both_serve, bounded,
    only_new_serves, promptly, request, whole,
};

#[test]
fn trust_classes_never_share_an_upstream_connection() {
    bounded(async {
        let cluster = Cluster::start().await;
        let pki = &cluster.pki;
        cluster.old.standin.clear_requests();
        cluster.new.standin.clear_requests();
        let callers = [
            Caller::alice(pki),
            Caller::bob(pki),
            Caller::nobody(pki),
            Caller::nobody(pki).token("wrong"),
            Caller::front_proxy(pki).header("x-remote-user", "carol"),
            Caller::front_proxy(pki).token("bob-token"),
        ];
        for _ in 0..2 {
            for caller in &callers {
                for http in BOTH {
                    for target in [both_serve().path(), only_new_serves().path(), "/version".to_owned()] {
                        caller.get(cluster.old.proxy.address, http, &target).await;
                    }
                }
            }
        }
        for node in [&cluster.old, &cluster.new] {
            let mut classes: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
            for request in &node.standin.requests() {
                let class = class_of(request);
                assert_eq!(request.client_certificate, class == "asserted", "{request:?}");
                classes.entry(request.connection).or_default().insert(class);
            }
            let all: BTreeSet<&str> = classes.values().flatten().copied().collect();
            assert_eq!(all, BTreeSet::from(["anonymous", "asserted", "bearer"]));
            assert!(classes.values().all(|classes| classes.len() == 1), "{classes:?}");
        }
    });
}

/// A request carries an asserted user or a token, never both.
fn class_of(request: &RecordedRequest) -> &'static str {
    let asserted = request.headers.contains_key("x-remote-user");
    match (asserted, request.headers.contains_key("authorization")) {
        (true, false) => "asserted",
        (false, true) => "bearer",
        (false, false) => "anonymous",
        (true, true) => panic!("both: {request:?}"),
    }
}

/// API servers end an HTTP/2 connection on which somebody failed to authenticate, or was said to be nobody.
#[test]
fn who_fails_to_authenticate_breaks_nobody_elses_connection_request_or_watch() {
    bounded(async {
        let cluster = Cluster::start().await;
        let pki = &cluster.pki;
        let nobody = Caller::front_proxy(pki).header("x-remote-user", "system:anonymous");
        for (good, bad, refusal) in [
            (Caller::bob(pki), Caller::nobody(pki).token("wrong"), 401),
            (Caller::alice(pki), nobody.header("x-remote-group", "system:unauthenticated"), 403),
        ] {
            for api in [both_serve(), only_new_serves()] {
                let address = cluster.old.proxy.address;
                let mut session = good.connect(address, Http::Two).await;
                let watch = format!("{}?watch=true", api.path());
                let mut watch = session.open(request("GET", &watch)).await.unwrap();
                assert_eq!(watch.status(), 200);
                for round in 0..10 {
                    for http in BOTH {
                        assert_eq!(bad.get(address, http, &api.path()).await.status, refusal);
                        assert_eq!(session.get(&api.path()).await.status, 200, "round {round}");
                    }
                }
                assert!(!session.client.is_closed(), "the connection of {} lives on", good.label);
                assert_eq!(write(&mut session, &api, &format!("after-{refusal}")).await, 201);
                let event = promptly("an event", http_body_util::BodyExt::frame(&mut watch)).await;
                let event = event.expect("the watch goes on").unwrap().into_data().unwrap();
                assert!(String::from_utf8_lossy(&event).contains("after"));
            }
        }
    });
}

/// The bad client and the good one are at it at the same time.
#[test]
fn good_tokens_never_fail_while_bad_ones_are_tried() {
    bounded(async {
        let cluster = Cluster::start().await;
        let address = cluster.old.proxy.address;
        let (bob, bad) = (Caller::bob(&cluster.pki), Caller::nobody(&cluster.pki).token("wrong"));
        let path = both_serve().path();
        let attacking = async {
            loop {
                assert_eq!(bad.get(address, Http::Two, &path).await.status, 401);
            }
        };
        let working = async {
            let mut session = bob.connect(address, Http::Two).await;
            for number in 0..30 {
                let answer = session.get(&path).await;
                assert_eq!(answer.status, 200, "request {number}: {}", answer.text());
                let name = format!("busy-{number}");
                let written = write(&mut session, &both_serve(), &name).await;
                assert_eq!(written, 201, "write {number}");
            }
        };
        tokio::select! {
            () = attacking => {}
            () = working => {}
        }
    });
}

/// A resumed session brings no certificate on the wire; it must not bring another identity, or none.
#[test]
fn a_resumed_tls_session_is_the_same_client() {
    bounded(async {
        let cluster = Cluster::start().await;
        let alice = Caller::alice(&cluster.pki).options(cluster.old.proxy.address, Http::One);
        for versions in [&[&TLS12], &[&TLS13]] {
            let (sessions, mut kinds) = (Resuming::new(&alice, versions), Vec::new());
            for number in 0..3 {
                let target =
                    format!("{}?resumed={number}&over={:?}", both_serve().path(), versions[0].version);
                kinds.push(sessions.get(&target).await.0);
                let user = cluster.old.only_request_for(&target).user.unwrap();
                assert_eq!(
                    (user.name.as_str(), &user.groups[..2]),
                    ("alice", &["dev".to_owned(), "ops".to_owned()][..])
                );
            }
            assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed]);
        }
    });
}

/// The port is not privileged: while the API server is down, anybody on the node could listen there.
#[test]
fn an_impostor_on_the_local_port_is_sent_nothing() {
    bounded(async {
        let (pki, strangers) = (Pki::generate().unwrap(), Pki::generate().unwrap());
        let ip = "127.0.0.1".parse().unwrap();
        let (own, false_one) = (pki.serving("local", ip).unwrap(), strangers.serving("local", ip).unwrap());
        let seen = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&seen);
        let impostor = Upstream::start(&false_one, move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Response::new(whole("caught")))
        })
        .await;
        let options =
            ProxyOptions { pki: &pki, serving: &own, local: impostor.address, peers: &[], flags: &[] };
        let proxy = Proxy::start(&options);
        for caller in [Caller::alice(&pki), Caller::bob(&pki), Caller::nobody(&pki)] {
            for http in BOTH {
                let answer = caller.get(proxy.address, http, "/version").await;
                assert_eq!(answer.status, 503, "{}: {}", caller.label, answer.text());
            }
        }
        assert_eq!(seen.load(Ordering::Relaxed), 0, "requests that the impostor saw");
    });
}

/// Whoever holds the key is the client, whatever the version of TLS or of the certificate; nobody else is.
#[test]
fn a_certificate_counts_with_its_key_only() {
    const ALICE: Draft<'static> = Draft::of(&[&[Attribute::utf8(CN, "alice")]]);
    bounded(async {
        let cluster = Cluster::start().await;
        let forge = |version| cluster.pki.forge(Signer::Cluster, &Draft { version, ..ALICE }).unwrap();
        let options = Caller::nobody(&cluster.pki).options(cluster.old.proxy.address, Http::One);
        for (number, tls) in [&TLS12, &TLS13].into_iter().enumerate() {
            for version in [1, 3] {
                let (shown, other) = (forge(version), forge(3));
                for (has_key, key) in [(true, &shown.key_pem), (false, &other.key_pem)] {
                    let target = format!("{}?key={number}{version}{has_key}", both_serve().path());
                    let identity = Identity { cert_pem: shown.cert_pem.clone(), key_pem: key.clone() };
                    let client = ClientOptions { identity: Some(identity), ..options.clone() };
                    let answer = Resuming::new(&client, &[tls]).try_get(&target).await;
                    let seen = cluster.old.requests_for(&target);
                    if has_key {
                        assert_eq!(answer.unwrap().1, 200, "{target}");
                        assert_eq!(seen[0].user.as_ref().unwrap().name, "alice");
                    } else {
                        assert!(answer.is_err() && seen.is_empty(), "{target}: {answer:?} {seen:?}");
                    }
                }
            }
        }
    });
}

async fn write(session: &mut Session, api: &support::Api, name: &str) -> u16 {
    session.json("POST", &api.path(), &api.object(name)).await.status.as_u16()
}
