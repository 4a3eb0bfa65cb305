//! exec switches protocols and echoes.

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use mvproxy_tests::client::Client;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Rig, request};

const EXEC: &str = "/api/v1/namespaces/default/pods/p/exec?command=ls";

fn upgrade(method: &str, protocol: &str) -> Request<Bytes> {
    request(
        method,
        EXEC,
        &[
            ("Connection", "Upgrade"),
            ("Upgrade", protocol),
            ("X-Stream-Protocol-Version", "v4.channel.k8s.io"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Protocol", "v5.channel.k8s.io"),
        ],
    )
}

async fn assert_echoes(response: Response<Incoming>) {
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    let sent = vec![7_u8; 100_000];
    let (mut read, mut write) = tokio::io::split(&mut stream);
    let mut echoed = vec![0; sent.len()];
    let (written, reading) = tokio::join!(write.write_all(&sent), read.read_exact(&mut echoed));
    written.unwrap();
    reading.unwrap();
    assert_eq!(echoed, sent);
}

#[tokio::test]
async fn echoes_over_spdy_and_websocket() {
    let rig = Rig::start("v1.36").await;
    let mut admin = rig.admin().await;
    let missing = admin.fetch(upgrade("POST", "SPDY/3.1")).await.unwrap();
    assert_eq!(
        (missing.status.as_u16(), missing.json().unwrap()["message"].clone()),
        (404, "pods \"p\" not found".into())
    );
    let pod = json!({"metadata": {"name": "p"}, "spec": {}});
    admin.send_json("POST", "/api/v1/namespaces/default/pods", &pod).await.unwrap();

    let response = rig.admin().await.send(upgrade("POST", "SPDY/3.1")).await;
    let response = response.unwrap();
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["upgrade"], "SPDY/3.1");
    assert_eq!(response.headers()["x-stream-protocol-version"], "v4.channel.k8s.io");

    let mut client = rig.admin().await;
    assert_echoes(client.send(upgrade("POST", "SPDY/3.1")).await.unwrap()).await;

    let mut client = rig.admin().await;
    let response = client.send(upgrade("GET", "websocket")).await.unwrap();
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(response.headers()["sec-websocket-protocol"], "v5.channel.k8s.io");
    assert_echoes(response).await;

    let mut client = Client::connect(&rig.admin_options().with_http2()).await.unwrap();
    assert_eq!(client.fetch(request("POST", EXEC, &[])).await.unwrap().status, 400);
    let mut client = rig.admin().await;
    assert_eq!(client.fetch(request("POST", EXEC, &[])).await.unwrap().status, 400);
    let mut client = Client::connect(&rig.stranger()).await.unwrap();
    assert_eq!(client.fetch(upgrade("POST", "SPDY/3.1")).await.unwrap().status, 403);
}
