//! The number of connections is bounded; who comes beyond it meets the API server itself.

use std::net::Ipv4Addr;
use std::time::Duration;

use mvproxy::limits::TimeLimits;
use mvproxy_tests::client::{Client, connect_tls};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::node::{NEVER, Node};
use super::support::{BOTH, Http, Session, Upgraded, bounded, ensure, eventually, exchange, promptly};

/// What a worker passes on beyond its limit, and of one source.
const PASSED_ON: usize = 64;
const PASSED_ON_PER_SOURCE: usize = 16;

async fn start(flags: &[&str]) -> Node {
    let flags = [&["--workers=1"], flags].concat();
    let node = Node::start(&flags, TimeLimits { handshake: NEVER, header: NEVER, idle: NEVER }).await;
    node.proxy.ready().await;
    node
}

/// Asks for something nobody else asks for; says whether the request passed through the proxy.
async fn is_proxied(node: &Node, session: &mut Session, question: &str) -> bool {
    let target = format!("/version?asked={question}");
    let answer = session.get(&target).await;
    assert_eq!(answer.status, 200, "{question}: {}", answer.text());
    let requests = node.standin.requests();
    let request = requests.iter().find(|request| request.target == target).expect("it arrived");
    // The proxy asserts its clients' identities in headers.
    request.headers.contains_key("x-remote-user")
}

async fn ended(node: &Node, reason: &str) -> u64 {
    node.proxy.metrics().await.sum("mvproxy_client_connections_ended_total", &[("reason", reason)])
}

async fn open_connections(node: &Node) -> u64 {
    node.proxy.metrics().await.sum("mvproxy_client_connections", &[])
}

async fn workers(node: &Node, state: &str) -> u64 {
    node.proxy.metrics().await.sum("mvproxy_workers", &[("state", state)])
}

#[test]
fn a_connection_beyond_the_limit_meets_the_api_server_itself() {
    bounded(async {
        let node = start(&["--max-connections=3"]).await;
        for http in BOTH {
            let mut sessions = Vec::new();
            for number in 1..=3 {
                let mut session = node.alice().connect(node.address(), http).await;
                assert!(is_proxied(&node, &mut session, &format!("{http:?}-within-{number}")).await);
                sessions.push(session);
            }
            assert_eq!((workers(&node, "at_limit").await, workers(&node, "serves").await), (1, 0));
            let readyz = node.readyz().await;
            let line = "[+]mixed-version-proxy-workers excluded: 1 of 1 take no new connections: at --max-connections\n";
            assert!(readyz.contains(line), "{readyz}");

            let mut beyond = node.alice().connect(node.address(), http).await;
            assert!(!is_proxied(&node, &mut beyond, &format!("{http:?}-beyond")).await);
            for (number, session) in sessions.iter_mut().enumerate() {
                assert!(is_proxied(&node, session, &format!("{http:?}-still-{number}")).await);
            }

            sessions.pop();
            eventually("the place is free", async || {
                let serving = workers(&node, "serves").await;
                ensure(serving == 1, || format!("{serving} workers serve"))
            })
            .await;
            assert!(!node.readyz().await.contains("workers"), "{}", node.readyz().await);
            let mut next = node.alice().connect(node.address(), http).await;
            assert!(is_proxied(&node, &mut next, &format!("{http:?}-next")).await);
            drop((beyond, next, sessions));
            eventually("all places are free", async || {
                let open = open_connections(&node).await;
                ensure(open == 0, || format!("{open} connections"))
            })
            .await;
        }
        assert_eq!(ended(&node, "passed_on").await, 2);
    });
}

#[test]
fn a_noisy_source_leaves_room_for_others_beyond_the_limit() {
    bounded(async {
        let node = start(&["--max-connections=1"]).await;
        let mut first = node.alice().connect(node.address(), Http::Two).await;
        let options = |last: u8| {
            node.alice().options(node.address(), Http::Two).from_source(Ipv4Addr::new(127, 0, 0, last).into())
        };
        let mut noisy = Vec::new();
        for _ in 0..PASSED_ON_PER_SOURCE {
            noisy.push(Client::connect(&options(2)).await.unwrap());
        }
        for _ in 0..3 {
            let refused = promptly("a further one is closed", Client::connect(&options(2))).await;
            assert!(refused.is_err());
        }
        let mut quiet = Client::connect(&options(3)).await.unwrap();
        assert_eq!(quiet.get("/version").await.unwrap().status, 200);
        assert_eq!(noisy[0].get("/version").await.unwrap().status, 200);
        assert_eq!((ended(&node, "passed_on").await, ended(&node, "limit").await), (17, 3));
        // All places at last, by sources of which none is noisy.
        let mut last = 4;
        while noisy.len() + 1 < PASSED_ON {
            noisy.push(Client::connect(&options(last)).await.unwrap());
            last += 1;
        }
        let refused = promptly("a further one is closed", Client::connect(&options(last))).await;
        assert!(refused.is_err());
        drop(noisy);
        eventually("places beyond the limit are free again", async || {
            let asked = async { Client::connect(&options(2)).await?.get("/version").await };
            asked.await.map(drop).map_err(|error| format!("{error:#}"))
        })
        .await;
        assert!(is_proxied(&node, &mut first, "first").await);
    });
}

