//! A peer that answers with anything at all costs little, is told of once, and what was merged before stays.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use http::{Request, Response};
use hyper::body::Incoming;
use mvproxy_tests::client::Answer;

use super::site_support::Log;
use super::support::{
    Body, Caller, Cluster, Http, Proxy, ProxyOptions, Upstream, aggregated, bounded, breaking, endless,
    ensure, eventually, only_new_serves, whole,
};
use super::{PATH, PROTOBUF, asking, load};

/// Makes an answer to `/openapi/v2` in JSON, and in protobuf.
type Trick = Arc<dyn Fn(bool) -> Response<Body> + Send + Sync>;

/// A peer that is good until it plays a trick.
struct Peer {
    upstream: Upstream,
    trick: Arc<Mutex<Option<Trick>>>,
    proxy: Proxy,
    alice: Caller,
    log: Log,
    _listening: tracing::subscriber::DefaultGuard,
}

impl Peer {
    /// Serves what a v1.36 server serves, to a proxy that has merged it.
    async fn start(cluster: &Cluster) -> Self {
        let (log, listening) = Log::listen();
        let good = Arc::new(good(cluster).await);
        let trick: Arc<Mutex<Option<Trick>>> = Arc::default();
        let played = trick.clone();
        let upstream = Upstream::start(&cluster.new.serving, move |request: Request<Incoming>| {
            let (path, is_json) = (request.uri().path().to_owned(), is_json(&request));
            let trick = played.lock().unwrap().clone().filter(|_| path == PATH);
            let good = good.clone();
            async move {
                let known = good.iter().find(|(known, form, _)| *known == path && *form == is_json);
                trick.map_or_else(|| honest(known.map(|(_, _, answer)| answer)), |trick| trick(is_json))
            }
        })
        .await;
        let proxy = Proxy::start(&ProxyOptions {
            pki: &cluster.pki,
            serving: &cluster.old.serving,
            local: cluster.old.standin.addr,
            peers: &[upstream.address],
            flags: &[],
        });
        let alice = Caller::alice(&cluster.pki);
        super::merged(&proxy, &alice).await;
        Self { upstream, trick, proxy, alice, log, _listening: listening }
    }

    /// Plays a trick until it has been counted as `reason` so often, and checks that nothing comes of it.
    async fn plays(&self, cluster: &Cluster, name: &str, (reason, times): (&str, u64), trick: Trick) {
        *self.trick.lock().unwrap() = Some(trick);
        // Another resource of the local server, so that both are asked.
        let widgets = load("v1.34").with_resource("example.com", "v1", "widgets", "Widget");
        cluster.old.standin.set_documents(widgets);
        let labels = [("type", "fetch_openapi"), ("reason", reason)];
        eventually(&format!("{name} is counted as {reason}"), async || {
            let metrics = self.proxy.metrics().await;
            let counted = metrics.sum("apiserver_peer_discovery_sync_errors_total", &labels);
            let all = metrics.sum("apiserver_peer_discovery_sync_errors_total", &[("type", "fetch_openapi")]);
            ensure(counted >= times, || format!("{counted} of {all}"))
        })
        .await;
        eventually(
            &format!("{name}: the last document is merged with the local server's news"),
            async || {
                let text = self.alice.get(self.proxy.address, Http::Two, PATH).await.text();
                let has = ["com.example.v1.Widget", &only_new_serves().kind].map(|kind| text.contains(kind));
                ensure(has == [true; 2], || format!("{has:?}"))
            },
        )
        .await;
        let told = self.log.lines(&["OpenAPI v2 not fetched", &self.upstream.address.to_string()]);
        assert_eq!(told.len(), 1, "{name} is told of once: {told:?}");
        cluster.old.standin.set_documents(load("v1.34"));
    }
}

/// What the new server answers, by path and by whether JSON is asked for.
async fn good(cluster: &Cluster) -> Vec<(&'static str, bool, Answer)> {
    let admin = Caller::admin(&cluster.pki);
    let mut good = Vec::new();
    for path in ["/api", "/apis", "/version"] {
        good.push((path, true, admin.ask(cluster.new.standin.addr, Http::Two, aggregated(path)).await));
    }
    for (is_json, accept) in [(true, "application/json"), (false, PROTOBUF)] {
        let answer = admin.ask(cluster.new.standin.addr, Http::Two, asking(&[("accept", accept)])).await;
        good.push((PATH, is_json, answer));
    }
    good
}

fn is_json(request: &Request<Incoming>) -> bool {
    request.headers().get(ACCEPT).is_none_or(|accept| accept != PROTOBUF)
}

fn honest(known: Option<&Answer>) -> Response<Body> {
    let Some(known) = known else { return json(whole("{}")) };
    let mut response = Response::new(whole(known.body.clone()));
    *response.headers_mut() = known.headers.clone();
    response.headers_mut().remove(CONTENT_LENGTH);
    response
}

fn json(body: Body) -> Response<Body> {
    Response::builder().header(CONTENT_TYPE, "application/json").body(body).unwrap()
}

fn protobuf(body: Body) -> Response<Body> {
    Response::builder().header(CONTENT_TYPE, PROTOBUF).body(body).unwrap()
}

/// A text in JSON, with something good in protobuf.
fn text(text: impl Into<String>) -> Trick {
    let text = text.into();
    Arc::new(move |is_json| if is_json { json(whole(text.clone())) } else { protobuf(whole("\x0a\x032.0")) })
}

