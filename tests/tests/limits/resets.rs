//! Rapid reset (CVE-2023-44487): streams opened only to be given up cost the API server, and other clients, little.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Response;
use mvproxy::limits::TimeLimits;
use mvproxy_tests::pki::Pki;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::time::sleep;

use super::frames::{ENHANCE_YOUR_CALM, Frames, Kind, Reader, get, goaways, reset};
use super::node::{NEVER, Node};
use super::support::{
    BOTH, Caller, Proxy, ProxyOptions, Upstream, bounded, ensure, eventually, promptly, request, whole,
};

/// As many as kube-apiserver lets be at once.
const STREAMS: u32 = 100;
/// A handler goes on for so long.
const WORK: Duration = Duration::from_secs(1);
/// Given up at once, before a connection ends.
const MOST_GIVEN_UP: usize = 400;

/// An API server whose handlers go on for a while when their requests are given up, as Go's do.
struct Busy {
    pki: Pki,
    proxy: Proxy,
    _upstream: Upstream,
    requests: Arc<AtomicUsize>,
    work: Arc<Work>,
}

/// Handlers by connection: those at work, and the most that ever were.
#[derive(Default)]
struct Work(Mutex<HashMap<SocketAddr, (usize, usize)>>);

impl Work {
    fn begin(&self, connection: SocketAddr) {
        let mut work = self.0.lock().unwrap();
        let (now, most) = work.entry(connection).or_default();
        *now += 1;
        *most = (*most).max(*now);
    }

    fn end(&self, connection: SocketAddr) {
        self.0.lock().unwrap().entry(connection).or_default().0 -= 1;
    }

    fn at_work(&self) -> usize {
        self.0.lock().unwrap().values().map(|(now, _)| now).sum()
    }

    fn most_on_one_connection(&self) -> usize {
        self.0.lock().unwrap().values().map(|(_, most)| *most).max().unwrap_or_default()
    }

    fn most_on_all(&self) -> usize {
        self.0.lock().unwrap().values().map(|(_, most)| most).sum()
    }
}

impl Busy {
    async fn start() -> Self {
        let pki = Pki::generate().unwrap();
        let serving = pki.serving("lone", [127, 0, 0, 1].into()).unwrap();
        let (requests, work) = (Arc::new(AtomicUsize::new(0)), Arc::new(Work::default()));
        let counts = (requests.clone(), work.clone());
        let upstream = Upstream::start(&serving, move |request: http::Request<hyper::body::Incoming>| {
            let (requests, work) = counts.clone();
            async move {
                if request.uri().path() != "/metrics" {
                    return Response::new(whole("ok"));
                }
                let connection = *request.extensions().get::<SocketAddr>().unwrap();
                requests.fetch_add(1, Relaxed);
                work.begin(connection);
                let handler = tokio::spawn(async move {
                    sleep(WORK).await;
                    work.end(connection);
                });
                handler.await.unwrap();
                Response::new(whole("ok"))
            }
        })
        .await;
        let options = ProxyOptions {
            pki: &pki,
            serving: &serving,
            local: upstream.address,
            peers: &[],
            flags: &["--workers=1"],
        };
        let proxy = Proxy::start(&options);
        Self { pki, proxy, _upstream: upstream, requests, work }
    }

    fn alice(&self) -> Caller {
        Caller::alice(&self.pki)
    }

    async fn frames(&self) -> Frames {
        let mut frames = Frames::start(&self.alice(), self.proxy.address).await;
        // One request first, so that there is an upstream connection.
        frames.writer.write_all(&get(1, "/version")).await.unwrap();
        wait_for_end(&mut frames.reader, 1).await;
        frames
    }

    /// Somebody else asks, on connections of their own.
    fn answers_others(&self, times: usize) -> impl Future<Output = ()> {
        Box::pin(async move {
            for http in BOTH.into_iter().cycle().take(times) {
                let answer = self.alice().get(self.proxy.address, http, "/version").await;
                assert_eq!(answer.status, 200);
            }
        })
    }

    /// Opens as many streams as are allowed, and gives them up when the API server is at work on them.
    async fn give_up_everything(
        &self,
        ids: &mut impl Iterator<Item = u32>,
        writer: &mut (impl AsyncWrite + Unpin),
    ) {
        let wanted = self.requests.load(Relaxed) + STREAMS as usize;
        let opened: Vec<u32> = ids.take(STREAMS as usize).collect();
        let requests: Vec<u8> = opened.iter().flat_map(|id| get(*id, "/metrics")).collect();
        writer.write_all(&requests).await.unwrap();
        eventually("all have arrived", async || {
            let seen = self.requests.load(Relaxed);
            ensure(seen == wanted, || format!("{seen} of {wanted}"))
        })
        .await;
        let resets: Vec<u8> = opened.iter().flat_map(|id| reset(*id)).collect();
        writer.write_all(&resets).await.unwrap();
        writer.flush().await.unwrap();
    }

    async fn given_up(&self) -> u64 {
        let metrics = self.proxy.metrics().await;
        metrics.sum("mvproxy_client_connections_ended_total", &[("reason", "requests_given_up")])
    }
}

async fn wait_for_end(reader: &mut Reader, stream: u32) {
    let ends = async {
        while !reader.next().await.is_ok_and(|frame| frame.stream == stream && frame.flags & 1 == 1) {}
    };
    promptly("an answer", ends).await;
}

