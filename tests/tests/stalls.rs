//! Requests with tiny windows, slow readers and bodies of any size in both directions never stop on their way.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mvproxy_tests::client::connect_tls;
use mvproxy_tests::pki::Pki;
use support::{Body, Caller, Http, Proxy, ProxyOptions, Upstream};
use tokio::task::{JoinSet, yield_now};
use tokio::time::timeout;

/// Exchanges in all, over as many connections as there are windows.
const EXCHANGES: usize = 10_000;
/// What a client takes of one answer before it reads: less than a frame, the least that is useful, the default.
const WINDOWS: [u32; 4] = [1_100, 4_000, 65_535, 4 << 20];
/// Open at once on a connection.
const OPEN: usize = 16;
/// Sizes of bodies: around what h2 copies, what is gathered, what a frame and a window hold.
const SIZES: [usize; 12] = [0, 1, 255, 256, 1_000, 1_024, 9_000, 16_375, 16_384, 16_385, 40_000, 66_000];
const LARGE: usize = 1 << 20;
/// One in so many is large, where the window is not the very smallest.
const LARGE_EACH: usize = 50;
/// An exchange that takes longer has stopped.
const PATIENCE: Duration = Duration::from_mins(1);

/// Sends back what it got, in pieces of another size; every tenth request is read slowly.
async fn echo(request: Request<Incoming>) -> Response<Body> {
    let reads_slowly = request.uri().path().ends_with('0');
    let (mut body, mut got) = (request.into_body(), 0);
    while let Some(frame) = body.frame().await {
        got += frame.unwrap().data_ref().map_or(0, Bytes::len);
        if reads_slowly {
            yield_now().await;
        }
    }
    Response::new(upload(got, 3_000))
}

/// A body of many small pieces, or of one.
fn upload(size: usize, piece: usize) -> Body {
    let pieces = futures_util::stream::unfold(size, move |left| async move {
        let length = left.min(piece);
        (length > 0).then(|| (Ok(Frame::data(Bytes::from(vec![b'x'; length]))), left - length))
    });
    StreamBody::new(pieces).boxed_unsync()
}

async fn exchange(mut sender: SendRequest<Body>, number: usize, largest: usize) {
    let is_large = number.is_multiple_of(LARGE_EACH) && largest == LARGE;
    let size = if is_large { LARGE } else { SIZES[number % SIZES.len()].min(largest) };
    let piece = [700, 5_000, 16_384, 200_000][number % 4];
    let request = Request::post(format!("https://kubernetes/api/v1/namespaces/default/pods/{number}"));
    let answer = sender.send_request(request.body(upload(size, piece)).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200);
    let (mut body, mut got) = (answer.into_body(), 0);
    while let Some(frame) = body.frame().await {
        got += frame.unwrap().data_ref().map_or(0, Bytes::len);
        if number.is_multiple_of(3) {
            yield_now().await;
        }
    }
    assert_eq!(got, size, "exchange {number}");
}

/// All exchanges of one connection.
async fn exchanges(pki: &Pki, proxy: SocketAddr, window: u32, count: usize) {
    let io = connect_tls(&Caller::alice(pki).options(proxy, Http::Two)).await.unwrap();
    let mut builder = Builder::new(TokioExecutor::new());
    // All streams share the window of the connection, so that they also wait for each other.
    builder.initial_stream_window_size(window).initial_connection_window_size(window.max(65_535));
    let (sender, connection) = builder.handshake(TokioIo::new(io)).await.unwrap();
    tokio::spawn(connection);
    let largest = if window < 2_000 { 9_000 } else { LARGE };
    let (mut open, mut begun) = (JoinSet::new(), 0);
    while begun < count || !open.is_empty() {
        if begun < count && open.len() < OPEN {
            let sender = sender.clone();
            let number = begun;
            open.spawn(async move {
                let done = timeout(PATIENCE, exchange(sender, number, largest)).await;
                assert!(done.is_ok(), "exchange {number} with a window of {window} stopped on its way");
            });
            begun += 1;
        } else {
            open.join_next().await.unwrap().unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_exchanges_with_windows_of_all_sizes_come_to_their_end() {
    let pki = Pki::generate().unwrap();
    let serving = pki.serving("lone", [127, 0, 0, 1].into()).unwrap();
    let upstream = Upstream::start(&serving, echo).await;
    let proxy = Proxy::start(&ProxyOptions {
        pki: &pki,
        serving: &serving,
        local: upstream.address,
        peers: &[],
        flags: &[],
    });
    let address = proxy.address;
    let count = EXCHANGES / WINDOWS.len();
    let connections = WINDOWS.map(|window| exchanges(&pki, address, window, count));
    futures_util::future::join_all(connections).await;
}
