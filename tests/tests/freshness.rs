//! What peers serve is known soon after it changes, and not forgotten because somebody is away for a moment.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod site_support;
mod support;

use std::time::{Duration, Instant};

use http::StatusCode;
use mvproxy_tests::standin::{Aggregation, Documents};
use mvproxy_tests::store::Key;
use serde_json::Value;
use site_support::{Log, Site, knows, lease, questions};
use support::{
    Api, Caller, Http, Proxy, admin_get, aggregated, bounded, ensure, eventually, only_new_serves,
};
use tokio::time::sleep;

const RARELY: &str = "--discovery-interval=1h";

fn load(name: &str) -> Documents {
    Documents::load(name).unwrap()
}

/// v1.36 without what only it serves.
fn lacking() -> Documents {
    let api = only_new_serves();
    load("v1.36-all").without_resource(&api.group, &api.version, &api.resource)
}

/// What one client sees through a proxy.
struct View<'a> {
    proxy: &'a Proxy,
    admin: Caller,
}

impl View<'_> {
    /// The answer to a list of what only v1.36 serves.
    async fn status(&self) -> StatusCode {
        self.admin.get(self.proxy.address, Http::Two, &only_new_serves().path()).await.status
    }

    /// The merged document's tag, and whether it lists what only v1.36 serves.
    async fn merged(&self) -> (String, bool) {
        let answer = self.admin.ask(self.proxy.address, Http::Two, aggregated("/apis")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        (answer.header("etag").to_owned(), lists(&answer.json().unwrap(), &only_new_serves()))
    }

    /// Waits until it is routed and listed; how long that took.
    async fn appears(&self) -> Duration {
        let begin = Instant::now();
        eventually("the resource is routed and listed", async || {
            let status = self.status().await;
            ensure(status == 200, || status.to_string())?;
            ensure(self.merged().await.1, || "routed but not listed".to_owned())
        })
        .await;
        begin.elapsed()
    }

    async fn disappears(&self) -> Duration {
        let begin = Instant::now();
        eventually("the resource is not listed", async || {
            ensure(!self.merged().await.1, || "it is".to_owned())
        })
        .await;
        begin.elapsed()
    }
}

/// Whether a document lists a resource in its group and version.
fn lists(document: &Value, api: &Api) -> bool {
    let named = |list: &Value, key: &str, name: &str| {
        let items = list.as_array().into_iter().flatten();
        items.clone().find(|item| item.pointer(key).is_some_and(|found| found == name)).cloned()
    };
    named(&document["items"], "/metadata/name", &api.group)
        .and_then(|group| named(&group["versions"], "/version", &api.version))
        .and_then(|version| named(&version["resources"], "/resource", &api.resource))
        .is_some()
}

#[test]
fn a_new_api_of_a_peer_is_known_within_six_seconds_at_the_default_interval() {
    bounded(async {
        let site = Site::start(load("v1.34")).await;
        let peer = site.peer(0, lacking()).await;
        let proxy = site.proxy(&["--discovery-interval=5s"]);
        knows(&proxy, &[site.peer_address(0)]).await;
        let view = View { proxy: &proxy, admin: site.admin() };
        assert_eq!((view.status().await.as_u16(), view.merged().await.1), (404, false));
        // Everybody is asked more often while the proxy finds its way.
        sleep(Duration::from_secs(1)).await;
        peer.set_documents(load("v1.36-all"));
        let took = view.appears().await;
        assert!(took < Duration::from_secs(6), "{took:?}");
    });
}

/// With an annotation the Lease says whose it is; without one, as before 1.36, everybody is asked.
#[test]
fn a_new_api_is_known_within_a_second_after_the_lease_of_its_server_changed() {
    bounded(async {
        for announced in [true, false] {
            let site = Site::start(load("v1.34")).await;
            let peer = site.peer(0, lacking()).await;
            let address = if announced { site.peer_address(0).to_string() } else { String::new() };
            let mut identity = lease("apiserver-x", "peer-x", &address, Duration::ZERO);
            let objects = site.objects();
            objects.put_lease("kube-system", identity.clone()).await;
            let proxy = site.proxy(&[RARELY]);
            knows(&proxy, &[site.peer_address(0)]).await;
            let view = View { proxy: &proxy, admin: site.admin() };
            assert_eq!(view.status().await, 404);
            peer.set_documents(load("v1.36-all"));
            sleep(Duration::from_millis(500)).await;
            assert!(!view.merged().await.1, "nobody asks out of turn without a reason");
            identity["spec"]["holderIdentity"] = "apiserver-x_anew".into();
            objects.put_lease("kube-system", identity).await;
            let took = view.appears().await;
            assert!(took < Duration::from_secs(1), "{took:?}, announced: {announced}");
        }
    });
}

