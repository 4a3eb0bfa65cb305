//! Clients that know nothing of aggregated discovery see the whole cluster through any node too.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "discovery_support/protobuf.rs"]
mod protobuf;
mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use bytes::Bytes;
use http::Request;
use mvproxy_tests::client::Answer;
use mvproxy_tests::standin::Documents;
use protobuf::decoded;
use serde_json::Value;
use support::{BOTH, Caller, Cluster, Http, Session, bounded, only_new_serves, request};

fn load(name: &str) -> Documents {
    Documents::load(name).unwrap()
}

/// Each server has something that the other lacks, also in one group version and in the core group.
async fn skewed() -> Cluster {
    let old =
        load("v1.34").without_resource("apps", "v1", "replicasets").without_resource("", "v1", "limitranges");
    let new = load("v1.36-all")
        .without_resource("", "v1", "podtemplates")
        .without_resource("apps", "v1", "daemonsets")
        .without_version("batch", "v1");
    Cluster::start_with(old, new, &[]).await
}

fn accepting(path: &str, accept: &str) -> Request<Bytes> {
    Request::get(path).header("accept", accept).body(Bytes::new()).unwrap()
}

async fn json(session: &mut Session, path: &str) -> Value {
    let answer = session.get(path).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    assert_eq!(answer.header("content-type"), "application/json", "{path}");
    answer.json().unwrap()
}

fn texts<'a>(list: &'a Value, field: &'a str) -> impl Iterator<Item = String> + 'a {
    list.as_array().into_iter().flatten().map(move |one| one[field].as_str().unwrap().to_owned())
}

/// What `kubectl api-versions` and `kubectl api-resources` of 1.25 and older show: every group version, and every resource
/// and subresource with its kind and verbs. They ask for the groups, then for each group version.
async fn crawl(caller: &Caller, address: SocketAddr) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut session = caller.connect(address, Http::Two).await;
    let mut versions: BTreeSet<String> = BTreeSet::new();
    for version in json(&mut session, "/api").await["versions"].as_array().unwrap() {
        versions.insert(version.as_str().unwrap().to_owned());
    }
    for group in json(&mut session, "/apis").await["groups"].as_array().unwrap() {
        let name = group["name"].as_str().unwrap();
        let alone = json(&mut session, &format!("/apis/{name}")).await;
        assert_eq!(alone["versions"], group["versions"], "{name}");
        assert_eq!(alone["preferredVersion"], group["preferredVersion"], "{name}");
        versions.extend(texts(&group["versions"], "groupVersion"));
    }
    let mut resources = BTreeSet::new();
    for version in &versions {
        let path = if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") };
        let list = json(&mut session, &path).await;
        assert_eq!(list["groupVersion"], version.as_str());
        for resource in list["resources"].as_array().unwrap() {
            let [name, kind] = ["name", "kind"].map(|field| resource[field].as_str().unwrap());
            for verb in resource["verbs"].as_array().unwrap() {
                resources.insert(format!("{verb} {version} {name} {kind} {}", resource["namespaced"]));
            }
        }
    }
    (versions, resources)
}

#[test]
fn an_old_client_finds_through_either_node_what_both_servers_serve() {
    bounded(async {
        let cluster = skewed().await;
        let alice = Caller::alice(&cluster.pki);
        let (mut versions, mut resources) = crawl(&alice, cluster.old.standin.addr).await;
        let old = (versions.len(), resources.len());
        let by_new = crawl(&alice, cluster.new.standin.addr).await;
        let new = (by_new.0.len(), by_new.1.len());
        versions.extend(by_new.0);
        resources.extend(by_new.1);
        assert!(versions.len() > old.0 && versions.len() > new.0, "{old:?} {new:?}");
        assert!(resources.len() > old.1 && resources.len() > new.1, "{old:?} {new:?}");
        for node in [&cluster.old, &cluster.new] {
            let seen = crawl(&alice, node.proxy.address).await;
            assert_eq!((&seen.0, &seen.1), (&versions, &resources));
        }
    });
}

/// Paths whose documents are merged on both nodes.
const PATHS: [&str; 6] = ["/apis", "/apis/", "/apis/storage.k8s.io", "/apis/apps/v1", "/api/v1", "/api/v1/"];

