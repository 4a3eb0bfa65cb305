//! `/openapi/v2` through either node describes what either server serves, in every form that kube-apiserver has.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod site_support;
mod support;

#[path = "openapi_v2/gnostic.rs"]
mod gnostic;
#[path = "openapi_v2/hostile.rs"]
mod hostile;

use std::collections::BTreeSet;
use std::io::Read as _;

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::Request;
use mvproxy_tests::client::Answer;
use mvproxy_tests::pki::{Pki, Subject};
use mvproxy_tests::standin::{Documents, Fault, Standin};
use mvproxy_tests::store::Store;
use serde_json::Value;
use support::{
    BOTH, Caller, Cluster, Http, Proxy, ProxyOptions, bounded, ensure, eventually, only_new_serves, request,
    standin,
};

const PATH: &str = "/openapi/v2";
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

fn load(name: &str) -> Documents {
    Documents::load(name).unwrap()
}

/// The new server has most of what the old one has, and more; the old one has a group version of its own.
async fn skewed() -> Cluster {
    let cluster =
        Cluster::start_with(load("v1.34"), load("v1.36-all").without_version("batch", "v1"), &[]).await;
    for node in [&cluster.old, &cluster.new] {
        merged(&node.proxy, &Caller::alice(&cluster.pki)).await;
    }
    cluster
}

/// Waits until the answer is no server's own, which would have a date.
async fn merged(proxy: &Proxy, caller: &Caller) {
    eventually("the document is merged", async || {
        let answer = caller.get(proxy.address, Http::Two, PATH).await;
        let is_merged = answer.status == 200 && !answer.headers.contains_key("last-modified");
        ensure(is_merged, || format!("{} {:?}", answer.status, answer.headers))
    })
    .await;
}

fn asking(headers: &[(&str, &str)]) -> Request<Bytes> {
    let mut request = request("GET", PATH);
    for (name, value) in headers {
        request.headers_mut().append(http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
    }
    request
}

/// Paths and definitions.
fn names(answer: &Answer) -> [BTreeSet<String>; 2] {
    let document = answer.json().unwrap();
    ["paths", "definitions"].map(|part| document[part].as_object().unwrap().keys().cloned().collect())
}

fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        Value::Object(fields) => {
            if let Some(Value::String(name)) = fields.get("$ref") {
                found.insert(name.strip_prefix("#/definitions/").unwrap().to_owned());
            }
            fields.values().for_each(|value| references(value, found));
        }
        _ => {}
    }
}

#[test]
fn either_node_describes_what_either_server_serves() {
    bounded(async {
        let cluster = skewed().await;
        let alice = Caller::alice(&cluster.pki);
        let [old, new] = [&cluster.old, &cluster.new].map(|node| node.standin.addr);
        let old = names(&alice.get(old, Http::Two, PATH).await);
        let new = names(&alice.get(new, Http::Two, PATH).await);
        let all = [0, 1].map(|part| old[part].union(&new[part]).cloned().collect::<BTreeSet<_>>());
        assert!(all[0].len() > old[0].len() && all[0].len() > new[0].len());
        for node in [&cluster.old, &cluster.new] {
            for http in BOTH {
                let mut session = alice.connect(node.proxy.address, http).await;
                let json = session.get(PATH).await;
                assert_eq!(names(&json), all);
                let document = json.json().unwrap();
                let mut referred = BTreeSet::new();
                references(&document, &mut referred);
                assert!(!referred.is_empty() && referred.is_subset(&all[1]), "{referred:?}");
                let protobuf = session.fetch(asking(&[("accept", PROTOBUF)])).await;
                assert_eq!(gnostic::names(&protobuf.body), all, "{http:?}");
                assert_eq!(protobuf.headers["etag"], json.headers["etag"], "one tag for both forms");
            }
        }
    });
}

