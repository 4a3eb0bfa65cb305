//! What was deleted stays deleted, whatever a peer last said; what is built into a peer is not concerned.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod site_support;
mod support;

use std::time::{Duration, Instant};

use mvproxy_tests::standin::{Documents, Fault, Standin};
use mvproxy_tests::store::Key;
use serde_json::{Value, json};
use site_support::{Log, Site, knows};
use support::{Http, Proxy, aggregated, bounded, ensure, eventually, only_new_serves};
use tokio::time::sleep;

/// A group that both servers have built in, and in which somebody defined a resource more.
const GROUP: &str = "events.k8s.io";
const WIDGETS: &str = "widgets.events.k8s.io";
const WIDGETS_PATH: &str = "/apis/events.k8s.io/v1/namespaces/default/widgets";

fn load(name: &str) -> Documents {
    Documents::load(name).unwrap()
}

fn with_widgets(name: &str) -> Documents {
    load(name).with_resource(GROUP, "v1", "widgets", "Widget")
}

/// The old server before a proxy, a newer one elsewhere, and what clients see.
struct World {
    site: Site,
    peer: Option<Standin>,
    proxy: Proxy,
}

impl World {
    /// Both serve widgets; events of the group are built into the peer only.
    async fn start(flags: &[&str]) -> Self {
        let site = Site::start(with_widgets("v1.34").without_resource(GROUP, "v1", "events")).await;
        let peer = site.peer(0, with_widgets("v1.36-all")).await;
        site.objects().define(WIDGETS, 1).await;
        let proxy = site.proxy(flags);
        knows(&proxy, &[site.peer_address(0)]).await;
        let world = Self { site, peer: Some(peer), proxy };
        world.proxy.ready().await;
        assert_eq!(world.status(WIDGETS_PATH).await, 200);
        // Until its watches are up.
        eventually("definitions are watched", async || {
            ensure(is_watched(&world.site, "customresourcedefinitions"), || "not yet".to_owned())
        })
        .await;
        world
    }

    fn local(&self) -> &Standin {
        self.site.local.as_ref().unwrap()
    }

    async fn status(&self, path: &str) -> u16 {
        self.site.admin().get(self.proxy.address, Http::Two, path).await.status.as_u16()
    }

