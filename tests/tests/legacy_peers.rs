//! A peer without aggregated discovery has to be asked for each group version, and each answer may be anything.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod site_support;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{Request, Response};
use hyper::body::Incoming;
use mvproxy_tests::standin::{Aggregation, Documents, Fault};
use serde_json::json;
use site_support::{Site, knows};
use support::{
    Body, Cluster, Http, Proxy, ProxyOptions, Upstream, aggregated, bounded, ensure, eventually,
    only_new_serves, whole,
};

fn load(name: &str) -> Documents {
    Documents::load(name).unwrap()
}

fn legacy(name: &str) -> Documents {
    load(name).with_aggregation(Aggregation::Absent)
}

async fn status(site: &Site, proxy: &Proxy, path: &str) -> u16 {
    site.admin().get(proxy.address, Http::Two, path).await.status.as_u16()
}

async fn becomes(site: &Site, proxy: &Proxy, path: &str, wanted: u16) {
    eventually(&format!("{path} is answered with {wanted}"), async || {
        let status = status(site, proxy, path).await;
        ensure(status == wanted, || status.to_string())
    })
    .await;
}

#[test]
fn a_group_that_could_not_be_asked_for_is_not_one_that_nobody_serves() {
    bounded(async {
        let (site, api) = (Site::start(load("v1.34")).await, only_new_serves());
        let peer = site.peer(0, legacy("v1.36-all")).await;
        let group_version = format!("/apis/{}/{}", api.group, api.version);
        peer.faults().inject_at(Fault::InternalError, &group_version, usize::MAX);
        let proxy = site.proxy(&[]);
        proxy.ready().await;
        let labels = [("type", "fetch_discovery"), ("reason", "status")];
        eventually("the peer was asked in vain", async || {
            let failures = proxy.metrics().await.sum("apiserver_peer_discovery_sync_errors_total", &labels);
            ensure(failures >= 1, || failures.to_string())
        })
        .await;
        assert_eq!(status(&site, &proxy, &api.path()).await, 503, "nobody knows");
        peer.faults().clear();
        becomes(&site, &proxy, &api.path(), 200).await;

        // Nor does it cease to exist later, or anything else appear of an answer that is not whole.
        peer.faults().inject_at(Fault::InternalError, &group_version, usize::MAX);
        peer.set_documents(legacy("v1.36-all").with_resource("example.com", "v1", "widgets", "Widget"));
        let before = proxy.metrics().await.sum("apiserver_peer_discovery_sync_errors_total", &labels);
        eventually("the peer was asked again", async || {
            let failures = proxy.metrics().await.sum("apiserver_peer_discovery_sync_errors_total", &labels);
            ensure(failures > before, || failures.to_string())
        })
        .await;
        assert_eq!(status(&site, &proxy, &api.path()).await, 200);
        peer.faults().clear();
        becomes(&site, &proxy, "/apis/example.com/v1/namespaces/default/widgets", 200).await;
    });
}

#[test]
fn an_aggregated_api_whose_server_is_away_keeps_its_resources_and_hides_no_others() {
    bounded(async {
        let site = Site::start(load("v1.34")).await;
        let metrics =
            |documents: Documents| documents.with_resource("metrics.k8s.io", "v1beta1", "pods", "PodMetrics");
        let peer = site.peer(0, metrics(legacy("v1.36-all"))).await;
        let proxy = site.proxy(&[]);
        knows(&proxy, &[site.peer_address(0)]).await;
        becomes(&site, &proxy, "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods", 200).await;
        peer.faults().inject_at(Fault::ShuttingDown, "/apis/metrics.k8s.io/v1beta1", usize::MAX);
        peer.set_documents(metrics(legacy("v1.36-all")).with_resource(
            "example.com",
            "v1",
            "widgets",
            "Widget",
        ));
        becomes(&site, &proxy, "/apis/example.com/v1/namespaces/default/widgets", 200).await;
        assert_eq!(status(&site, &proxy, "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods").await, 200);
        let merged = site.admin().ask(proxy.address, Http::Two, aggregated("/apis")).await.json().unwrap();
        let groups = merged["items"].as_array().unwrap();
        let group = groups.iter().find(|one| one["metadata"]["name"] == "metrics.k8s.io").unwrap();
        assert_eq!(group["versions"][0]["freshness"], "Stale", "{group}");
    });
}

/// Each of its documents is small enough. All of them would be half a gigabyte.
#[test]
fn many_documents_together_have_the_bounds_of_one() {
    const GROUPS: usize = 500;
    bounded(async {
        let cluster = Cluster::start().await;
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let peer = Upstream::start(&cluster.new.serving, move |request: Request<Incoming>| {
            let body = match request.uri().path() {
                "/api" => json!({"kind": "APIVersions", "versions": []}).to_string(),
                "/apis" => {
                    let group =
                        |number| json!({"name": format!("g{number}"), "versions": [{"version": "v1"}]});
                    let groups: Vec<_> = (0..GROUPS).map(group).collect();
                    json!({"kind": "APIGroupList", "groups": groups}).to_string()
                }
                path if path.starts_with("/apis/") => {
                    counted.fetch_add(1, Ordering::Relaxed);
                    format!("{{\"kind\":\"APIResourceList\",\"resources\":[]{}}}", " ".repeat(1 << 20))
                }
                _ => json!({"gitVersion": "v1.25.0"}).to_string(),
            };
            async move { json_answer(whole(body)) }
        })
        .await;
        let proxy = Proxy::start(&ProxyOptions {
            pki: &cluster.pki,
            serving: &cluster.old.serving,
            local: cluster.old.standin.addr,
            peers: &[peer.address],
            flags: &["--discovery-interval=1h"],
        });
        let labels = [("type", "fetch_discovery"), ("reason", "too_large")];
        eventually("it is too much", async || {
            let counted = proxy.metrics().await.sum("apiserver_peer_discovery_sync_errors_total", &labels);
            ensure(counted == 1, || format!("{counted} after {asked:?}"))
        })
        .await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let asked = asked.load(Ordering::Relaxed);
        assert!(asked <= 32, "{asked} of {GROUPS} documents were asked for: 16 are enough");
    });
}

fn json_answer(body: Body) -> Response<Body> {
    Response::builder().header(CONTENT_TYPE, "application/json").body(body).unwrap()
}