#[test]
fn what_is_upgraded_or_passed_on_untouched_keeps_its_place_to_its_end() {
    bounded(async {
        let node = start(&["--max-connections=2"]).await;
        let mut session = node.alice().connect(node.address(), Http::Two).await;
        let pod = serde_json::json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}});
        assert_eq!(session.json("POST", "/api/v1/namespaces/default/pods", &pod).await.status, 201);
        drop(session);
        eventually("nothing is open", async || {
            let open = open_connections(&node).await;
            ensure(open == 0, || format!("{open} connections"))
        })
        .await;

        let exec = "/api/v1/namespaces/default/pods/p/exec?command=sh&stdin=true";
        let upgrade = ["Connection: Upgrade", "Upgrade: SPDY/3.1", "Content-Length: 0"];
        let mut exec = Upgraded::ask(&node.alice(), node.address(), exec, &upgrade).await.unwrap();
        assert!(exec.head.starts_with("HTTP/1.1 101"), "{}", exec.head);
        assert_eq!(exec.echo(b"hello").await.unwrap(), b"hello");
        assert_eq!(open_connections(&node).await, 1, "an exec");
        // No TLS: the API server says what it thinks of that.
        let mut plain = TcpStream::connect(node.address()).await.unwrap();
        plain.write_all(b"GET ").await.unwrap();
        eventually("both are counted, and at the limit", async || {
            let counted = (open_connections(&node).await, workers(&node, "at_limit").await);
            ensure(counted == (2, 1), || format!("{counted:?}"))
        })
        .await;
        drop(plain);
        exec.finish().await.unwrap();
        eventually("their places are free", async || {
            let counted = (open_connections(&node).await, workers(&node, "serves").await);
            ensure(counted == (0, 1), || format!("{counted:?}"))
        })
        .await;
    });
}

#[test]
fn a_limit_on_sources_leaves_this_node_alone() {
    bounded(async {
        let node = start(&["--max-connections-per-source=1"]).await;
        let mut sessions = Vec::new();
        for number in 0..3 {
            let mut session = node.alice().connect(node.address(), Http::Two).await;
            assert!(is_proxied(&node, &mut session, &format!("of-this-node-{number}")).await);
            sessions.push(session);
        }
        assert_eq!((open_connections(&node).await, ended(&node, "source_limit").await), (3, 0));
    });
}

#[test]
fn silent_connections_use_up_no_more_than_their_places() {
    bounded(async {
        let header = Duration::from_secs(1);
        let limits = TimeLimits { handshake: header, header, idle: NEVER };
        let node = Node::start(&["--workers=1", "--max-connections=8"], limits).await;
        node.proxy.ready().await;
        // More than there are places, and more than are passed on of one source.
        let mut silent = Vec::new();
        for _ in 0..40 {
            silent.push(TcpStream::connect(node.address()).await.unwrap());
        }
        eventually("the noisy source is served again", async || {
            let options = node.alice().options(node.address(), Http::One);
            let request = b"GET /version HTTP/1.1\r\nHost: k\r\nConnection: close\r\n\r\n";
            let answer = exchange(&options, request).await.map_err(|error| format!("{error:#}"))?;
            ensure(answer.starts_with("HTTP/1.1 200"), || answer)
        })
        .await;
        eventually("all have timed out", async || {
            let timed_out = ended(&node, "handshake_timeout").await;
            ensure(timed_out == 8, || format!("{timed_out}"))
        })
        .await;
        let mut stream = connect_tls(&node.alice().options(node.address(), Http::One)).await.unwrap();
        stream.shutdown().await.unwrap();
    });
}
