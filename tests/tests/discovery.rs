//! Discovery through either node shows what both servers serve, to whoever may see it, and forgets nothing.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Request};
use mvproxy_tests::client::Answer;
use mvproxy_tests::pki::Pki;
use mvproxy_tests::standin::{Documents, Standin};
use mvproxy_tests::store::Store;
use support::{
    AGGREGATED, BOTH, Caller, Cluster, Http, Proxy, ProxyOptions, aggregated, bounded, ensure, eventually,
    only_new_serves, request, served_by, standin,
};

const PATHS: [&str; 2] = ["/api", "/apis"];

fn load(name: &str) -> Documents {
    Documents::load(name).unwrap()
}

/// A discovery request with this Accept header.
fn accepting(path: &str, accept: &str) -> Request<Bytes> {
    Request::get(path).header("accept", accept).body(Bytes::new()).unwrap()
}

#[test]
fn discovery_through_either_node_lists_what_both_servers_serve() {
    bounded(async {
        // Each serves something that the other does not, in the core group too.
        let old = load("v1.34");
        let new = load("v1.36-all").without_resource("", "v1", "podtemplates").without_version("batch", "v1");
        let cluster = Cluster::start_with(old, new, &[]).await;
        let alice = Caller::alice(&cluster.pki);
        let mut union = served_by(&alice, cluster.old.standin.addr).await.unwrap();
        let only_old = union.len();
        let by_new = served_by(&alice, cluster.new.standin.addr).await.unwrap();
        let only_new = by_new.len();
        union.extend(by_new);
        assert!(union.len() > only_old && union.len() > only_new);
        for node in [&cluster.old, &cluster.new] {
            for address in &node.proxy.addresses {
                let seen = served_by(&alice, *address).await.unwrap();
                assert_eq!(seen.keys().collect::<Vec<_>>(), union.keys().collect::<Vec<_>>());
            }
        }
    });
}

#[test]
fn merged_documents_have_the_headers_and_tags_of_the_api_server_on_every_node() {
    bounded(async {
        let cluster = Cluster::start().await;
        let alice = Caller::alice(&cluster.pki);
        for http in BOTH {
            for path in PATHS {
                let straight = alice.ask(cluster.old.standin.addr, http, aggregated(path)).await;
                let via_old = alice.ask(cluster.old.proxy.address, http, aggregated(path)).await;
                let via_new = alice.ask(cluster.new.proxy.address, http, aggregated(path)).await;
                assert_eq!(via_old.header("etag"), via_new.header("etag"), "{path}");
                assert_eq!(via_old.text(), via_new.text(), "{path}");
                for name in ["content-type", "vary", "cache-control"] {
                    assert_eq!(straight.header(name), via_old.header(name), "{path} {name}");
                }
                assert_eq!(names(&straight), names(&via_old), "{path}");
                assert_eq!(via_old.header("content-length"), via_old.body.len().to_string());
            }
        }
        // The new server serves all that the old one does, so what is merged is its own document.
        let groups = alice.ask(cluster.new.standin.addr, Http::Two, aggregated("/apis")).await;
        let merged = alice.ask(cluster.old.proxy.address, Http::Two, aggregated("/apis")).await;
        assert_eq!(
            merged.json().unwrap()["items"].as_array().unwrap().len(),
            groups.json().unwrap()["items"].as_array().unwrap().len()
        );
    });
}

#[test]
fn a_client_that_has_the_document_gets_304() {
    bounded(async {
        let cluster = Cluster::start().await;
        let alice = Caller::alice(&cluster.pki);
        for http in BOTH {
            for path in PATHS {
                for node in [&cluster.old, &cluster.new] {
                    let mut session = alice.connect(node.proxy.address, http).await;
                    let tag = session.fetch(aggregated(path)).await.headers["etag"].clone();
                    let mut again = aggregated(path);
                    again.headers_mut().insert("if-none-match", tag.clone());
                    let answer = session.fetch(again).await;
                    assert_eq!((answer.status.as_u16(), answer.body.len()), (304, 0), "{path}");
                    assert_eq!(answer.headers["etag"], tag);
                    assert!(!answer.headers.contains_key("content-type"), "{:?}", answer.headers);
                    let mut stale = aggregated(path);
                    stale.headers_mut().insert("if-none-match", HeaderValue::from_static("\"0\""));
                    let answer = session.fetch(stale).await;
                    assert_eq!(answer.status, 200, "a 304 leaves the connection usable");
                    assert_eq!(answer.headers["etag"], tag);
                }
            }
        }
    });
}