#[test]
fn answers_are_those_of_kube_apiserver_but_for_the_content() {
    bounded(async {
        let cluster = skewed().await;
        let alice = Caller::alice(&cluster.pki);
        let mut proxied = alice.connect(cluster.old.proxy.address, Http::Two).await;
        let mut straight = alice.connect(cluster.old.standin.addr, Http::Two).await;
        let tag = proxied.get(PATH).await.header("etag").to_owned();
        let own = straight.get(PATH).await.header("etag").to_owned();
        assert_ne!(tag, own);
        let listed = |tag: &str| format!("\"0\", W/{tag}");
        for (accept, coding, condition, own_condition) in [
            ("application/json", "identity", None, None),
            ("application/json", "gzip", None, None),
            (PROTOBUF, "gzip, deflate", None, None),
            ("text/html, */*", "identity", None, None),
            ("text/html", "gzip", None, None),
            (PROTOBUF, "gzip", Some(tag.clone()), Some(own.clone())),
            ("application/json", "gzip", Some(listed(&tag)), Some(listed(&own))),
            ("application/json", "gzip", Some(own.clone()), Some(tag.clone())),
            ("application/json", "gzip", Some("*".to_owned()), Some("*".to_owned())),
            ("text/html", "gzip", Some(tag.clone()), Some(own.clone())),
        ] {
            let asked = |condition: Option<&String>| {
                let mut headers = vec![("accept", accept), ("accept-encoding", coding)];
                headers.extend(condition.map(|tag| ("if-none-match", tag.as_str())));
                asking(&headers)
            };
            let through = proxied.fetch(asked(condition.as_ref())).await;
            let expected = straight.fetch(asked(own_condition.as_ref())).await;
            let what = format!("{accept} {coding} {condition:?}");
            assert_eq!(through.status, expected.status, "{what}");
            assert_eq!(head(&through), head(&expected), "{what}");
            assert_eq!(through.body.is_empty(), expected.body.is_empty(), "{what}");
        }
        let zipped = proxied.fetch(asking(&[("accept-encoding", "gzip")])).await;
        let mut text = Vec::new();
        GzDecoder::new(&zipped.body[..]).read_to_end(&mut text).unwrap();
        assert_eq!(text, proxied.get(PATH).await.body);
    });
}

/// What describes an answer; ranges and dates of what is made in memory do not exist.
fn head(answer: &Answer) -> Vec<(String, String)> {
    const CHANGING: [&str; 6] =
        ["audit-id", "date", "etag", "content-length", "accept-ranges", "last-modified"];
    let mut headers: Vec<(String, String)> = answer
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .filter(|(name, _)| !CHANGING.contains(&name.as_str()) && !name.starts_with("x-kubernetes-pf"))
        .collect();
    headers.sort();
    headers
}

#[test]
fn the_local_server_authorises_each_request_and_is_asked_for_nothing_else() {
    bounded(async {
        let cluster = skewed().await;
        cluster.old.standin.clear_requests();
        cluster.new.standin.clear_requests();
        let alice = Caller::alice(&cluster.pki);
        let full = alice.get(cluster.old.proxy.address, Http::Two, PATH).await;
        let part = alice
            .ask(cluster.old.proxy.address, Http::One, asking(&[("range", "bytes=0-9"), ("accept", "*/*")]))
            .await;
        assert_eq!((part.status.as_u16(), &part.body), (200, &full.body), "there are no parts");
        let asked: Vec<_> =
            cluster.old.requests_for(PATH).into_iter().filter(|one| !one.peer_proxied).collect();
        assert_eq!(asked.len(), 2);
        for request in asked {
            assert_eq!(request.user.unwrap().name, "alice");
            let etag = &request.headers["if-none-match"];
            let own = alice.get(cluster.old.standin.addr, Http::Two, PATH).await;
            assert_eq!(etag, &own.headers["etag"], "its own tag, which costs it a 304");
            assert!(!request.headers.contains_key("range"));
        }
        let by_alice = |one: &&_| one_is_alice(one);
        assert_eq!(cluster.new.requests_for(PATH).iter().filter(by_alice).count(), 0);

        let subject = Subject { common_name: "carol", organizations: &["no-discovery"], uid: None };
        let carol = Caller::nobody(&cluster.pki).certificate(cluster.pki.client(&subject));
        for caller in [Caller::nobody(&cluster.pki), carol] {
            for http in BOTH {
                let answer = caller.get(cluster.old.proxy.address, http, PATH).await;
                assert_eq!(answer.status, 403, "{}", answer.text());
            }
        }
        let busy = Fault::TooManyRequests { retry_after: 7 };
        cluster.old.standin.faults().inject(busy, PATH, 1);
        let answer = alice.get(cluster.old.proxy.address, Http::Two, PATH).await;
        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (429, "7"));
    });
}

fn one_is_alice(request: &mvproxy_tests::standin::RecordedRequest) -> bool {
    request.user.as_ref().is_some_and(|user| user.name == "alice")
}

