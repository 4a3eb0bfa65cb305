//! Connections without requests end as kube-apiserver ends them; those with a request, however quiet, do not.

use std::time::Duration;

use http_body_util::BodyExt as _;
use mvproxy::limits::TimeLimits;
use mvproxy_tests::client::connect_tls;
use mvproxy_tests::standin::Fault;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, interval, sleep};

use super::frames::{Frames, Kind, NO_ERROR, frame, get, goaways};
use super::node::{NEVER, Node, closes_after};
use super::support::{BOTH, Http, Upgraded, bounded, ensure, eventually, promptly, read_head, request};

const IDLE: Duration = Duration::from_secs(1);
const WATCH: &str = "/api/v1/namespaces/default/configmaps?watch=true";

fn limits() -> TimeLimits {
    TimeLimits { handshake: NEVER, header: NEVER, idle: IDLE }
}

#[test]
fn an_idle_http1_connection_is_closed() {
    bounded(async {
        let node = Node::start(&[], limits()).await;
        let mut stream = connect_tls(&node.alice().options(node.address(), Http::One)).await.unwrap();
        // Before the first request there is another limit.
        sleep(IDLE + IDLE / 2).await;
        let begun = Instant::now();
        stream.write_all(b"HEAD /version HTTP/1.1\r\nHost: k\r\n\r\n").await.unwrap();
        let head = read_head(&mut stream).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let said = node.serves_others_during(closes_after("idle", IDLE, begun, &mut stream)).await;
        assert!(said.is_empty(), "{}", String::from_utf8_lossy(&said));
        let ended = node.proxy.metrics().await;
        assert_eq!(ended.sum("mvproxy_client_connections_ended_total", &[("reason", "idle_timeout")]), 1);
    });
}

#[test]
fn an_idle_http2_connection_is_told_and_closed_whatever_it_pings() {
    bounded(async {
        let node = Node::start(&[], limits()).await;
        let Frames { mut reader, mut writer } = Frames::start(&node.alice(), node.address()).await;
        let begun = Instant::now();
        writer.write_all(&get(1, "/version")).await.unwrap();
        let ping_for_ever = async {
            let mut pause = interval(Duration::from_millis(100));
            while writer.write_all(&frame(Kind::Ping, 0, 0, &[7; 8])).await.is_ok() {
                pause.tick().await;
            }
        };
        let ended = async { tokio::join!(reader.rest(), ping_for_ever).0 };
        let said = promptly("the connection ends", node.serves_others_during(ended)).await;
        assert!(begun.elapsed() >= IDLE, "closed after {:?}", begun.elapsed());
        assert_eq!(goaways(&said).first(), Some(&NO_ERROR), "{said:?}");
        assert!(said.iter().any(|frame| frame.kind == Kind::Headers && frame.stream == 1), "{said:?}");
    });
}

#[test]
fn a_client_library_opens_no_more_requests_on_an_idle_connection() {
    bounded(async {
        let node = Node::start(&[], limits()).await;
        for http in BOTH {
            let mut session = node.alice().connect(node.address(), http).await;
            let begun = Instant::now();
            assert_eq!(session.get("/version").await.status, 200);
            eventually("the connection is closed", async || {
                ensure(session.client.is_closed(), || format!("open for {:?}", begun.elapsed()))
            })
            .await;
            // It answers the proxy's PING, and so there is nothing to wait for.
            let elapsed = begun.elapsed();
            assert!(elapsed >= IDLE, "{http:?}: closed after {elapsed:?}");
            assert!(elapsed < IDLE + Duration::from_secs(4), "{http:?}: closed after {elapsed:?}");
        }
    });
}

#[test]
fn a_quiet_watch_keeps_its_connection_and_its_end_begins_the_wait() {
    bounded(async {
        let node = Node::start(&[], limits()).await;
        for http in BOTH {
            let mut session = node.alice().connect(node.address(), http).await;
            let mut watch = session.open(request("GET", WATCH)).await.unwrap();
            sleep(IDLE * 3).await;
            let name = format!("seen-{http:?}").to_lowercase();
            let object = serde_json::json!({"metadata": {"name": name}});
            let mut other = node.alice().connect(node.address(), Http::Two).await;
            let path = "/api/v1/namespaces/default/configmaps";
            assert_eq!(other.json("POST", path, &object).await.status, 201);
            let mut seen = String::new();
            while !seen.contains(&name) {
                let event = promptly("an event", watch.frame()).await.expect("the watch goes on").unwrap();
                seen.push_str(&String::from_utf8_lossy(&event.into_data().unwrap()));
            }
            assert!(!session.client.is_closed());
            if http == Http::Two {
                let ended = Instant::now();
                drop(watch);
                eventually("the connection is closed", async || {
                    ensure(session.client.is_closed(), || format!("open for {:?}", ended.elapsed()))
                })
                .await;
                assert!(ended.elapsed() >= IDLE, "{:?}", ended.elapsed());
            }
        }
    });
}

#[test]
fn requests_and_upgrades_may_take_longer() {
    bounded(async {
        let node = Node::start(&[], TimeLimits { header: IDLE, ..limits() }).await;
        node.standin.faults().inject(Fault::Delay(IDLE * 3), "secrets", 2);
        let pod = serde_json::json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}});
        let mut session = node.alice().connect(node.address(), Http::Two).await;
        assert_eq!(session.json("POST", "/api/v1/namespaces/default/pods", &pod).await.status, 201);
        let exec = "/api/v1/namespaces/default/pods/p/exec?command=sh&stdin=true";
        let upgrade = ["Connection: Upgrade", "Upgrade: SPDY/3.1", "Content-Length: 0"];
        let mut exec = Upgraded::ask(&node.alice(), node.address(), exec, &upgrade).await.unwrap();
        assert!(exec.head.starts_with("HTTP/1.1 101"), "{}", exec.head);
        let slow = async |http| {
            let begun = Instant::now();
            let answer = node.alice().get(node.address(), http, "/api/v1/namespaces/default/secrets").await;
            assert_eq!(answer.status, 200, "{http:?}: {}", answer.text());
            assert!(begun.elapsed() >= IDLE * 3);
        };
        tokio::join!(slow(Http::One), slow(Http::Two));
        assert_eq!(exec.echo(b"still there").await.unwrap(), b"still there");
    });
}
