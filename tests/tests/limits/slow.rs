//! Clients that never come to the point: no connection is held for longer than a head may take.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use mvproxy::limits::TimeLimits;
use mvproxy_tests::client::connect_tls;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncWriteExt as _, split};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::frames::{ENHANCE_YOUR_CALM, Frames, Kind, PREFACE, block, field, frame, goaways};
use super::node::{HEADER, NEVER, Node, closes_after};
use super::support::{Caller, Http, bounded, promptly, read_head};

/// Pause between two bytes or lines of a slow client.
const DRIP: Duration = Duration::from_millis(50);

fn impatient() -> TimeLimits {
    TimeLimits { handshake: HEADER, header: HEADER, idle: NEVER }
}

/// Sends `bytes` one by one, then those again, until the server has had enough.
async fn drip(bytes: &[u8], writer: &mut (impl tokio::io::AsyncWrite + Unpin)) {
    for byte in bytes.iter().cycle() {
        if writer.write_all(&[*byte]).await.is_err() || writer.flush().await.is_err() {
            return;
        }
        sleep(DRIP).await;
    }
}

/// The bytes that begin a TLS connection.
fn client_hello() -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from("kubernetes").unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

#[test]
fn a_client_hello_that_does_not_end_ends_the_connection() {
    bounded(async {
        let node = Node::start(&[], impatient()).await;
        let hello = client_hello();
        for sent in [&hello[..0], &hello[..hello.len() - 1]] {
            let begun = Instant::now();
            let mut stream = TcpStream::connect(node.address()).await.unwrap();
            stream.write_all(sent).await.unwrap();
            let what = format!("{} bytes of a ClientHello", sent.len());
            let said = node.serves_others_during(closes_after(&what, HEADER, begun, &mut stream)).await;
            assert!(said.is_empty(), "{what}: {said:?}");
        }
        let begun = Instant::now();
        let stream = TcpStream::connect(node.address()).await.unwrap();
        let (mut reader, mut writer) = split(stream);
        node.serves_others_during(async {
            let closed = closes_after("a ClientHello byte by byte", HEADER, begun, &mut reader);
            tokio::join!(closed, drip(&hello, &mut writer));
        })
        .await;
        let ended = node.proxy.metrics().await;
        let labels = [("reason", "handshake_timeout")];
        assert_eq!(ended.sum("mvproxy_client_connections_ended_total", &labels), 3);
    });
}

#[test]
fn a_first_request_that_does_not_come_ends_the_connection() {
    bounded(async {
        let node = Node::start(&[], impatient()).await;
        let settings = frame(Kind::Settings, 0, 0, &[]);
        let unfinished = frame(Kind::Headers, 0, 1, &block("GET", "/version"));
        let cases = [
            (Http::One, "nothing over HTTP/1.1", vec![]),
            (Http::One, "half a head", b"GET /version HTTP/1.1\r\nHost: k\r\n".to_vec()),
            (Http::Two, "no preface", vec![]),
            (Http::Two, "half a preface", PREFACE[..10].to_vec()),
            (Http::Two, "no SETTINGS", PREFACE.to_vec()),
            (Http::Two, "no HEADERS", [PREFACE, &settings].concat()),
            (Http::Two, "HEADERS without an end", [PREFACE, &settings, &unfinished].concat()),
        ];
        let closed = cases.iter().map(async |(http, what, sent)| {
            let begun = Instant::now();
            let mut stream = connect_tls(&node.alice().options(node.address(), *http)).await.unwrap();
            stream.write_all(sent).await.unwrap();
            closes_after(what, HEADER, begun, &mut stream).await
        });
        node.serves_others_during(join_all(closed)).await;
        let ended = node.proxy.metrics().await;
        let labels = [("reason", "header_timeout")];
        assert_eq!(ended.sum("mvproxy_client_connections_ended_total", &labels), 7);
    });
}

