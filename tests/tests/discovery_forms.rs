//! The aggregated document in every version, media type and encoding that clients ask for.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::io::Read as _;

use bytes::Bytes;
use http::Request;
use mvproxy_tests::standin::{Aggregation, Documents};
use serde_json::Value;
use support::{
    AGGREGATED, BOTH, Caller, Cluster, Http, aggregated, bounded, ensure, eventually, only_new_serves,
};

fn load(name: &str) -> Documents {
    Documents::load(name).unwrap()
}

fn accepting(path: &str, accept: &str) -> Request<Bytes> {
    Request::get(path).header("accept", accept).body(Bytes::new()).unwrap()
}

/// The new server has all that the old one has, so that the merged documents are its own, byte for byte.
#[test]
fn every_form_through_the_old_node_is_the_new_servers() {
    bounded(async {
        let new = load("v1.36-all");
        let cluster = Cluster::start_with(load("v1.34"), new, &[]).await;
        let alice = Caller::alice(&cluster.pki);
        for http in BOTH {
            for accept in [
                AGGREGATED.to_owned(),
                AGGREGATED.replace("application/json", "application/vnd.kubernetes.protobuf"),
                format!("{AGGREGATED};pretty=1"),
                AGGREGATED.replace("application/json", "*/*"),
            ] {
                let straight = alice.ask(cluster.new.standin.addr, http, accepting("/apis", &accept)).await;
                let through = alice.ask(cluster.old.proxy.address, http, accepting("/apis", &accept)).await;
                for name in ["content-type", "etag", "vary", "cache-control"] {
                    assert_eq!(straight.header(name), through.header(name), "{name} of {accept}");
                }
                assert!(straight.body == through.body, "{accept}");
            }
        }
    });
}

#[test]
fn older_clients_get_v2beta1_and_people_yaml() {
    bounded(async {
        let cluster = Cluster::start().await;
        let mut session = Caller::alice(&cluster.pki).connect(cluster.old.proxy.address, Http::Two).await;
        let json = session.fetch(aggregated("/apis")).await;
        let beta = AGGREGATED.replace("v=v2", "v=v2beta1");
        // As kubectl 1.26 asks.
        let answer = session.fetch(accepting("/apis", &format!("{beta},application/json"))).await;
        assert_eq!(answer.header("content-type"), beta);
        assert_eq!(answer.header("etag"), json.header("etag"), "equal content has an equal tag");
        let mut expected = json.json().unwrap();
        expected["apiVersion"] = "apidiscovery.k8s.io/v2beta1".into();
        assert_eq!(answer.json().unwrap(), expected);

        let yaml = AGGREGATED.replace("application/json", "application/yaml");
        let answer = session.fetch(accepting("/apis", &yaml)).await;
        assert_eq!(answer.header("content-type"), yaml);
        assert_eq!(answer.header("etag"), json.header("etag"));
        assert_eq!(serde_saphyr::from_str::<Value>(&answer.text()).unwrap(), json.json().unwrap());
        assert!(answer.text().starts_with("kind: APIGroupDiscoveryList\n"), "{}", answer.text());
    });
}

/// What Go's clients ask for without being told to.
fn gzipped(path: &str, accept: &str) -> Request<Bytes> {
    Request::get(path).header("accept", accept).header("accept-encoding", "gzip").body(Bytes::new()).unwrap()
}