#[test]
fn merged_lists_are_the_same_on_every_node_with_the_headers_of_the_api_server() {
    bounded(async {
        let cluster = skewed().await;
        let alice = Caller::alice(&cluster.pki);
        for http in BOTH {
            for path in PATHS {
                let straight = alice.get(cluster.old.standin.addr, http, path).await;
                let via_old = alice.get(cluster.old.proxy.address, http, path).await;
                let via_new = alice.get(cluster.new.proxy.address, http, path).await;
                assert_eq!(via_old.text(), via_new.text(), "{path}");
                for (node, answer) in [("old", &via_old), ("new", &via_new)] {
                    assert_eq!(headers(&straight), headers(answer), "{path} through the {node} node");
                    assert_eq!(answer.header("cache-control"), "no-cache, private", "{path}");
                    assert_eq!(answer.header("content-length"), answer.body.len().to_string(), "{path}");
                }
            }
        }
        // What the old server has never heard of is found where it would answer 404.
        let api = only_new_serves();
        let path = format!("/apis/{}/{}", api.group, api.version);
        assert_eq!(alice.get(cluster.old.standin.addr, Http::Two, &path).await.status, 404);
        for http in BOTH {
            let answer = alice.get(cluster.old.proxy.address, http, &path).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            let known = alice.get(cluster.old.standin.addr, http, "/apis/apps/v1").await;
            assert_eq!(headers(&known), headers(&answer));
        }
    });
}

fn headers(answer: &Answer) -> BTreeSet<String> {
    answer.headers.keys().map(ToString::to_string).collect()
}

#[test]
fn protobuf_and_yaml_say_what_json_says() {
    bounded(async {
        let cluster = skewed().await;
        let mut session = Caller::alice(&cluster.pki).connect(cluster.old.proxy.address, Http::Two).await;
        let api = only_new_serves();
        let mut paths: Vec<String> = PATHS.iter().map(ToString::to_string).collect();
        paths.extend([format!("/apis/{}", api.group), format!("/apis/{}/{}", api.group, api.version)]);
        for path in &paths {
            let expected = json(&mut session, path).await;
            for accept in ["application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf, */*"]
            {
                let answer = session.fetch(accepting(path, accept)).await;
                assert_eq!(answer.header("content-type"), "application/vnd.kubernetes.protobuf", "{path}");
                assert_eq!(decoded(&answer.body), expected, "{path}");
            }
            let answer = session.fetch(accepting(path, "application/yaml")).await;
            assert_eq!(answer.header("content-type"), "application/yaml", "{path}");
            assert_eq!(serde_saphyr::from_str::<Value>(&answer.text()).unwrap(), expected, "{path}");
            let pretty = session.fetch(request("GET", &format!("{path}?pretty=true"))).await;
            assert!(pretty.text().starts_with("{\n  \""), "{path}: {}", pretty.text());
            assert_eq!(pretty.json().unwrap(), expected, "{path}");
        }
    });
}

#[test]
fn what_only_a_peer_lists_is_never_said_not_to_be_there() {
    bounded(async {
        let cluster = skewed().await;
        let alice = Caller::alice(&cluster.pki);
        let api = only_new_serves();
        let path = format!("/apis/{}/{}", api.group, api.version);
        let mut session = alice.connect(cluster.old.proxy.address, Http::Two).await;
        let answer = session.fetch(accepting(&path, "text/html")).await;
        assert_eq!(answer.status, 406, "{}", answer.text());
        assert_eq!(answer.json().unwrap()["reason"], "NotAcceptable");
        // But for those who ask for this server alone.
        assert_eq!(session.fetch(accepting(&path, "application/json;profile=nopeer")).await.status, 404);
        let mut proxied = request("GET", &path);
        proxied.headers_mut().insert("x-kubernetes-peer-proxied", "true".parse().unwrap());
        assert_eq!(session.fetch(proxied).await.status, 404);
        // And what nobody has is not there.
        assert_eq!(session.get("/apis/nothing.example.com/v1").await.status, 404);
        assert_eq!(session.get("/apis/apps/v7").await.status, 404);
    });
}

#[test]
fn lists_that_nobody_is_known_to_have_are_unavailable_while_a_peer_is_unaccounted_for() {
    bounded(async {
        let cluster = Cluster::start_with(load("v1.34"), load("v1.34"), &["--peers=127.0.0.1:1"]).await;
        let mut session = Caller::alice(&cluster.pki).connect(cluster.old.proxy.address, Http::Two).await;
        for path in ["/apis/nothing.example.com", "/apis/nothing.example.com/v1", "/apis/apps/v7"] {
            let answer = session.get(path).await;
            assert_eq!(answer.status, 503, "{path}: {}", answer.text());
            assert!(answer.headers.contains_key("retry-after"), "{path}");
        }
        for path in ["/apis/apps", "/apis/apps/v1", "/api/v1", "/apis"] {
            assert_eq!(session.get(path).await.status, 200, "{path}");
        }
    });
}