/// The tag of the local document is not that of the merged one.
#[test]
fn a_client_with_the_local_document_gets_the_merged_one() {
    bounded(async {
        let cluster = Cluster::start().await;
        let alice = Caller::alice(&cluster.pki);
        let local = alice.ask(cluster.old.standin.addr, Http::Two, aggregated("/apis")).await;
        let mut request = aggregated("/apis");
        request.headers_mut().insert("if-none-match", local.headers["etag"].clone());
        let merged = alice.ask(cluster.old.proxy.address, Http::Two, request).await;
        assert_eq!(merged.status, 200);
        assert!(merged.body.len() > local.body.len());
    });
}

#[test]
fn what_is_not_merged_is_answered_as_the_local_server_answers_it() {
    bounded(async {
        let cluster = Cluster::start().await;
        let alice = Caller::alice(&cluster.pki);
        let mut requests = vec![
            request("HEAD", "/apis"),
            request("POST", "/apis"),
            request("POST", "/api"),
            request("DELETE", "/apis"),
            request("OPTIONS", "/apis"),
        ];
        // No peer adds to these: the servers have the same of apps, and of the core group.
        for path in
            ["/api", "/api/", "/api/v1", "/apis/apps", "/apis/apps/", "/apis/apps/v1", "/apis/nothing"]
        {
            requests.push(request("GET", path));
            for accept in ["application/json", "*/*", "text/html", "application/vnd.kubernetes.protobuf"] {
                requests.push(accepting(path, accept));
            }
        }
        // These say which server they want to hear, or accept nothing that there is.
        for accept in [
            &format!("{AGGREGATED};profile=nopeer"),
            "application/json;profile=nopeer",
            "text/html",
            &AGGREGATED.replace("application/json", "application/cbor"),
        ] {
            requests.extend(["/api", "/apis", "/apis/"].map(|path| accepting(path, accept)));
        }
        let mut proxied = aggregated("/apis");
        proxied.headers_mut().insert("x-kubernetes-peer-proxied", HeaderValue::from_static("true"));
        requests.push(proxied);
        for http in BOTH {
            for asked in &requests {
                // A stand-in's answer to HEAD is not valid HTTP/2, which the proxy speaks with it.
                if asked.method() == "HEAD" {
                    continue;
                }
                let what = format!("{} {} {:?} over {http:?}", asked.method(), asked.uri(), asked.headers());
                let straight = alice.ask(cluster.old.standin.addr, http, asked.clone()).await;
                let through = alice.ask(cluster.old.proxy.address, http, asked.clone()).await;
                assert_eq!(straight.status, through.status, "{what}");
                assert_eq!(names(&straight), names(&through), "{what}");
                assert_eq!(straight.header("content-type"), through.header("content-type"), "{what}");
                assert_eq!(straight.text(), through.text(), "{what}");
            }
        }
    });
}

#[test]
fn accept_headers_choose_the_merged_document_as_they_choose_the_servers_own() {
    bounded(async {
        let cluster = Cluster::start().await;
        let alice = Caller::alice(&cluster.pki);
        let merged = alice.ask(cluster.old.proxy.address, Http::Two, aggregated("/apis")).await;
        for accept in [
            format!("{AGGREGATED},application/json"),
            format!("application/json,{AGGREGATED};q=0.1"),
            format!("{AGGREGATED},application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"),
            AGGREGATED.replace(';', "; "),
            format!("{AGGREGATED};profile=unknown"),
        ] {
            for http in BOTH {
                let straight = alice.ask(cluster.old.standin.addr, http, accepting("/apis", &accept)).await;
                let through = alice.ask(cluster.old.proxy.address, http, accepting("/apis", &accept)).await;
                assert_eq!(straight.header("content-type"), through.header("content-type"), "{accept}");
                let aggregated = straight.header("content-type").contains("APIGroupDiscoveryList");
                assert_eq!(through.text() == merged.text(), aggregated, "{accept}");
            }
        }
    });
}

