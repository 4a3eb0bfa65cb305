//! exec, attach and port-forward: a connection that stops being HTTP passes both ways, half-closes included.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mvproxy_tests::standin::{Documents, websocket_accept};
use support::{BOTH, Caller, Cluster, Http, Upgraded, bounded, promptly, request};

const EXEC: &str = "/api/v1/namespaces/default/pods/p/exec?command=sh&stdin=true";
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const SPDY: &[&str] = &[
    "Connection: Upgrade",
    "Upgrade: SPDY/3.1",
    "X-Stream-Protocol-Version: v4.channel.k8s.io",
    "Content-Length: 0",
];
const WEBSOCKET: &[&str] = &[
    "Connection: keep-alive, Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol: v5.channel.k8s.io",
];

/// A cluster in which pods are served by the new server only, or by both, and there is one.
async fn cluster_with_pod(only_new: bool) -> Cluster {
    let load = |name| Documents::load(name).unwrap();
    let old = if only_new { load("v1.34").without_resource("", "v1", "pods") } else { load("v1.34") };
    let cluster = Cluster::start_with(old, load("v1.36-all"), &[]).await;
    let pod = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}
    });
    let mut admin = Caller::admin(&cluster.pki).connect(cluster.new.standin.addr, Http::Two).await;
    let created = admin.json("POST", "/api/v1/namespaces/default/pods", &pod).await;
    assert_eq!(created.status, 201, "{}", created.text());
    cluster
}

fn header<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
}

async fn exec(caller: &Caller, cluster: &Cluster, headers: &[&str]) -> Upgraded {
    let upgraded = Upgraded::ask(caller, cluster.old.proxy.address, EXEC, headers).await.unwrap();
    assert!(upgraded.head.starts_with("HTTP/1.1 101 "), "{}", upgraded.head);
    upgraded
}

/// The streams of exec through `cluster`'s old node.
async fn echoes(cluster: &Cluster) {
    for caller in [Caller::alice(&cluster.pki), Caller::bob(&cluster.pki)] {
        for headers in [SPDY, WEBSOCKET] {
            let mut upgraded = exec(&caller, cluster, headers).await;
            assert_eq!(header(&upgraded.head, "connection"), ["Upgrade"]);
            if headers == SPDY {
                assert_eq!(header(&upgraded.head, "upgrade"), ["SPDY/3.1"]);
                assert_eq!(header(&upgraded.head, "x-stream-protocol-version"), ["v4.channel.k8s.io"]);
            } else {
                assert_eq!(header(&upgraded.head, "upgrade"), ["websocket"]);
                assert_eq!(header(&upgraded.head, "sec-websocket-accept"), [websocket_accept(KEY)]);
                assert_eq!(header(&upgraded.head, "sec-websocket-protocol"), ["v5.channel.k8s.io"]);
            }
            for bytes in [&b"a"[..], b"\0\x80\xff\r\n\r\n", &vec![7; 300_000]] {
                let (sent, back) = (bytes.len(), upgraded.echo(bytes).await.unwrap());
                assert!(back == bytes, "{sent} bytes came back as {}", back.len());
            }
            tokio::io::AsyncWriteExt::write_all(&mut upgraded.stream, b"last words").await.unwrap();
            let rest = upgraded.finish().await.unwrap();
            assert_eq!(rest, b"last words", "what was on its way arrives after the half-close");
        }
    }
}

#[test]
fn exec_echoes_both_ways_through_the_local_server() {
    bounded(async {
        let cluster = cluster_with_pod(false).await;
        echoes(&cluster).await;
        assert_eq!(cluster.old.requests_for(EXEC).len(), 4);
        assert!(cluster.new.requests_for(EXEC).is_empty());
    });
}