#[test]
fn large_documents_are_compressed_for_those_who_take_that() {
    bounded(async {
        let cluster =
            Cluster::start_with(load("v1.34"), load("v1.36-all").with_custom_resources(500), &[]).await;
        let alice = Caller::alice(&cluster.pki);
        let protobuf = AGGREGATED.replace("application/json", "application/vnd.kubernetes.protobuf");
        for http in BOTH {
            let mut session = alice.connect(cluster.old.proxy.address, http).await;
            for accept in [AGGREGATED, &protobuf] {
                let plain = session.fetch(accepting("/apis", accept)).await;
                assert!(plain.body.len() > 128 * 1024);
                assert_eq!((plain.header("content-encoding"), plain.header("vary")), ("", "Accept"));
                let packed = session.fetch(gzipped("/apis", accept)).await;
                assert_eq!(packed.header("content-encoding"), "gzip", "{accept}");
                let vary: Vec<_> = packed.headers.get_all("vary").iter().collect();
                assert_eq!(vary, ["Accept", "Accept-Encoding"]);
                assert_eq!(packed.header("content-length"), packed.body.len().to_string());
                assert_eq!(packed.header("etag"), plain.header("etag"));
                assert_eq!(packed.header("content-type"), accept);
                let mut unpacked = Vec::new();
                flate2::read::GzDecoder::new(&packed.body[..]).read_to_end(&mut unpacked).unwrap();
                assert!(unpacked == plain.body, "{accept}");
                assert!(packed.body.len() * 10 < plain.body.len());
            }
            // A 304 has no content that could be encoded.
            let tag = session.fetch(aggregated("/apis")).await.headers["etag"].clone();
            let mut known = gzipped("/apis", AGGREGATED);
            known.headers_mut().insert("if-none-match", tag);
            let answer = session.fetch(known).await;
            assert_eq!((answer.status.as_u16(), answer.header("content-encoding")), (304, ""));
            assert_eq!(answer.header("vary"), "Accept");
        }
    });
}

#[test]
fn small_documents_are_never_compressed() {
    bounded(async {
        let cluster = Cluster::start().await;
        let alice = Caller::alice(&cluster.pki);
        let answer = alice.ask(cluster.old.proxy.address, Http::Two, gzipped("/apis", AGGREGATED)).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-encoding")), (200, ""));
        assert!(answer.json().is_ok());
    });
}

/// A client that asks in an unusual form just when servers come to agree gets that form.
#[test]
fn the_form_stays_when_the_servers_come_to_agree() {
    bounded(async {
        let cluster =
            Cluster::start_with(load("v1.34"), load("v1.36-all"), &["--discovery-interval=5s"]).await;
        let mut session = Caller::alice(&cluster.pki).connect(cluster.old.proxy.address, Http::Two).await;
        let protobuf = AGGREGATED.replace("application/json", "application/vnd.kubernetes.protobuf");
        let merged = session.fetch(accepting("/apis", &protobuf)).await;
        assert_eq!(merged.header("content-type"), protobuf);
        // The proxy notices when it asks for the client's leave.
        cluster.old.standin.set_documents(load("v1.36-all"));
        let answer = session.fetch(accepting("/apis", &protobuf)).await;
        assert_eq!(answer.header("content-type"), protobuf);
        assert!(answer.body == merged.body, "the new server's document, from whichever server");
    });
}

/// Before 1.27 it is off by default: the local server has no form of what is merged but the plain one.
#[test]
fn merged_documents_are_served_before_a_server_without_aggregated_discovery_too() {
    bounded(async {
        let old = load("v1.34").with_aggregation(Aggregation::Absent);
        let cluster = Cluster::start_unsynced(old, load("v1.36-all"), &[]).await;
        let (alice, address) = (Caller::alice(&cluster.pki), cluster.old.proxy.address);
        let api = only_new_serves();
        // As old clients ask, as new ones do that know both forms, and as those that know one.
        let both = format!("{AGGREGATED},application/json");
        for (accept, wanted) in [
            ("application/json", &api.group),
            ("*/*", &api.group),
            (&both, &api.resource),
            (AGGREGATED, &api.resource),
        ] {
            eventually(accept, async || {
                let answer = alice.ask(address, Http::Two, accepting("/apis", accept)).await;
                ensure(answer.status == 200 && answer.text().contains(wanted), || {
                    format!("{} {}", answer.status, answer.header("content-type"))
                })
            })
            .await;
        }
        for http in BOTH {
            let answer = Caller::nobody(&cluster.pki).ask(address, http, aggregated("/apis")).await;
            assert_eq!(answer.status, 403, "the local server still says who may read: {}", answer.text());
        }
    });
}