#[test]
fn a_head_that_grows_for_ever_ends_the_connection() {
    bounded(async {
        let node = Node::start(&[], impatient()).await;
        let begun = Instant::now();
        let stream = connect_tls(&node.alice().options(node.address(), Http::One)).await.unwrap();
        let (mut reader, mut writer) = split(stream);
        writer.write_all(b"GET /version HTTP/1.1\r\nHost: k\r\n").await.unwrap();
        node.serves_others_during(async {
            let closed = closes_after("a head line by line", HEADER, begun, &mut reader);
            tokio::join!(closed, drip(b"a: b\r\n", &mut writer));
        })
        .await;

        // Over HTTP/2, where the last frame of a head never comes, and each of them is whole.
        let begun = Instant::now();
        let Frames { mut reader, mut writer } = Frames::start(&node.alice(), node.address()).await;
        writer.write_all(&frame(Kind::Headers, 0, 1, &block("GET", "/version"))).await.unwrap();
        let more = frame(Kind::Continuation, 0, 1, &field("a", "b"));
        let send = async {
            while writer.write_all(&more).await.is_ok() && writer.flush().await.is_ok() {
                sleep(DRIP).await;
            }
        };
        node.serves_others_during(promptly("the connection ends", async {
            tokio::join!(reader.rest(), send)
        }))
        .await;
        assert!(begun.elapsed() >= HEADER, "closed after {:?}", begun.elapsed());
    });
}

#[test]
fn endless_continuation_is_cut_short() {
    bounded(async {
        // No time limit is met.
        let node = Node::start(&[], TimeLimits { handshake: NEVER, header: NEVER, idle: NEVER }).await;
        for payload in [vec![], field("name", "value"), field("name", "value").repeat(1000)] {
            let Frames { mut reader, mut writer } = Frames::start(&node.alice(), node.address()).await;
            writer.write_all(&frame(Kind::Headers, 0, 1, &block("GET", "/version"))).await.unwrap();
            let more = frame(Kind::Continuation, 0, 1, &payload);
            let send = async {
                let mut sent = 0;
                while writer.write_all(&more).await.is_ok() && writer.flush().await.is_ok() {
                    sent += 1;
                    assert!(sent < 100_000, "there is no end to what the proxy takes");
                }
            };
            let ended = async { tokio::join!(reader.rest(), send).0 };
            let said = node.serves_others_during(promptly("the connection ends", ended)).await;
            assert_eq!(goaways(&said), [ENHANCE_YOUR_CALM], "{said:?}");
        }
    });
}

#[test]
fn half_a_request_on_a_kept_connection_ends_it() {
    bounded(async {
        let node = Node::start(&[], impatient()).await;
        let mut stream = connect_tls(&node.alice().options(node.address(), Http::One)).await.unwrap();
        for _ in 0..2 {
            stream
                .write_all(b"GET /version HTTP/1.1\r\nHost: k\r\nConnection: keep-alive\r\n\r\n")
                .await
                .unwrap();
            let head = read_head(&mut stream).await.unwrap();
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            skip_body(&head, &mut stream).await;
            // The wait before a request counts for another limit.
            sleep(HEADER + DRIP).await;
        }
        let begun = Instant::now();
        stream.write_all(b"GET /ver").await.unwrap();
        let said =
            node.serves_others_during(closes_after("half a request", HEADER, begun, &mut stream)).await;
        assert!(said.is_empty(), "{}", String::from_utf8_lossy(&said));
    });
}

async fn skip_body(head: &str, stream: &mut (impl tokio::io::AsyncRead + Unpin)) {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    let mut length = lines.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let mut body = vec![0; length.next().expect("a length").1.parse().unwrap()];
    promptly("a body", tokio::io::AsyncReadExt::read_exact(stream, &mut body)).await.unwrap();
}

#[test]
fn by_default_a_head_may_take_as_long_as_at_kube_apiserver() {
    bounded(async {
        let limits = TimeLimits::default();
        assert_eq!(limits.idle, Duration::from_secs(90));
        let node = Node::start(&[], limits).await;
        let limit = Duration::from_secs(32);
        let half = b"GET /version HTTP/1.1\r\nHost: k\r\n";
        let caller: Caller = node.alice();
        let begun = Instant::now();
        let mut silent = TcpStream::connect(node.address()).await.unwrap();
        let mut slow = connect_tls(&caller.options(node.address(), Http::One)).await.unwrap();
        let mut http2 = connect_tls(&caller.options(node.address(), Http::Two)).await.unwrap();
        slow.write_all(half).await.unwrap();
        http2.write_all(&PREFACE[..5]).await.unwrap();
        tokio::join!(
            closes_after("no handshake", limit, begun, &mut silent),
            closes_after("half a head", limit, begun, &mut slow),
            closes_after("half a preface", limit, begun, &mut http2),
        );
    });
}