#[test]
fn a_renewed_lease_is_no_reason_to_ask() {
    bounded(async {
        let site = Site::start(load("v1.34")).await;
        let peer = site.peer(0, lacking()).await;
        let (objects, address) = (site.objects(), site.peer_address(0).to_string());
        let proxy = site.proxy(&[RARELY]);
        knows(&proxy, &[site.peer_address(0)]).await;
        objects.put_lease("kube-system", lease("x", "h", &address, Duration::ZERO)).await;
        sleep(Duration::from_millis(500)).await;
        let asked = questions(&peer);
        for ago in (0..10).rev() {
            objects.put_lease("kube-system", lease("x", "h", &address, Duration::from_secs(ago))).await;
            sleep(Duration::from_millis(50)).await;
        }
        sleep(Duration::from_millis(500)).await;
        assert_eq!(questions(&peer), asked);
    });
}

#[test]
fn a_server_that_comes_back_as_another_version_is_asked_at_once() {
    bounded(async {
        let site = Site::start(load("v1.34")).await;
        let peer = site.peer(0, lacking()).await;
        let (log, _listening) = Log::listen();
        // Without anything that tells of restarts: only its health is watched.
        let proxy = site.proxy_of(site.local_address(), &[site.peer_address(0)], &[RARELY, "--kubeconfig="]);
        knows(&proxy, &[site.peer_address(0)]).await;
        let view = View { proxy: &proxy, admin: site.admin() };
        drop(peer);
        eventually("its death is noticed", async || {
            let noticed =
                log.lines(&["condition changed", "healthy=false", &site.peer_address(0).to_string()]);
            ensure(!noticed.is_empty(), || "not yet".to_owned())
        })
        .await;
        let _anew = site.peer(0, load("v1.36-all")).await;
        let took = view.appears().await;
        assert!(took < Duration::from_secs(4), "{took:?}");
    });
}

#[test]
fn a_promise_that_a_peer_does_not_keep_has_it_asked_at_once() {
    bounded(async {
        let site = Site::start(load("v1.34")).await;
        let peer = site.peer(0, load("v1.36-all")).await;
        let proxy = site.proxy(&[RARELY]);
        knows(&proxy, &[site.peer_address(0)]).await;
        let view = View { proxy: &proxy, admin: site.admin() };
        view.appears().await;
        peer.set_documents(lacking());
        sleep(Duration::from_millis(300)).await;
        assert!(view.merged().await.1, "nobody has noticed yet");
        assert_eq!(view.status().await, 404);
        let took = view.disappears().await;
        assert!(took < Duration::from_secs(1), "{took:?}");

        // That one object is not there is no such promise.
        let asked = questions(&peer);
        let admin = site.admin();
        for _ in 0..20 {
            let answer =
                admin.get(proxy.address, Http::Two, "/api/v1/namespaces/default/configmaps/none").await;
            assert_eq!(answer.status, 404);
        }
        sleep(Duration::from_millis(300)).await;
        assert_eq!(questions(&peer), asked);
    });
}

#[test]
fn servers_with_older_discovery_are_known_too() {
    bounded(async {
        for aggregation in [Aggregation::V2Beta1, Aggregation::Absent] {
            let site = Site::start(load("v1.34")).await;
            let peer = site.peer(0, load("v1.36-all").with_aggregation(aggregation)).await;
            let proxy = site.proxy(&["--discovery-interval=300ms"]);
            knows(&proxy, &[site.peer_address(0)]).await;
            let view = View { proxy: &proxy, admin: site.admin() };
            view.appears().await;
            let merged = view.merged().await.0;
            let asked = questions(&peer);
            eventually("it was asked again", async || {
                ensure(questions(&peer) >= asked + 4, || "not yet".to_owned())
            })
            .await;
            assert_eq!(
                view.merged().await.0,
                merged,
                "{aggregation:?}: the same answers make the same document"
            );
            peer.set_documents(lacking().with_aggregation(aggregation));
            view.disappears().await;
            assert_eq!(view.status().await, 404);
        }
    });
}

#[test]
fn a_killed_peer_takes_nothing_away_before_its_time() {
    bounded(async {
        let site = Site::start(load("v1.34")).await;
        let peer = site.peer(0, load("v1.36-all")).await;
        let proxy = site.proxy(&["--peer-stale-after=4s"]);
        knows(&proxy, &[site.peer_address(0)]).await;
        let view = View { proxy: &proxy, admin: site.admin() };
        view.appears().await;
        let merged = view.merged().await;
        let killed = Instant::now();
        drop(peer);
        while killed.elapsed() < Duration::from_millis(3500) {
            assert_eq!(view.merged().await, merged, "after {:?}", killed.elapsed());
            assert_eq!(view.status().await, 503, "after {:?}", killed.elapsed());
            sleep(Duration::from_millis(100)).await;
        }
        view.disappears().await;
        // It is still in the slice: a server of which nobody can say what it serves.
        assert_eq!(view.status().await, 503);
        let objects = site.objects();
        let own = [(site.local_address(), None)];
        objects.delete(&Key::new("discovery.k8s.io", "endpointslices", "default", "kubernetes")).await;
        objects.put_slice("own", "IPv4", &own).await;
        eventually("nobody is left who could serve it", async || {
            let status = view.status().await;
            ensure(status == 404, || status.to_string())
        })
        .await;
    });
}

