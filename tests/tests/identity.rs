//! A client is the same person to an API server, straight or through a proxy, and can pretend to be nobody else.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use mvproxy_tests::client::{Answer, Client};
use mvproxy_tests::pki::{Pki, Subject};
use mvproxy_tests::standin::RecordedRequest;
use serde_json::Value;
use support::{
    BOTH, Caller, Cluster, Http, Upgraded, both_serve, bounded, exchange, only_new_serves, request,
};

/// A kind of client and the user name it has; `None` when it is refused or anonymous.
type Row = (Caller, Option<&'static str>);

fn clients(pki: &Pki) -> Vec<Row> {
    let subject = |common_name| Subject { common_name, ..Subject::default() };
    let (nobody, alice) = (Caller::nobody(pki), Caller::alice(pki));
    let certificate =
        |label, subject: &Subject<'_>| nobody.clone().labelled(label).certificate(pki.client(subject));
    let stranger = nobody.clone().labelled("a stranger").certificate(pki.stranger(&subject("alice")));
    vec![
        (nobody.clone(), None),
        (Caller::bob(pki), Some("bob")),
        (nobody.clone().labelled("a wrong token").token("wrong"), None),
        (nobody.clone().labelled("no bearer").header("authorization", "Basic Ym9iOmJvYg=="), None),
        (alice.clone(), Some("alice")),
        (alice.clone().labelled("certificate and token").token("bob-token"), Some("alice")),
        (alice.labelled("certificate and wrong token").token("wrong"), Some("alice")),
        (certificate("with UID", &Subject { uid: Some("u-1"), ..subject("dave") }), Some("dave")),
        (certificate("without a name", &subject("")), None),
        (
            certificate("not ASCII", &Subject { organizations: &["Küche"], ..subject("jörg ☃") }),
            Some("jörg ☃"),
        ),
        (stranger.clone(), None),
        (stranger.clone().labelled("a stranger with a wrong token").token("wrong"), None),
        (stranger.labelled("a stranger with a token").token("bob-token"), Some("bob")),
    ]
}

fn front_proxies(pki: &Pki) -> Vec<Row> {
    let proxy = |label| Caller::front_proxy(pki).labelled(label);
    let carol = |label| proxy(label).header("x-remote-user", "carol");
    let other = Subject { common_name: "other-proxy", ..Subject::default() };
    let not_allowed =
        Caller::nobody(pki).labelled("a proxy that is not allowed").certificate(pki.front_proxy(&other));
    vec![
        (carol("asserting carol"), Some("carol")),
        (
            carol("asserting all of carol")
                .header("x-remote-group", "g1")
                .header("x-remote-group", "g2, g3")
                .header("x-remote-uid", "c-1")
                .header("x-remote-extra-scopes", "one")
                .header("x-remote-extra-scopes", "two")
                .header("x-remote-extra-example.com%2fodd%20key%c3%bc", "1")
                .header("x-remote-extra-bad%zzkey", "kept raw")
                .header("x-remote-extra-under_score!#$&'*+.^`|~", "2")
                .header("x-remote-extra-name", "Grüße ☃")
                .header("x-remote-extra-empty", ""),
            Some("carol"),
        ),
        (carol("asserting an administrator").header("x-remote-group", "system:masters"), Some("carol")),
        (carol("asserting carol with bob's token").token("bob-token"), Some("carol")),
        (proxy("not ASCII").header("x-remote-user", "jörg ☃"), Some("jörg ☃")),
        (proxy("asserting nobody"), None),
        (proxy("asserting an empty name").header("x-remote-user", ""), None),
        (proxy("asserting nobody with bob's token").token("bob-token"), Some("bob")),
        (proxy("asserting a group only").header("x-remote-group", "system:masters"), None),
        (
            proxy("asserting the anonymous user")
                .header("x-remote-user", "system:anonymous")
                .header("x-remote-group", "system:unauthenticated"),
            None,
        ),
        (not_allowed.header("x-remote-user", "carol"), None),
    ]
}

fn impersonators(pki: &Pki) -> Vec<Row> {
    let (admin, alice) = (Caller::admin(pki).labelled("an administrator as carol"), Caller::alice(pki));
    vec![
        (
            admin
                .header("impersonate-user", "carol")
                .header("impersonate-group", "g1")
                .header("impersonate-group", "g2")
                .header("impersonate-uid", "c-1")
                .header("impersonate-extra-example.com%2fkey", "1"),
            Some("carol"),
        ),
        (alice.labelled("alice as carol").header("impersonate-user", "carol"), None),
        (Caller::bob(pki).labelled("bob as carol").header("impersonate-user", "carol"), None),
    ]
}

#[test]
fn everybody_is_who_they_are_straight() {
    table(clients);
}

#[test]
fn front_proxies_assert_what_they_assert_straight() {
    table(front_proxies);
}

#[test]
fn impersonation_is_judged_as_it_is_straight() {
    table(impersonators);
}

/// Compares straight access with the proxy before the same server and with being rerouted.
fn table(rows: impl FnOnce(&Pki) -> Vec<Row>) {
    bounded(async {
        let cluster = Cluster::start().await;
        for (number, (caller, name)) in rows(&cluster.pki).into_iter().enumerate() {
            for http in BOTH {
                let what = format!("{} over {http:?}", caller.label);
                let straight = caller.who_am_i(cluster.old.standin.addr, http).await;
                assert_eq!(name_in(&straight).as_deref(), name, "{what}: {}", straight.text());
                let through = caller.who_am_i(cluster.old.proxy.address, http).await;
                assert_same_outcome(&straight, &through, &what);

                let target = format!("{}?row={number}{http:?}", only_new_serves().path());
                let straight = caller.get(cluster.new.standin.addr, http, &target).await;
                let by_straight = cluster.new.only_request_for(&target).user;
                cluster.new.standin.clear_requests();
                let rerouted = caller.get(cluster.old.proxy.address, http, &target).await;
                assert_eq!(straight.status, rerouted.status, "{what}: {}", rerouted.text());
                // The proxy refuses a certificate that no API server would believe without asking one.
                let asked = cluster.new.requests_for(&target).into_iter().map(|request| request.user);
                let by_rerouted: Vec<_> = asked.collect();
                if by_straight.is_some() || !by_rerouted.is_empty() {
                    assert_eq!(by_rerouted, [by_straight], "{what}");
                }
            }
        }
    });
}

const SPOOFS: [&[(&str, &str)]; 7] = [
    &[("x-remote-user", "kubernetes-admin"), ("x-remote-group", "system:masters")],
    &[("x-remote-user", "a"), ("x-remote-user", "b"), ("x-remote-uid", "u")],
    &[("x-remote-group", "system:masters")],
    &[("x-remote-extra-scopes", "all"), ("x-remote-extra-", "nothing")],
    &[("x_remote_user", "kubernetes-admin"), ("x_remote-group", "system:masters")],
    &[("x-remote_extra_scopes", "all"), ("x_remote_uid", "u")],
    &[("x-remote-user", ""), ("x-remote-group", "")],
];

#[test]
fn ordinary_clients_cannot_speak_for_others() {
    bounded(async {
        let cluster = Cluster::start().await;
        let pki = &cluster.pki;
        for honest in [Caller::nobody(pki), Caller::bob(pki), Caller::alice(pki)] {
            for http in BOTH {
                let truth = honest.who_am_i(cluster.old.proxy.address, http).await;
                for (row, spoof) in SPOOFS.into_iter().enumerate() {
                    let what = format!("{} over {http:?} with {spoof:?}", honest.label);
                    let spoofing =
                        spoof.iter().fold(honest.clone(), |caller, (name, value)| caller.header(name, value));
                    let spoofed = spoofing.who_am_i(cluster.old.proxy.address, http).await;
                    assert_same_outcome(&truth, &spoofed, &what);
                    for (api, node) in [(both_serve(), &cluster.old), (only_new_serves(), &cluster.new)] {
                        let target = format!("{}?row={row}{http:?}{}", api.path(), honest.label.len());
                        spoofing.get(cluster.old.proxy.address, http, &target).await;
                        let seen = node.only_request_for(&target);
                        let spoofed = |value: &[u8]| spoof.iter().any(|(_, spoof)| spoof.as_bytes() == value);
                        let kept = identity_headers(&seen).find(|(_, value)| spoofed(value));
                        assert_eq!(kept, None, "{what}");
                    }
                }
            }
        }
    });
}

#[test]
fn names_in_other_cases_and_spellings_are_removed_as_well() {
    bounded(async {
        let cluster = Cluster::start().await;
        for caller in [Caller::nobody(&cluster.pki), Caller::alice(&cluster.pki)] {
            let options = caller.options(cluster.old.proxy.address, Http::One);
            let truth = caller.get(cluster.old.proxy.address, Http::One, &both_serve().path()).await;
            for (row, line) in [
                "X-Remote-User: kubernetes-admin",
                "X-REMOTE-GROUP: system:masters",
                "x-ReMoTe-UsEr:kubernetes-admin",
                "X_Remote_User: kubernetes-admin",
                "X-Remote-Extra-SCOPES: all",
                "X-Remote-User: kubernetes-admin\r\nConnection: X-Remote-User",
                "X-Remote-User : kubernetes-admin",
                "X-Other: 1\r\n X-Remote-User: kubernetes-admin",
            ]
            .into_iter()
            .enumerate()
            {
                let target = format!("{}?row={row}{}", both_serve().path(), caller.label.len());
                let head = format!("GET {target} HTTP/1.1\r\nHost: h\r\n{line}\r\nConnection: close\r\n\r\n");
                let answer = exchange(&options, head.as_bytes()).await.unwrap();
                let seen = cluster.old.requests_for(&target);
                if seen.is_empty() {
                    assert!(answer.starts_with("HTTP/1.1 400 "), "{line}: {answer}");
                    continue;
                }
                assert!(answer.starts_with(&format!("HTTP/1.1 {} ", truth.status.as_u16())), "{answer}");
                let kept = identity_headers(&seen[0])
                    .find(|(_, value)| matches!(*value, b"kubernetes-admin" | b"system:masters" | b"all"));
                assert_eq!(kept, None, "{line}");
            }
        }
    });
}

/// HTTP/1.1 drops blanks around a header's value, so such a name cannot be asserted; nobody may lose them on the way.
#[test]
fn a_name_with_blanks_around_it_never_becomes_the_name_without() {
    bounded(async {
        let cluster = Cluster::start().await;
        let pki = &cluster.pki;
        for subject in [
            Subject { common_name: "alice ", ..Subject::default() },
            Subject { common_name: " alice", ..Subject::default() },
            Subject { common_name: "alice\t", ..Subject::default() },
            Subject { common_name: "eve", organizations: &["system:masters "], uid: None },
        ] {
            let caller = Caller::nobody(pki).labelled(subject.common_name).certificate(pki.client(&subject));
            cluster.old.standin.clear_requests();
            for http in BOTH {
                caller.get(cluster.old.proxy.address, http, &both_serve().path()).await;
            }
            let upgrade = ["Connection: Upgrade", "Upgrade: SPDY/3.1"];
            let target = "/api/v1/namespaces/default/pods/p/exec";
            Upgraded::ask(&caller, cluster.old.proxy.address, target, &upgrade).await.unwrap();
            for request in cluster.old.standin.requests() {
                let Some(user) = request.user else { continue };
                assert_ne!(user.name, "alice", "{subject:?}: {} {:?}", request.target, request.headers);
                assert!(
                    !user.groups.contains(&"system:masters".to_owned()),
                    "{subject:?}: {}",
                    request.target
                );
            }
        }
    });
}

#[test]
fn the_source_of_a_request_is_the_connection_and_no_header() {
    bounded(async {
        let cluster = Cluster::start().await;
        let pki = &cluster.pki;
        let carol = Caller::front_proxy(pki).header("x-remote-user", "carol");
        for (caller, wanted) in [
            (Caller::nobody(pki), "127.0.0.1"),
            (Caller::bob(pki), "127.0.0.1"),
            (Caller::alice(pki), "127.0.0.1"),
            (carol, "192.0.2.1, 192.0.2.2, 127.0.0.1"),
        ] {
            let caller = caller
                .header("x-forwarded-for", "192.0.2.1")
                .header("x-forwarded-for", "192.0.2.2")
                .header("x-real-ip", "192.0.2.3")
                .header("forwarded", "for=192.0.2.4");
            for http in BOTH {
                for (api, node) in [(both_serve(), &cluster.old), (only_new_serves(), &cluster.new)] {
                    let target = format!("{}?{http:?}{}", api.path(), caller.label.len());
                    caller.get(cluster.old.proxy.address, http, &target).await;
                    let headers = node.only_request_for(&target).headers;
                    let sources: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
                    assert_eq!(sources, [wanted], "{}", caller.label);
                    assert!(!headers.contains_key("x-real-ip") && !headers.contains_key("forwarded"));
                }
            }
        }
    });
}

/// A token that is rerouted comes from the peer's proxy as it is; whom it speaks for is in a header.
#[test]
fn a_peer_is_believed_whom_it_forwards_for() {
    bounded(async {
        let cluster = Cluster::start().await;
        let proxied = Caller::bob(&cluster.pki)
            .header("x-kubernetes-peer-proxied", "true")
            .header("x-forwarded-for", "192.0.2.1");
        for http in BOTH {
            for (source, wanted) in [("127.0.0.1", "192.0.2.1, 127.0.0.1"), ("127.0.0.9", "127.0.0.9")] {
                let target = format!("{}?{http:?}{source}", both_serve().path());
                let options = proxied.options(cluster.old.proxy.address, http);
                let mut client =
                    Client::connect(&options.from_source(source.parse().unwrap())).await.unwrap();
                let mut request = request("GET", &target);
                request.headers_mut().extend(proxied.headers.clone());
                client.fetch(request).await.unwrap();
                let headers = cluster.old.only_request_for(&target).headers;
                let sources: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
                assert_eq!(sources, [wanted], "from {source}");
            }
        }
    });
}

fn identity_headers(request: &RecordedRequest) -> impl Iterator<Item = (String, &[u8])> {
    let fold = |name: &http::HeaderName| name.as_str().replace('_', "-");
    let headers = request.headers.iter().map(move |(name, value)| (fold(name), value.as_bytes()));
    headers.filter(|(name, _)| name.starts_with("x-remote-"))
}

/// The same user, or the same refusal.
#[track_caller]
fn assert_same_outcome(straight: &Answer, through: &Answer, what: &str) {
    assert_eq!(straight.status, through.status, "{what}: {}", through.text());
    assert_eq!(straight.header("content-type"), through.header("content-type"), "{what}");
    if straight.status == 201 {
        assert_eq!(user_in(straight), user_in(through), "{what}");
    } else {
        assert_eq!(straight.text(), through.text(), "{what}");
    }
}

fn user_in(answer: &Answer) -> Value {
    answer.json().unwrap()["status"]["userInfo"].clone()
}

fn name_in(answer: &Answer) -> Option<String> {
    (answer.status == 201).then(|| user_in(answer)["username"].as_str().unwrap().to_owned())
}
