//! A peer that answers discovery with anything at all costs little, is told of once, and changes nothing that was known.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod site_support;
mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use mvproxy_tests::client::Answer;
use mvproxy_tests::standin::Documents;
use site_support::{Log, Trap};
use support::{
    Body, Caller, Cluster, Http, Proxy, ProxyOptions, Upstream, aggregated, bounded, breaking, endless,
    ensure, eventually, only_new_serves, whole,
};

/// Makes an answer to `/apis`.
type Trick = Arc<dyn Fn() -> Response<Body> + Send + Sync>;

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
    /// Known to a proxy as what a v1.36 server serves.
    async fn start(cluster: &Cluster) -> Self {
        let (log, listening) = Log::listen();
        let admin = Caller::admin(&cluster.pki);
        let mut good = Vec::new();
        for path in ["/api", "/apis", "/version"] {
            let answer = admin.ask(cluster.new.standin.addr, Http::Two, aggregated(path)).await;
            good.push((path, answer));
        }
        let good = Arc::new(good);
        let trick: Arc<Mutex<Option<Trick>>> = Arc::default();
        let played = trick.clone();
        let upstream = Upstream::start(&cluster.new.serving, move |request: Request<Incoming>| {
            let path = request.uri().path().to_owned();
            let trick = played.lock().unwrap().clone().filter(|_| path == "/apis");
            let good = good.clone();
            async move {
                let known = good.iter().find(|(known, _)| *known == path);
                trick.map_or_else(|| honest(known.map(|(_, answer)| answer)), |trick| trick())
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
        cluster.synced(&proxy).await;
        Self { upstream, trick, proxy, alice: Caller::alice(&cluster.pki), log, _listening: listening }
    }

    async fn merged(&self) -> String {
        let answer = self.alice.ask(self.proxy.address, Http::Two, aggregated("/apis")).await;
        answer.header("etag").to_owned()
    }

    /// Plays a trick until it has been counted a few times under `reason`, and checks that nothing comes of it.
    async fn plays(
        &self,
        name: &str,
        reason: &str,
        trick: impl Fn() -> Response<Body> + Send + Sync + 'static,
    ) {
        let before = self.merged().await;
        *self.trick.lock().unwrap() = Some(Arc::new(trick));
        let labels = [("type", "fetch_discovery"), ("reason", reason)];
        eventually(&format!("{name} is counted as {reason}"), async || {
            let metrics = self.proxy.metrics().await;
            let counted = metrics.sum("apiserver_peer_discovery_sync_errors_total", &labels);
            let all = metrics.sum("apiserver_peer_discovery_sync_errors_total", &[]);
            ensure(counted >= 2, || format!("{counted} of {all}"))
        })
        .await;
        assert_eq!(self.merged().await, before, "{name}");
        let answer = self.alice.get(self.proxy.address, Http::Two, &only_new_serves().path()).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        let stale = self.proxy.metrics().await.sum("mvproxy_peer_discovery_stale", &[]);
        assert_eq!(stale, 1, "{name}");
        let address = self.upstream.address.to_string();
        let told = self.log.lines(&["discovery failed", &address]);
        assert_eq!(told.len(), 1, "{name} is told of once: {told:?}");
    }
}

/// What a good server answers to discovery, and to anything else.
fn honest(known: Option<&Answer>) -> Response<Body> {
    let Some(known) = known else {
        return Response::builder().header(CONTENT_TYPE, "application/json").body(whole("{}")).unwrap();
    };
    let mut response = Response::new(whole(known.body.clone()));
    *response.headers_mut() = known.headers.clone();
    response.headers_mut().remove(CONTENT_LENGTH);
    response
}

fn json(body: Body) -> Response<Body> {
    Response::builder().header(CONTENT_TYPE, "application/json").body(body).unwrap()
}

/// One byte now and then, without end.
fn drip() -> Body {
    let frames = futures_util::stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Some((Ok(Frame::data(Bytes::from_static(b" "))), ()))
    });
    StreamBody::new(frames).boxed_unsync()
}

const CHUNK: usize = 64 * 1024;
/// What may be on the way when a body is given up: the limit of a document, and windows.
const MOST_CHUNKS: usize = (16 + 4) * 1024 * 1024 / CHUNK;

#[test]
fn bodies_without_end_are_given_up_at_the_limit() {
    bounded(async {
        let cluster = Cluster::start().await;
        let taken = Arc::new(AtomicUsize::new(0));
        let peer = Peer::start(&cluster).await;
        let counted = taken.clone();
        peer.plays("a body without end", "too_large", move || {
            counted.store(0, Ordering::Relaxed);
            json(endless(usize::MAX, counted.clone()))
        })
        .await;
        assert!(taken.load(Ordering::Relaxed) <= MOST_CHUNKS, "{taken:?} chunks were taken");
        drop(peer);

        let peer = Peer::start(&cluster).await;
        let counted = taken.clone();
        peer.plays("a gigabyte that is announced", "too_large", move || {
            counted.store(0, Ordering::Relaxed);
            let mut response = json(endless(1 << 14, counted.clone()));
            response.headers_mut().insert(CONTENT_LENGTH, (1_u64 << 30).into());
            response
        })
        .await;
        assert!(taken.load(Ordering::Relaxed) <= 4 * 1024 * 1024 / CHUNK, "{taken:?}: it is not begun");
    });
}