fn streams() -> impl Iterator<Item = u32> {
    (3..).step_by(2)
}

#[test]
fn ten_thousand_resets_at_once_end_the_connection() {
    bounded(async {
        let busy = Busy::start().await;
        let Frames { mut reader, mut writer } = busy.frames().await;
        let before = resident_bytes();
        let all: Vec<u8> =
            streams().take(10_000).flat_map(|id| [get(id, "/metrics"), reset(id)].concat()).collect();
        let send = async {
            // The proxy ends the connection in the middle of it.
            let _ = writer.write_all(&all).await;
            let _ = writer.flush().await;
        };
        let answered = busy.answers_others(2);
        let ended = async { tokio::join!(reader.rest(), send, answered).0 };
        let said = promptly("the connection ends and others are served", ended).await;
        assert_eq!(goaways(&said), [ENHANCE_YOUR_CALM], "{} frames", said.len());
        let seen = busy.requests.load(Relaxed);
        assert!(seen <= MOST_GIVEN_UP, "the API server saw {seen} of them");
        let grown = resident_bytes().saturating_sub(before);
        assert!(grown < 32 << 20, "the process grew by {grown} bytes");
    });
}

#[test]
fn resets_that_keep_step_with_the_proxy_end_the_connection() {
    bounded(async {
        let busy = Busy::start().await;
        let Frames { mut reader, mut writer } = busy.frames().await;
        let count = AtomicUsize::new(0);
        let send = async {
            for (number, id) in streams().enumerate() {
                let arrived = busy.requests.load(Relaxed);
                let _ = writer.write_all(&get(id, "/metrics")).await;
                let _ = writer.flush().await;
                count.store(number, Relaxed);
                // The request is on its way through before it is given up.
                while busy.requests.load(Relaxed) == arrived {
                    sleep(Duration::from_micros(200)).await;
                }
                let _ = writer.write_all(&reset(id)).await;
                let _ = writer.flush().await;
            }
        };
        let ended = async {
            tokio::select! {
                () = send => {}
                _ = reader.rest() => {}
            }
        };
        let answered = busy.answers_others(5);
        promptly("the connection ends and others are served", async { tokio::join!(ended, answered) }).await;
        let count = count.load(Relaxed);
        assert!(count >= MOST_GIVEN_UP, "ended after {count} resets already");
        let most = busy.work.most_on_all();
        assert!(most <= MOST_GIVEN_UP * 2, "{most} handlers were at work at once");
        assert_eq!(busy.given_up().await, 1);
    });
}

#[test]
fn giving_up_everything_now_and_then_ends_nothing() {
    bounded(async {
        let busy = Busy::start().await;
        let Frames { mut reader, mut writer } = busy.frames().await;
        let mut ids = streams();
        for _ in 0..3 {
            busy.give_up_everything(&mut ids, &mut writer).await;
            let last = ids.next().unwrap();
            writer.write_all(&get(last, "/version")).await.unwrap();
            wait_for_end(&mut reader, last).await;
        }
        eventually("nobody is at work for nothing", async || {
            let at_work = busy.work.at_work();
            ensure(at_work == 0, || format!("{at_work} handlers"))
        })
        .await;
        assert_eq!(busy.given_up().await, 0);
    });
}

#[test]
fn what_many_clients_give_up_does_not_crowd_one_connection_to_the_api_server() {
    bounded(async {
        let busy = Busy::start().await;
        for _ in 0..4 {
            let mut frames = busy.frames().await;
            let mut ids = streams();
            busy.give_up_everything(&mut ids, &mut frames.writer).await;
            busy.give_up_everything(&mut ids, &mut frames.writer).await;
        }
        // hyper's servers allow 200 streams; kube-apiserver allows 100, and ends a connection with four times as many requests
        // that wait for a handler.
        let most = busy.work.most_on_one_connection();
        assert!(most <= 200, "{most} handlers for one connection");
        assert_eq!(busy.given_up().await, 0, "no client gave up too many");
    });
}

#[test]
fn more_streams_than_allowed_are_refused_and_the_others_answered() {
    bounded(async {
        let node = Node::start(&[], TimeLimits { handshake: NEVER, header: NEVER, idle: NEVER }).await;
        let Frames { mut reader, mut writer } = Frames::start(&node.alice(), node.address()).await;
        let watch = "/api/v1/namespaces/default/configmaps?watch=true";
        let all: Vec<u8> =
            (1..).step_by(2).take(STREAMS as usize + 5).flat_map(|id| get(id, watch)).collect();
        writer.write_all(&all).await.unwrap();
        let (mut answered, mut refused) = (0, 0);
        let count = async {
            while answered + refused < STREAMS + 5 {
                match reader.next().await.unwrap().kind {
                    Kind::Headers => answered += 1,
                    Kind::Reset => refused += 1,
                    _ => {}
                }
            }
        };
        promptly("each stream is answered or refused", count).await;
        assert_eq!((answered, refused), (STREAMS, 5));
        let mut other = node.alice().connect(node.address(), BOTH[1]).await;
        assert_eq!(other.fetch(request("GET", "/version")).await.status, 200);
    });
}

/// Memory of this process, which the proxy is part of.
pub fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}
