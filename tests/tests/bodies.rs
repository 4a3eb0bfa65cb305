//! Large headers and bodies pass as they come: nothing is cut, nothing is kept.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use mvproxy_tests::pki::{Identity, Pki};
use support::{
    BOTH, Body, Caller, Cluster, Proxy, ProxyOptions, Upstream, both_serve, bounded, endless, eventually,
    exchange, only_new_serves, promptly, request, upload, whole,
};
use tokio::sync::Notify;
use tokio::time::sleep;

const KIB: usize = 1024;
/// Far more than sockets and windows hold on the way: 32 MiB in chunks of 64 KiB.
const CHUNKS: usize = 512;
const CHUNK: usize = 64 * KIB;

/// A proxy before an API server that does only what a test says.
struct Lone {
    proxy: Proxy,
    pki: Pki,
    _upstream: Upstream,
}

impl Lone {
    async fn start<F, A>(handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Response<Body>> + Send + 'static,
    {
        let pki = Pki::generate().unwrap();
        let serving: Identity = pki.serving("lone", [127, 0, 0, 1].into()).unwrap();
        let upstream = Upstream::start(&serving, handler).await;
        let (local, serving) = (upstream.address, &serving);
        let proxy = Proxy::start(&ProxyOptions { pki: &pki, serving, local, peers: &[], flags: &[] });
        Self { proxy, pki, _upstream: upstream }
    }
}

#[test]
fn headers_of_900_kib_reach_either_server() {
    bounded(async {
        let cluster = Cluster::start().await;
        for (shape, count, size, api, node) in [
            ("many", 100, 9 * KIB, both_serve(), &cluster.old),
            ("one", 1, 900 * KIB, only_new_serves(), &cluster.new),
        ] {
            let value = vec![b'v'; size];
            let caller = (0..count).fold(Caller::alice(&cluster.pki), |caller, number| {
                caller.header(&format!("x-large-{number}"), &value)
            });
            for http in BOTH {
                let target = format!("{}?shape={shape}{http:?}", api.path());
                let answer = caller.get(cluster.old.proxy.address, http, &target).await;
                assert_eq!(answer.status, 200, "{target}: {}", answer.text());
                let seen = node.only_request_for(&target);
                for number in 0..count {
                    assert_eq!(seen.headers[format!("x-large-{number}")], value[..], "{target}");
                }
            }
        }
    });
}

#[test]
fn headers_beyond_the_limit_of_kube_apiserver_are_refused_with_431() {
    bounded(async {
        let cluster = Cluster::start().await;
        let target = both_serve().path();
        for http in BOTH {
            let caller = Caller::alice(&cluster.pki).header("x-large", vec![b'v'; 1100 * KIB]);
            let mut session = caller.connect(cluster.old.proxy.address, http).await;
            // Over HTTP/1.1 the refusal may come before the request is out, and the connection closes then.
            match session.try_fetch(request("GET", &target)).await {
                Ok(answer) => assert_eq!(answer.status, 431, "{http:?}"),
                Err(error) => assert_eq!(http, support::Http::One, "{error:#}"),
            }
        }
        assert!(cluster.old.requests_for(&target).is_empty());
        let alice = Caller::alice(&cluster.pki);
        assert_eq!(alice.get(cluster.old.proxy.address, BOTH[1], &target).await.status, 200);
    });
}

#[test]
fn a_post_of_5_mb_draws_the_answer_it_draws_straight() {
    bounded(async {
        let cluster = Cluster::start().await;
        let admin = Caller::admin(&cluster.pki).header("content-type", "application/json");
        for api in [both_serve(), only_new_serves()] {
            for http in BOTH {
                let mut object = api.object("large");
                object["data"] = serde_json::json!({"x": "x".repeat(5_000_000)});
                let mut large = request("POST", &api.path());
                *large.body_mut() = Bytes::from(object.to_string());
                let mut fits = request("POST", &api.path());
                object["data"] = serde_json::json!({"x": "x".repeat(2_000_000)});
                object["metadata"]["name"] = format!("fits-{http:?}").to_lowercase().into();
                *fits.body_mut() = Bytes::from(object.to_string());

                let straight = admin.ask(cluster.new.standin.addr, http, large.clone()).await;
                let through = admin.ask(cluster.old.proxy.address, http, large).await;
                assert_eq!((straight.status, straight.text()), (through.status, through.text()));
                assert_eq!(through.status, 413);
                let created = admin.ask(cluster.old.proxy.address, http, fits).await;
                assert_eq!(created.status, 201, "{}", created.text());
                assert_eq!(created.json().unwrap()["data"]["x"].as_str().unwrap().len(), 2_000_000);
            }
        }
    });
}

#[test]
fn an_upload_waits_when_the_api_server_does_not_read() {
    bounded(async {
        let (arrived, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (inside_arrived, inside_go) = (arrived.clone(), go.clone());
        let lone = Lone::start(move |request: Request<Incoming>| {
            let (arrived, go) = (inside_arrived.clone(), inside_go.clone());
            async move {
                if request.uri().path() != "/upload" {
                    return Response::builder().status(404).body(whole("")).unwrap();
                }
                arrived.notify_one();
                go.notified().await;
                let body = request.into_body().collect().await.unwrap().to_bytes();
                Response::new(whole(body.len().to_string()))
            }
        })
        .await;
        for http in BOTH {
            let taken = Arc::new(AtomicUsize::new(0));
            let options = Caller::alice(&lone.pki).options(lone.proxy.address, http);
            let request = Request::post("/upload").body(endless(CHUNKS, taken.clone())).unwrap();
            let uploading = tokio::spawn(async move { upload(&options, request).await });
            promptly("the head arrives before the body ends", arrived.notified()).await;
            stalls(&taken).await;
            go.notify_one();
            let answer = promptly("the answer", uploading).await.unwrap().unwrap();
            let length = answer.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(length, (CHUNKS * CHUNK).to_string(), "{http:?}");
        }
    });
}

#[test]
fn a_download_waits_when_the_client_does_not_read() {
    bounded(async {
        let taken = Arc::new(AtomicUsize::new(0));
        let inside = taken.clone();
        let lone = Lone::start(move |request: Request<Incoming>| {
            let taken = inside.clone();
            async move {
                let wanted = request.uri().path() == "/download";
                Response::new(endless(if wanted { CHUNKS } else { 0 }, taken))
            }
        })
        .await;
        for http in BOTH {
            taken.store(0, Ordering::Relaxed);
            let mut session = Caller::alice(&lone.pki).connect(lone.proxy.address, http).await;
            let mut answer = session.open(request("GET", "/download")).await.unwrap();
            stalls(&taken).await;
            let mut length = 0;
            while let Some(frame) = promptly("more of the body", answer.frame()).await {
                length += frame.unwrap().into_data().unwrap().len();
            }
            assert_eq!(length, CHUNKS * CHUNK, "{http:?}");
        }
    });
}

#[test]
fn a_head_request_is_answered_with_the_length_of_what_get_would_bring() {
    bounded(async {
        let lone = Lone::start(|request: Request<Incoming>| async move {
            let body = if request.method() == "HEAD" { whole("") } else { whole("x".repeat(1234)) };
            Response::builder().header("content-length", 1234).body(body).unwrap()
        })
        .await;
        for http in BOTH {
            for caller in [Caller::alice(&lone.pki), Caller::bob(&lone.pki), Caller::nobody(&lone.pki)] {
                let answer = caller.ask(lone.proxy.address, http, request("HEAD", "/any")).await;
                assert_eq!((answer.header("content-length"), answer.text()), ("1234", String::new()));
                assert_eq!(caller.get(lone.proxy.address, http, "/any").await.body.len(), 1234);
            }
        }
    });
}

#[test]
fn a_client_that_waits_for_100_continue_is_told_to_go_on() {
    bounded(async {
        let cluster = Cluster::start().await;
        let api = only_new_serves();
        let object = api.object("awaited").to_string();
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: kubernetes\r\nConnection: close\r\nExpect: 100-continue\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            api.path(),
            object.len()
        );
        let options = Caller::admin(&cluster.pki).options(cluster.old.proxy.address, BOTH[0]);
        let mut stream = mvproxy_tests::client::connect_tls(&options).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes()).await.unwrap();
        let interim = support::read_head(&mut stream).await.unwrap();
        assert!(interim.starts_with("HTTP/1.1 100 "), "{interim}");
        tokio::io::AsyncWriteExt::write_all(&mut stream, object.as_bytes()).await.unwrap();
        let last = support::read_head(&mut stream).await.unwrap();
        assert!(last.starts_with("HTTP/1.1 201 "), "{last}");
        let whole = exchange(&options, format!("{head}{object}").as_bytes()).await.unwrap();
        assert!(whole.contains("HTTP/1.1 409 "), "a body that does not wait is taken as well: {whole}");
    });
}

/// Waits until a body is not taken any further although most of it is left.
async fn stalls(taken: &AtomicUsize) {
    let mut before = 0;
    eventually("the body stalls", async || {
        let now = taken.load(Ordering::Relaxed);
        let stalled = now > 0 && now == std::mem::replace(&mut before, now);
        sleep(Duration::from_millis(200)).await;
        support::ensure(stalled, || format!("{now} of {CHUNKS} chunks were taken and more are"))
    })
    .await;
    assert!(before < CHUNKS / 4 * 3, "{before} of {CHUNKS} chunks were taken although nobody reads");
}