/// Whoever may write Leases can have one run out. What is listed otherwise is not known less by that.
#[test]
fn a_lease_that_runs_out_takes_nothing_away() {
    bounded(async {
        let site = Site::start(load("v1.34")).await;
        let peer = site.peer(0, load("v1.36-all")).await;
        let (objects, address) = (site.objects(), site.peer_address(0).to_string());
        let range = mvproxy_tests::store::Range {
            resource: Some(("coordination.k8s.io".to_owned(), "leases".to_owned())),
            ..Default::default()
        };
        for entry in site.store.list(&range).await.unwrap().entries {
            objects.delete(&entry.key).await;
        }
        // Good for six seconds.
        let mut forged = lease("apiserver-forged", "h", &address, Duration::from_secs(54));
        forged["spec"]["leaseDurationSeconds"] = 1.into();
        objects.put_lease("kube-system", forged).await;
        let proxy = site.proxy(&[]);
        knows(&proxy, &[site.peer_address(0)]).await;
        let view = View { proxy: &proxy, admin: site.admin() };
        view.appears().await;
        drop(peer);
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(13) {
            assert!(view.merged().await.1, "after {:?}", begin.elapsed());
            sleep(Duration::from_millis(250)).await;
        }
    });
}

#[test]
fn peers_that_come_and_go_each_second_change_nothing_in_merged_discovery() {
    bounded(async {
        let site = Site::start(load("v1.34")).await;
        let mut peer = Some(site.peer(0, load("v1.36-all")).await);
        let proxy = site.proxy(&[]);
        knows(&proxy, &[site.peer_address(0)]).await;
        let view = View { proxy: &proxy, admin: site.admin() };
        view.appears().await;
        let merged = view.merged().await;
        for round in 0..5 {
            // In turn killed and stopped in order, which takes Lease and endpoint away.
            let gone = peer.take().unwrap();
            if round % 2 == 0 {
                drop(gone);
            } else {
                gone.stop().await.unwrap();
            }
            unchanged_for_a_second(&view, &merged).await;
            peer = Some(site.peer(0, load("v1.36-all")).await);
            unchanged_for_a_second(&view, &merged).await;
        }
        eventually("it is reached again", async || {
            let status = view.status().await;
            ensure(status == 200, || status.to_string())
        })
        .await;
    });
}

async fn unchanged_for_a_second(view: &View<'_>, merged: &(String, bool)) {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(1) {
        assert_eq!(view.merged().await, *merged);
        let status = view.status().await;
        assert!([200, 503].contains(&status.as_u16()), "{status}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Not only what it serves, but who is a peer.
#[test]
fn a_server_that_leaves_in_order_is_remembered_as_long_as_one_that_is_killed() {
    bounded(async {
        let site = Site::start(load("v1.34")).await;
        let peer = site.peer(0, load("v1.36-all")).await;
        let proxy = site.proxy(&["--peer-stale-after=3s"]);
        knows(&proxy, &[site.peer_address(0)]).await;
        let view = View { proxy: &proxy, admin: site.admin() };
        view.appears().await;
        peer.stop().await.unwrap();
        let left = Instant::now();
        while left.elapsed() < Duration::from_millis(2500) {
            assert_eq!(view.status().await, 503, "after {:?}", left.elapsed());
            assert!(view.merged().await.1);
            sleep(Duration::from_millis(100)).await;
        }
        eventually("it is forgotten", async || {
            let status = view.status().await;
            ensure(status == 404 && !view.merged().await.1, || status.to_string())
        })
        .await;
    });
}

/// Most upgrades change nothing but the version, and all tags stay as they are.
#[test]
fn an_upgrade_that_changes_no_document_is_known_too() {
    bounded(async {
        let site = Site::start(load("v1.34")).await;
        let peer = site.peer(0, load("v1.35")).await;
        let proxy = site.proxy(&[]);
        knows(&proxy, &[site.peer_address(0)]).await;
        let says = async |version: &str| {
            eventually("the peer's version is known", async || {
                let (_, skew) = admin_get(proxy.admin, "/skew").await?;
                ensure(skew.contains(version), || skew.chars().take(300).collect())
            })
            .await;
        };
        says("v1.36.2").await;
        let version = r#"{"gitVersion": "v1.36.3"}"#.to_owned();
        peer.set_documents(load("v1.35").with_version_info(version));
        says("v1.36.3").await;
    });
}