#[test]
fn it_follows_what_servers_add_and_take_away() {
    bounded(async {
        let cluster = skewed().await;
        let alice = Caller::alice(&cluster.pki);
        let old = || load("v1.34").with_resource("example.com", "v1", "widgets", "Widget");
        cluster.old.standin.set_documents(old());
        eventually("the local server's news are merged, and the rest stays", async || {
            let text = alice.get(cluster.old.proxy.address, Http::Two, PATH).await.text();
            let has = ["com.example.v1.Widget", &only_new_serves().kind].map(|kind| text.contains(kind));
            ensure(has == [true; 2], || format!("{has:?}"))
        })
        .await;

        let new = load("v1.36-all").with_resource("example.com", "v1", "gadgets", "Gadget");
        cluster.new.standin.set_documents(new);
        let has = async |wanted: bool| {
            let answer = alice.get(cluster.old.proxy.address, Http::Two, PATH).await;
            ensure(answer.text().contains("com.example.v1.Gadget") == wanted, || {
                answer.header("etag").to_owned()
            })
        };
        eventually("the peer's news are merged", async || has(true).await).await;
        cluster.new.standin.set_documents(load("v1.36-all"));
        eventually("what the peer no longer has is gone", async || has(false).await).await;

        cluster.old.standin.set_documents(load("v1.36-all"));
        eventually("alike servers are not merged", async || {
            let straight = alice.get(cluster.old.standin.addr, Http::Two, PATH).await;
            let through = alice.get(cluster.old.proxy.address, Http::Two, PATH).await;
            let is_untouched = through.headers.contains_key("last-modified");
            ensure(is_untouched && straight.body == through.body, || format!("{:?}", through.headers))
        })
        .await;
    });
}

#[test]
fn while_the_local_server_is_away_a_stand_in_authorises() {
    bounded(async {
        let cluster = skewed().await;
        let alice = Caller::alice(&cluster.pki);
        let before = alice.get(cluster.old.proxy.address, Http::Two, PATH).await;
        let Cluster { old, new: _new, pki, .. } = cluster;
        old.standin.stop().await.unwrap();
        let after = alice.get(old.proxy.address, Http::Two, PATH).await;
        assert_eq!(after.status, 200, "{}", after.text());
        assert_eq!((&after.headers["etag"], &after.body), (&before.headers["etag"], &before.body));
        let anonymous = Caller::nobody(&pki).get(old.proxy.address, Http::Two, PATH).await;
        assert_eq!(anonymous.status, 403);
    });
}

#[test]
fn until_documents_are_merged_the_server_that_serves_most_answers() {
    bounded(async {
        let lame = Unmerged::start(|old, _| old).await;
        let straight = lame.alice.get(lame.new.addr, Http::Two, PATH).await;
        let through = lame.alice.get(lame.proxy.address, Http::Two, PATH).await;
        assert_eq!((through.status.as_u16(), through.body), (200, straight.body));
    });
}

#[test]
fn until_documents_are_merged_the_local_server_is_better_than_nobody() {
    bounded(async {
        let lame = Unmerged::start(|_, new| new).await;
        let straight = lame.alice.get(lame.old.addr, Http::Two, PATH).await;
        lame.new.stop().await.unwrap();
        let through = lame.alice.get(lame.proxy.address, Http::Two, PATH).await;
        assert_eq!((through.status.as_u16(), through.body), (200, straight.body));
    });
}

/// A proxy that knows two servers and does not get the document of one.
struct Unmerged {
    old: Standin,
    new: Standin,
    proxy: Proxy,
    alice: Caller,
    _pki: Pki,
}

impl Unmerged {
    async fn start(lame: impl for<'a> FnOnce(&'a Standin, &'a Standin) -> &'a Standin) -> Self {
        let (pki, store) = (Pki::generate().unwrap(), Store::in_memory());
        let (old, serving) = standin(&pki, &store, "old", load("v1.34")).await;
        let (new, _) = standin(&pki, &store, "new", load("v1.36-all")).await;
        lame(&old, &new).faults().inject(Fault::InternalError, PATH, usize::MAX);
        let options =
            ProxyOptions { pki: &pki, serving: &serving, local: old.addr, peers: &[new.addr], flags: &[] };
        let proxy = Proxy::start(&options);
        proxy.ready().await;
        let labels = [("type", "fetch_openapi"), ("reason", "status")];
        eventually("failures are counted", async || {
            let counted = proxy.metrics().await.sum("apiserver_peer_discovery_sync_errors_total", &labels);
            ensure(counted >= 2, || format!("{counted}"))
        })
        .await;
        let alice = Caller::alice(&pki);
        Self { old, new, proxy, alice, _pki: pki }
    }
}

#[test]
fn without_skew_the_proxy_never_asks() {
    bounded(async {
        let cluster = Cluster::start_with(load("v1.34"), load("v1.34"), &[]).await;
        let alice = Caller::alice(&cluster.pki);
        assert_eq!(alice.get(cluster.old.proxy.address, Http::Two, PATH).await.status, 200);
        // Until discovery was asked a few times more.
        let rounds = cluster.new.requests_for("/apis").len() + 10;
        eventually("discovery goes on", async || {
            let asked = cluster.new.requests_for("/apis").len();
            ensure(asked >= rounds, || format!("{asked} of {rounds}"))
        })
        .await;
        assert_eq!(cluster.old.requests_for(PATH).len(), 1);
        assert_eq!(cluster.new.requests_for(PATH).len(), 0);
    });
}
