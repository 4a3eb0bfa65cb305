//! `OpenAPI` through either node describes what either server serves.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::collections::BTreeMap;

use mvproxy_tests::client::Answer;
use mvproxy_tests::pki::Subject;
use mvproxy_tests::standin::Documents;
use serde_json::Value;
use support::{BOTH, Caller, Cluster, Http, bounded, only_new_serves, request};

fn load(name: &str) -> Documents {
    Documents::load(name).unwrap()
}

/// The new server has most of what the old one has, and more; the old one has a group version of its own.
async fn skewed() -> Cluster {
    Cluster::start_with(load("v1.34"), load("v1.36-all").without_version("batch", "v1"), &[]).await
}

fn index(answer: &Answer) -> BTreeMap<String, String> {
    let paths = answer.json().unwrap()["paths"].as_object().unwrap().clone();
    let url = |entry: Value| entry["serverRelativeURL"].as_str().unwrap().to_owned();
    paths.into_iter().map(|(path, entry)| (path, url(entry))).collect()
}

#[test]
fn the_index_names_every_document_of_either_server_and_each_can_be_had() {
    bounded(async {
        let cluster = skewed().await;
        let alice = Caller::alice(&cluster.pki);
        let old = index(&alice.get(cluster.old.standin.addr, Http::Two, "/openapi/v3").await);
        let new = index(&alice.get(cluster.new.standin.addr, Http::Two, "/openapi/v3").await);
        let mut all: Vec<&String> = old.keys().chain(new.keys()).collect();
        all.sort();
        all.dedup();
        assert!(all.len() > old.len() && all.len() > new.len());
        for node in [&cluster.old, &cluster.new] {
            for http in BOTH {
                let mut session = alice.connect(node.proxy.address, http).await;
                let seen = index(&session.get("/openapi/v3").await);
                assert_eq!(seen.keys().collect::<Vec<_>>(), all);
                for url in seen.values() {
                    let document = session.get(url).await;
                    assert_eq!(document.status, 200, "{url}: {}", document.text());
                }
            }
        }
    });
}

#[test]
fn a_document_describes_what_a_peer_adds_to_a_group_version() {
    bounded(async {
        let cluster = skewed().await;
        let alice = Caller::alice(&cluster.pki);
        let api = only_new_serves();
        let path = format!("/openapi/v3/apis/{}/{}", api.group, api.version);
        let straight = alice.get(cluster.new.standin.addr, Http::Two, &path).await;
        let through = alice.get(cluster.old.proxy.address, Http::Two, &path).await;
        assert_eq!(through.text(), straight.text());
        assert!(through.text().contains(&api.kind), "{}", api.kind);
        // Untouched where the local server says as much.
        let before = cluster.new.requests_for("/openapi/v3/apis/apps/v1").len();
        assert_eq!(
            alice.get(cluster.old.proxy.address, Http::Two, "/openapi/v3/apis/apps/v1").await.status,
            200
        );
        assert_eq!(cluster.new.requests_for("/openapi/v3/apis/apps/v1").len(), before);
    });
}

#[test]
fn the_index_has_a_tag_of_its_own() {
    bounded(async {
        let cluster = skewed().await;
        let alice = Caller::alice(&cluster.pki);
        for http in BOTH {
            let mut session = alice.connect(cluster.old.proxy.address, http).await;
            let first = session.get("/openapi/v3").await;
            assert_eq!(first.header("content-type"), "application/json");
            let mut again = request("GET", "/openapi/v3");
            again.headers_mut().insert("if-none-match", first.headers["etag"].clone());
            let answer = session.fetch(again).await;
            assert_eq!((answer.status.as_u16(), answer.body.len()), (304, 0));
            assert_eq!(answer.headers["etag"], first.headers["etag"]);
            let mut other = request("GET", "/openapi/v3");
            other.headers_mut().insert("if-none-match", "\"0\"".parse().unwrap());
            assert_eq!(session.fetch(other).await.body, first.body);
        }
    });
}

#[test]
fn who_may_not_read_it_gets_the_api_servers_refusal() {
    bounded(async {
        let cluster = skewed().await;
        let subject = Subject { common_name: "carol", organizations: &["no-discovery"], uid: None };
        let carol = Caller::nobody(&cluster.pki).certificate(cluster.pki.client(&subject));
        let api = only_new_serves();
        let document = format!("/openapi/v3/apis/{}/{}", api.group, api.version);
        for caller in [Caller::nobody(&cluster.pki), carol] {
            for http in BOTH {
                for path in ["/openapi/v2", "/openapi/v3", &document] {
                    let answer = caller.get(cluster.old.proxy.address, http, path).await;
                    assert_eq!(answer.status, 403, "{path}: {}", answer.text());
                }
            }
        }
    });
}

#[test]
fn without_skew_it_is_the_local_servers_byte_for_byte() {
    bounded(async {
        let cluster = Cluster::start_with(load("v1.34"), load("v1.34"), &[]).await;
        let alice = Caller::alice(&cluster.pki);
        for path in ["/openapi/v2", "/openapi/v3", "/openapi/v3/apis/apps/v1", "/openapi/v3/apis/nothing/v1"]
        {
            let straight = alice.get(cluster.old.standin.addr, Http::Two, path).await;
            let through = alice.get(cluster.old.proxy.address, Http::Two, path).await;
            assert_eq!((straight.status, straight.body), (through.status, through.body), "{path}");
            assert_eq!(cluster.new.requests_for(path).len(), 0, "{path}");
        }
    });
}