#[test]
fn a_resource_that_the_new_server_gains_appears_through_the_old_one_within_2_s() {
    bounded(async {
        let api = only_new_serves();
        let without = load("v1.36-all").without_resource(&api.group, &api.version, &api.resource);
        let cluster = Cluster::start_with(load("v1.34"), without, &[]).await;
        let alice = Caller::alice(&cluster.pki);
        let mut session = alice.connect(cluster.old.proxy.address, Http::Two).await;
        assert_eq!(session.get(&api.path()).await.status, 404);

        let begin = Instant::now();
        cluster.new.standin.set_documents(load("v1.36-all"));
        eventually("the new resource is rerouted and listed", async || {
            let answer = session.get(&api.path()).await;
            ensure(answer.status == 200, || answer.text())?;
            let listed = served_by(&alice, cluster.old.proxy.address).await?;
            ensure(listed.values().any(|one| *one == api), || "rerouted but not listed".to_owned())
        })
        .await;
        assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    });
}

#[test]
fn nothing_vanishes_when_a_peer_stops() {
    bounded(async {
        let cluster = Cluster::start().await;
        let alice = Caller::alice(&cluster.pki);
        let old = cluster.old;
        let before: Vec<_> = futures_util::future::join_all(
            PATHS.map(|path| alice.ask(old.proxy.address, Http::Two, aggregated(path))),
        )
        .await;
        let failed = async || {
            let metrics = old.proxy.metrics().await;
            metrics.sum("apiserver_peer_discovery_sync_errors_total", &[("type", "fetch_discovery")])
        };
        let failures = failed().await;
        cluster.new.standin.stop().await.unwrap();
        eventually("several rounds of discovery have failed", async || {
            let now = failed().await;
            ensure(now >= failures + 5, || format!("{} failures", now - failures))
        })
        .await;
        for (path, before) in PATHS.into_iter().zip(before) {
            let after = alice.ask(old.proxy.address, Http::Two, aggregated(path)).await;
            assert_eq!(before.text(), after.text(), "{path}");
        }
        // What is known to be served elsewhere is unavailable, which is not the same as not there.
        let answer = alice.get(old.proxy.address, Http::Two, &only_new_serves().path()).await;
        assert_eq!(answer.status, 503, "{}", answer.text());
    });
}

/// It says all there is, so that nothing had to be merged before its own discovery, as long as it answers.
#[test]
fn nothing_vanishes_when_the_server_stops_that_has_everything() {
    bounded(async {
        let cluster = Cluster::start().await;
        let (alice, new) = (Caller::alice(&cluster.pki), cluster.new);
        let api = only_new_serves();
        let version = format!("/apis/{}/{}", api.group, api.version);
        let ask = async || {
            let asked = [
                alice.ask(new.proxy.address, Http::Two, aggregated("/apis")).await,
                alice.get(new.proxy.address, Http::Two, "/apis").await,
                alice.get(new.proxy.address, Http::Two, &version).await,
            ];
            asked.map(|answer| {
                assert_eq!(answer.status, 200, "{}", answer.text());
                assert!(answer.text().contains(&api.group), "less: {}", answer.text());
                answer.json().unwrap()
            })
        };
        let before = ask().await;
        new.standin.stop().await.unwrap();
        assert_eq!(before, ask().await);
    });
}

fn names(answer: &Answer) -> Vec<String> {
    let mut names: Vec<String> = answer.headers.iter().map(|(name, _)| name.to_string()).collect();
    names.sort();
    names
}

/// A proxy that starts or restarts is of no use before it knows what its own server serves.
#[test]
fn every_server_is_asked_at_once_and_then_once_in_an_interval() {
    /// What the first question to the local server once waited for.
    const TOO_LATE: Duration = Duration::from_millis(500);
    bounded(async {
        let (pki, store) = (Pki::generate().unwrap(), Store::in_memory());
        let mut soonest = TOO_LATE;
        for _ in 0..3 {
            let (local, serving) = standin(&pki, &store, "local", load("v1.34")).await;
            let (peer, _) = standin(&pki, &store, "peer", load("v1.34")).await;
            let begun = Instant::now();
            let proxy = Proxy::start(&ProxyOptions {
                pki: &pki,
                serving: &serving,
                local: local.addr,
                peers: &[peer.addr],
                flags: &["--discovery-interval=1h"],
            });
            let asked =
                |server: &Standin| server.requests().iter().filter(|seen| seen.target == "/apis").count();
            eventually("both are asked", async || {
                ensure(asked(&local) > 0 && asked(&peer) > 0, || "not yet".to_owned())
            })
            .await;
            soonest = soonest.min(begun.elapsed());
            proxy.ready().await;
            // Time for a question too many.
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert_eq!([asked(&local), asked(&peer)], [1, 1]);
        }
        println!("both servers were asked {soonest:?} after the start");
        assert!(soonest < TOO_LATE);
    });
}