/// Something good in JSON with this in protobuf.
fn bytes(bytes: &'static [u8]) -> Trick {
    Arc::new(
        move |is_json| if is_json { json(whole(r#"{"swagger":"2.0"}"#)) } else { protobuf(whole(bytes)) },
    )
}

const CHUNK: usize = 64 * 1024;
/// What may be on the way when a body is given up: the limit of a document, and windows.
const MOST_CHUNKS: usize = (64 + 4) * 1024 * 1024 / CHUNK;

#[test]
fn bodies_without_end_are_given_up_at_the_limit() {
    bounded(async {
        let cluster = Cluster::start().await;
        let taken = Arc::new(AtomicUsize::new(0));
        let counted = taken.clone();
        let without_end: Trick = Arc::new(move |_| {
            counted.store(0, Ordering::Relaxed);
            json(endless(usize::MAX, counted.clone()))
        });
        Peer::start(&cluster)
            .await
            .plays(&cluster, "a body without end", ("too_large", 1), without_end)
            .await;
        assert!(taken.load(Ordering::Relaxed) <= MOST_CHUNKS, "{taken:?} chunks were taken");

        let counted = taken.clone();
        let announced: Trick = Arc::new(move |_| {
            counted.store(0, Ordering::Relaxed);
            let mut response = json(endless(1 << 14, counted.clone()));
            response.headers_mut().insert(CONTENT_LENGTH, (1_u64 << 30).into());
            response
        });
        Peer::start(&cluster)
            .await
            .plays(&cluster, "an announced gigabyte", ("too_large", 2), announced)
            .await;
        assert!(taken.load(Ordering::Relaxed) <= 4 * 1024 * 1024 / CHUNK, "{taken:?}: it is not begun");
    });
}

async fn each_changes_nothing(tricks: Vec<(&str, &str, Trick)>) {
    let cluster = Cluster::start().await;
    for (name, reason, trick) in tricks {
        Peer::start(&cluster).await.plays(&cluster, name, (reason, 1), trick).await;
    }
}

#[test]
fn answers_that_are_no_documents_by_their_head_change_nothing() {
    bounded(async {
        let torn = |is_json| {
            let mut response =
                if is_json { json(whole(r#"{"swagger":"2.0"}"#)) } else { protobuf(whole("\x0a\x032.0")) };
            response.headers_mut().insert(ETAG, format!("\"{is_json}\"").parse().unwrap());
            response
        };
        let compressed = |_| {
            let mut response = json(endless(usize::MAX, Arc::default()));
            response.headers_mut().insert(CONTENT_ENCODING, "gzip".parse().unwrap());
            response
        };
        let page = |_| Response::builder().header(CONTENT_TYPE, "text/html").body(whole("<p>")).unwrap();
        each_changes_nothing(vec![
            ("an error", "status", Arc::new(|_| Response::builder().status(500).body(whole("{}")).unwrap())),
            ("a web page", "content_type", Arc::new(page)),
            ("a compressed body", "encoding", Arc::new(compressed)),
            ("a body that breaks off", "broken", Arc::new(|_| json(breaking(b"{\"swagger\":")))),
            ("the forms of two documents", "torn", Arc::new(torn)),
        ])
        .await;
    });
}

#[test]
fn answers_that_are_no_documents_by_their_content_change_nothing() {
    bounded(async {
        let names: Vec<String> = (0..300_000).map(|number| format!("\"{number}\":{{}}")).collect();
        let many = format!(r#"{{"swagger":"2.0","paths":{{{}}}}}"#, names.join(","));
        let deep =
            format!(r#"{{"swagger":"2.0","paths":{{"/a":{}{}}}}}"#, "[".repeat(9999), "]".repeat(9999));
        each_changes_nothing(vec![
            ("half a document", "document", text(r#"{"swagger":"2.0","paths":{"/a""#)),
            ("paths in a list", "document", text(r#"{"swagger":"2.0","paths":[{"/a":{}}]}"#)),
            ("great depth", "document", text("[".repeat(1_000_000))),
            ("balanced depth", "document", text(deep)),
            ("many names", "document", text(many)),
            ("JSON for protobuf", "document", bytes(br#"{"swagger":"2.0"}"#)),
        ])
        .await;
    });
}

/// It has half a minute to answer. Others are asked meanwhile, as often as there is reason to.
#[test]
fn a_peer_that_hangs_keeps_nobody_waiting() {
    bounded(async {
        let cluster = Cluster::start().await;
        let alice = Caller::alice(&cluster.pki);
        super::merged(&cluster.old.proxy, &alice).await;
        let hangs = mvproxy_tests::standin::Fault::StallBody { after: 1 };
        cluster.new.standin.faults().inject_at(hangs, PATH, usize::MAX);
        // Another tag, so that there is a body.
        let new = load("v1.36-all").with_resource("example.com", "v1", "gears", "Gear");
        cluster.new.standin.set_documents(new);
        for (resource, kind) in [("widgets", "Widget"), ("gadgets", "Gadget"), ("things", "Thing")] {
            cluster.old.standin.set_documents(load("v1.34").with_resource(
                "example.com",
                "v1",
                resource,
                kind,
            ));
            eventually(&format!("{kind} is described"), async || {
                let text = alice.get(cluster.old.proxy.address, Http::Two, PATH).await.text();
                let has = [&format!("v1.{kind}"), &only_new_serves().kind].map(|kind| text.contains(kind));
                ensure(has == [true; 2], || format!("{has:?}"))
            })
            .await;
        }
    });
}