#[test]
fn documents_that_would_fill_the_memory_are_not_read() {
    bounded(async {
        let cluster = Cluster::start().await;
        let before = peak_memory();
        let many = format!(r#"{{"kind":"APIGroupDiscoveryList","items":[{}{{}}]}}"#, "{},".repeat(5_000_000));
        let resources = "{},".repeat(2_000_000);
        let nested = format!(
            r#"{{"kind":"APIGroupDiscoveryList","items":[{{"versions":[{{"resources":[{resources}{{}}]}}]}}]}}"#
        );
        let strings =
            format!(r#"{{"kind":"APIGroupDiscoveryList","items":[{}""]}}"#, "\"\",".repeat(5_000_000));
        let worlds =
            [("millions of groups", many), ("millions of resources", nested), ("millions of texts", strings)];
        for (name, text) in worlds {
            let peer = Peer::start(&cluster).await;
            let body = Bytes::from(text);
            peer.plays(name, "too_large", move || json(whole(body.clone()))).await;
        }
        let grown = peak_memory().saturating_sub(before);
        assert!(grown < 256 * 1024, "{grown} KiB more, most of it the hostile server's own");
    });
}

/// The most memory that this process ever had, in KiB.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn answers_that_are_no_documents_by_their_head_change_nothing() {
    bounded(async {
        let cluster = Cluster::start().await;
        let elsewhere = Trap::at("127.0.0.1:0").await;
        let location = format!("https://{}/apis", elsewhere.address);
        let status = |code: u16| move || Response::builder().status(code).body(whole("{}")).unwrap();
        let tricks: Vec<(&str, &str, Trick)> = vec![
            ("an error", "status", Arc::new(status(500))),
            ("a refusal", "status", Arc::new(status(403))),
            ("no content", "status", Arc::new(status(204))),
            ("a part", "status", Arc::new(status(206))),
            (
                "a redirect",
                "status",
                Arc::new(move || {
                    let redirect = Response::builder().status(307).header(LOCATION, &location);
                    redirect.body(whole("")).unwrap()
                }),
            ),
            (
                "a web page",
                "content_type",
                Arc::new(|| {
                    Response::builder().header(CONTENT_TYPE, "text/html").body(whole("<p>")).unwrap()
                }),
            ),
            (
                "a compressed body",
                "encoding",
                Arc::new(|| {
                    let mut response = json(endless(usize::MAX, Arc::default()));
                    response.headers_mut().insert(CONTENT_ENCODING, "gzip".parse().unwrap());
                    response
                }),
            ),
        ];
        for (name, reason, trick) in tricks {
            let peer = Peer::start(&cluster).await;
            peer.plays(name, reason, move || trick()).await;
        }
        assert_eq!(elsewhere.visits(), 0, "redirects are not followed");
    });
}

#[test]
fn answers_that_are_no_documents_by_their_content_change_nothing() {
    bounded(async {
        let cluster = Cluster::start().await;
        let text = |text: &'static str| move || json(whole(text));
        let tricks: Vec<(&str, &str, Trick)> = vec![
            ("a body that breaks off", "broken", Arc::new(|| json(breaking(b"{\"kind\":")))),
            ("half a document", "document", Arc::new(text(r#"{"kind":"APIGroupDiscoveryList","items":["#))),
            ("another kind", "document", Arc::new(text(r#"{"kind":"PodList","items":[]}"#))),
            ("nothing", "document", Arc::new(text(""))),
            ("a number", "document", Arc::new(text("1"))),
            (
                "wrong types",
                "document",
                Arc::new(text(r#"{"kind":"APIGroupDiscoveryList","items":{"a":1}}"#)),
            ),
            ("great depth", "document", Arc::new(|| json(whole("[".repeat(1_000_000))))),
        ];
        for (name, reason, trick) in tricks {
            let peer = Peer::start(&cluster).await;
            peer.plays(name, reason, move || trick()).await;
        }
    });
}

#[test]
fn slow_answers_are_given_up_and_delay_nobody_else() {
    bounded(async {
        let cluster = Cluster::start().await;
        let peer = Peer::start(&cluster).await;
        let begin = Instant::now();
        *peer.trick.lock().unwrap() = Some(Arc::new(|| json(drip())));
        let labels = [("type", "fetch_discovery"), ("reason", "timeout")];
        // Meanwhile the local server's news is heard at once.
        cluster.old.standin.set_documents(Documents::load("v1.34").unwrap().with_resource(
            "example.com",
            "v1",
            "widgets",
            "Widget",
        ));
        eventually("the local server's new resource is listed", async || {
            let merged = peer.alice.ask(peer.proxy.address, Http::Two, aggregated("/apis")).await;
            ensure(merged.text().contains("widgets"), || "not yet".to_owned())
        })
        .await;
        assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
        eventually("a drip is given up", async || {
            let counted =
                peer.proxy.metrics().await.sum("apiserver_peer_discovery_sync_errors_total", &labels);
            ensure(counted == 1, || format!("{counted} in {:?}", begin.elapsed()))
        })
        .await;
        let merged = peer.alice.ask(peer.proxy.address, Http::Two, aggregated("/apis")).await;
        assert!(merged.text().contains(&only_new_serves().resource), "what was known stays");
    });
}