    /// Whether the merged document lists widgets.
    async fn lists_widgets(&self) -> bool {
        let answer = self.site.admin().ask(self.proxy.address, Http::Two, aggregated("/apis")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.text().contains("\"resource\":\"widgets\"")
    }

    /// Deletes the definition; the local server hears of it, the peer does not.
    async fn delete(&self) {
        self.site.objects().undefine(WIDGETS).await;
        self.local().set_documents(load("v1.34").without_resource(GROUP, "v1", "events"));
    }

    async fn is_gone(&self) -> Duration {
        let begin = Instant::now();
        eventually("widgets are gone", async || {
            let status = self.status(WIDGETS_PATH).await;
            ensure(status == 404 && !self.lists_widgets().await, || status.to_string())
        })
        .await;
        begin.elapsed()
    }
}

/// Whether somebody watches this resource at the local server.
fn is_watched(site: &Site, resource: &str) -> bool {
    let requests = site.local.as_ref().unwrap().requests();
    requests.iter().any(|one| one.target.contains(resource) && one.target.contains("watch=true"))
}

#[test]
fn a_deleted_resource_is_gone_at_once_although_a_peer_still_lists_it() {
    bounded(async {
        let world = World::start(&[]).await;
        world.delete().await;
        let took = world.is_gone().await;
        assert!(took < Duration::from_secs(1), "{took:?}");
        // The peer goes on saying that it serves widgets; it is asked all the while.
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(3) {
            assert!(!world.lists_widgets().await);
            assert_eq!(world.status(WIDGETS_PATH).await, 404);
            let events = world.status("/apis/events.k8s.io/v1/namespaces/default/events").await;
            assert_eq!(events, 200, "built into the peer, in the same group and version");
            assert_eq!(world.status(&only_new_serves().path()).await, 200);
            sleep(Duration::from_millis(50)).await;
        }
        let to_peer = world.peer.as_ref().unwrap().requests();
        let rerouted = to_peer.iter().filter(|one| one.target == WIDGETS_PATH).count();
        assert_eq!(rerouted, 0, "nothing that was deleted is asked for elsewhere");

        world.site.objects().define(WIDGETS, 1).await;
        eventually("it is back, at the peer first", async || {
            let status = world.status(WIDGETS_PATH).await;
            ensure(status == 200 && world.lists_widgets().await, || status.to_string())
        })
        .await;
    });
}

/// The peer is down, so nobody can ask it again: the truth is what was deleted, not what it said last.
#[test]
fn a_deleted_resource_does_not_come_back_through_a_dead_peer_or_a_restart() {
    bounded(async {
        let mut world = World::start(&[]).await;
        let folder = world.site.folder("state");
        let state = format!("--state-dir={folder}");
        let mut before = world.site.proxy(&[&state]);
        knows(&before, &[world.site.peer_address(0)]).await;
        eventually("what is known is written down", async || {
            let written = std::fs::read_to_string(format!("{folder}/peers.json"));
            let is_whole = |text: &String| text.contains("widgets") && text.contains("\"Resource\"");
            ensure(written.as_ref().is_ok_and(is_whole), || format!("{:?}", written.is_ok()))
        })
        .await;
        before.drain();
        before.ended().await.unwrap();
        drop(world.peer.take());
        eventually("the peer's death is noticed", async || {
            let status = world.status(&only_new_serves().path()).await;
            ensure(status == 503, || status.to_string())
        })
        .await;
        world.delete().await;
        let took = world.is_gone().await;
        assert!(took < Duration::from_secs(1), "{took:?}");

        // A proxy that was down when it was deleted.
        world.proxy = world.site.proxy(&[&state]);
        world.proxy.ready().await;
        world.is_gone().await;
        assert_eq!(world.status(&only_new_serves().path()).await, 503, "what is built in is remembered");
        sleep(Duration::from_secs(1)).await;
        assert!(!world.lists_widgets().await);
    });
}

#[test]
fn without_the_right_to_watch_definitions_a_deletion_is_noticed_when_servers_are_asked() {
    bounded(async {
        let (log, _listening) = Log::listen();
        let world = World::start(&[]).await;
        world.local().faults().inject(Fault::Forbidden, "customresourcedefinitions", usize::MAX);
        let blind = World { proxy: world.site.proxy(&[]), ..world };
        knows(&blind.proxy, &[blind.site.peer_address(0)]).await;
        blind.proxy.ready().await;
        eventually("it is said", async || {
            let said = log.lines(&["CustomResourceDefinitions", "no right"]);
            ensure(said.len() == 1, || format!("{said:?}"))
        })
        .await;
        blind.delete().await;
        blind.peer.as_ref().unwrap().set_documents(load("v1.36-all"));
        blind.is_gone().await;
        sleep(Duration::from_secs(2)).await;
        assert_eq!(log.lines(&["CustomResourceDefinitions", "no right"]).len(), 1, "once");
    });
}

/// What it described last stays while it is down, but for what was deleted.
#[test]
fn a_deleted_resource_does_not_stay_in_openapi_through_a_dead_peer() {
    bounded(async {
        let mut world = World::start(&[]).await;
        let describes = async |widgets: bool| {
            let answer = world.site.admin().get(world.proxy.address, Http::Two, "/openapi/v2").await;
            let text = answer.text();
            let has = [
                text.contains("/widgets"),
                text.contains("v1.Widget"),
                text.contains(&only_new_serves().kind),
            ];
            ensure(has == [widgets, widgets, true], || format!("{has:?}"))
        };
        eventually("both are described", async || describes(true).await).await;
        drop(world.peer.take());
        world.delete().await;
        eventually("only what is left is described", async || describes(false).await).await;
    });
}

/// A snapshot is made of all that all servers serve, which can be much.
#[test]
fn definitions_that_come_together_make_few_snapshots() {
    bounded(async {
        let (log, _listening) = Log::listen();
        let world = World::start(&["--discovery-interval=1h"]).await;
        sleep(Duration::from_secs(3)).await;
        let before = log.lines(&["discovery snapshot"]).len();
        let begin = Instant::now();
        for number in 0..300 {
            world.site.objects().define(&format!("things{number}.example.com"), 1).await;
            sleep(Duration::from_millis(1)).await;
        }
        world.delete().await;
        world.is_gone().await;
        let tenths = usize::try_from(begin.elapsed().as_millis() / 100).unwrap();
        let made = log.lines(&["discovery snapshot"]).len() - before;
        assert!(made >= 1 && made <= tenths + 2, "{made} snapshots in {:?}", begin.elapsed());
    });
}

/// Each server makes and deletes the `APIServices` of what is built into itself: an old one that starts deletes those of a
/// newer one, which serves them all the same.
#[test]
fn only_deleted_aggregated_apis_are_gone_and_not_what_a_server_keeps_by_itself() {
    bounded(async {
        let api = only_new_serves();
        let documents = || {
            let metrics =
                load("v1.36-all").with_resource("metrics.k8s.io", "v1beta1", "nodes", "NodeMetrics");
            metrics.with_resource("metrics.k8s.io", "v1beta1", "pods", "PodMetrics")
        };
        let site = Site::start(load("v1.34")).await;
        let peer = site.peer(0, documents()).await;
        let objects = site.objects();
        let key = |name: &str| Key::new("apiregistration.k8s.io", "apiservices", "", name);
        let built_in = format!("{}.{}", api.version, api.group);
        let onstart = json!({"kube-aggregator.kubernetes.io/automanaged": "onstart"});
        objects.put(&key("v1beta1.metrics.k8s.io"), service("v1beta1.metrics.k8s.io", &json!({}))).await;
        objects.put(&key(&built_in), service(&built_in, &onstart)).await;
        let proxy = site.proxy(&[]);
        knows(&proxy, &[site.peer_address(0)]).await;
        let get = async |path: &str| site.admin().get(proxy.address, Http::Two, path).await.status.as_u16();
        let metrics = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods";
        eventually("both are rerouted, and services watched", async || {
            let statuses = [get(metrics).await, get(&api.path()).await];
            let watches = is_watched(&site, "apiservices");
            ensure(statuses == [200, 200] && watches, || format!("{statuses:?}"))
        })
        .await;
        objects.delete(&key(&built_in)).await;
        objects.delete(&key("v1beta1.metrics.k8s.io")).await;
        let begin = Instant::now();
        eventually("the aggregated API is gone", async || {
            let status = get(metrics).await;
            ensure(status == 404, || status.to_string())
        })
        .await;
        assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(2) {
            assert_eq!([get(metrics).await, get(&api.path()).await], [404, 200]);
            sleep(Duration::from_millis(50)).await;
        }
        drop(peer);
    });
}

fn service(name: &str, labels: &Value) -> Value {
    json!({"metadata": {"name": name, "uid": name, "labels": labels}})
}