#[test]
fn exec_in_a_pod_that_only_the_new_server_serves_is_rerouted() {
    bounded(async {
        let cluster = cluster_with_pod(true).await;
        echoes(&cluster).await;
        let seen = cluster.new.requests_for(EXEC);
        assert_eq!(seen.len(), 4);
        assert!(seen.iter().all(|request| request.peer_proxied));
        let users: Vec<_> = seen.into_iter().map(|request| request.user.unwrap().name).collect();
        assert_eq!(users, ["alice", "alice", "bob", "bob"]);
        assert!(cluster.old.requests_for(EXEC).is_empty());
    });
}

#[test]
fn a_browsers_token_in_the_websocket_protocol_counts() {
    bounded(async {
        let cluster = cluster_with_pod(false).await;
        for (token, wanted) in [("bob-token", "HTTP/1.1 101 "), ("wrong", "HTTP/1.1 401 ")] {
            let encoded = URL_SAFE_NO_PAD.encode(token);
            let protocol = format!(
                "Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.{encoded}, v5.channel.k8s.io"
            );
            let headers = [&WEBSOCKET[..4], &[&protocol]].concat();
            let (nobody, address) = (Caller::nobody(&cluster.pki), cluster.old.proxy.address);
            let upgraded = Upgraded::ask(&nobody, address, EXEC, &headers).await.unwrap();
            assert!(upgraded.head.starts_with(wanted), "{token}: {}", upgraded.head);
        }
    });
}

#[test]
fn a_refused_upgrade_is_relayed_whole() {
    bounded(async {
        let cluster = cluster_with_pod(false).await;
        let missing = "/api/v1/namespaces/default/pods/missing/exec";
        let nonsense = ["Connection: Upgrade", "Upgrade: nonsense/1"];
        let wrong = Caller::nobody(&cluster.pki).token("wrong").labelled("a wrong token");
        for (caller, target, headers, status) in [
            (Caller::alice(&cluster.pki), missing, SPDY, 404),
            (Caller::alice(&cluster.pki), EXEC, &nonsense[..], 400),
            (Caller::nobody(&cluster.pki), EXEC, WEBSOCKET, 403),
            (wrong, EXEC, SPDY, 401),
        ] {
            let mut answers = Vec::new();
            for address in [cluster.old.standin.addr, cluster.old.proxy.address] {
                let mut refused = Upgraded::ask(&caller, address, target, headers).await.unwrap();
                let length = header(&refused.head, "content-length")[0].parse().unwrap();
                let mut body = vec![0; length];
                let read = tokio::io::AsyncReadExt::read_exact(&mut refused.stream, &mut body);
                promptly("the refusal", read).await.unwrap();
                let first = refused.head.lines().next().unwrap().to_owned();
                let media_type = header(&refused.head, "content-type").concat();
                answers.push((first, media_type, String::from_utf8(body).unwrap()));
            }
            assert!(answers[0].0.starts_with(&format!("HTTP/1.1 {status} ")), "{answers:?}");
            assert_eq!(answers[0], answers[1], "{}", caller.label);
        }
    });
}

#[test]
fn exec_without_an_upgrade_is_refused_as_straight() {
    bounded(async {
        let cluster = cluster_with_pod(false).await;
        let alice = Caller::alice(&cluster.pki);
        for http in BOTH {
            for method in ["POST", "GET"] {
                let straight = alice.ask(cluster.old.standin.addr, http, request(method, EXEC)).await;
                let through = alice.ask(cluster.old.proxy.address, http, request(method, EXEC)).await;
                assert_eq!((straight.status, straight.text()), (through.status, through.text()));
            }
        }
    });
}

#[test]
fn an_exec_ends_when_either_side_dies() {
    bounded(async {
        let cluster = cluster_with_pod(true).await;
        let mut upgraded = exec(&Caller::alice(&cluster.pki), &cluster, SPDY).await;
        upgraded.echo(b"alive").await.unwrap();
        drop(cluster.new);
        let mut rest = Vec::new();
        let ended = tokio::io::AsyncReadExt::read_to_end(&mut upgraded.stream, &mut rest);
        // However it ends, it must not stay open.
        let _ = promptly("the stream ends with its server", ended).await;
        assert!(rest.is_empty());
    });
}
