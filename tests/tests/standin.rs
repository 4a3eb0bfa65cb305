//! Shows that the stand-in API server behaves as the recorded kube-apiserver does.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use mvproxy_tests::client::{Answer, Client, ClientOptions, Trust};
use mvproxy_tests::pki::{Pki, Subject};
use mvproxy_tests::standin::{Standin, StandinOptions};
use mvproxy_tests::store::Store;
use serde_json::{Value, json};

#[path = "standin/authentication.rs"]
mod authentication;
#[path = "standin/command_line.rs"]
mod command_line;
#[path = "standin/connections.rs"]
mod connections;
#[path = "standin/discovery.rs"]
mod discovery;
#[path = "standin/loopback.rs"]
mod loopback;
#[path = "standin/sharing.rs"]
mod sharing;
#[path = "standin/storage.rs"]
mod storage;
#[path = "standin/upgrade.rs"]
mod upgrade;
#[path = "standin/watch.rs"]
mod watch;

/// The bearer token of `bob`.
const BOB: &str = "Bearer bob-token";

/// One stand-in with its certificates.
struct Rig {
    pki: Pki,
    store: Store,
    standin: Standin,
}

impl Rig {
    async fn start(documents: &str) -> Self {
        Self::start_with(documents, |_| {}).await
    }

    async fn start_with(documents: &str, adjust: impl FnOnce(&mut StandinOptions)) -> Self {
        let pki = Pki::generate().unwrap();
        let store = Store::in_memory();
        let mut options = StandinOptions::from_pki(&pki, "node-a", documents, &store).unwrap();
        adjust(&mut options);
        let standin = Standin::start(options).await.unwrap();
        Self { pki, store, standin }
    }

    /// Options of a client that believes the server and has no certificate.
    fn stranger(&self) -> ClientOptions {
        ClientOptions::new(self.standin.addr, Trust::Ca(self.pki.ca_pem().to_owned()))
    }

    /// Options of a client in system:masters.
    fn admin_options(&self) -> ClientOptions {
        let subject =
            Subject { common_name: "kubernetes-admin", organizations: &["system:masters"], uid: None };
        self.stranger().with_identity(&self.pki.client(&subject).unwrap())
    }

    async fn admin(&self) -> Client {
        Client::connect(&self.admin_options()).await.unwrap()
    }
}

/// GETs `target` with some headers.
async fn get(client: &mut Client, target: &str, headers: &[(&str, &str)]) -> Answer {
    client.fetch(request("GET", target, headers)).await.unwrap()
}

fn request(method: &str, target: &str, headers: &[(&str, &str)]) -> Request<Bytes> {
    let request = Request::builder().method(method).uri(target);
    headers
        .iter()
        .fold(request, |request, (name, value)| request.header(*name, *value))
        .body(Bytes::new())
        .unwrap()
}

/// Creates a `ConfigMap` in `default` and returns it as stored.
async fn create_config_map(client: &mut Client, name: &str) -> Value {
    let object = json!({"metadata": {"name": name}, "data": {"a": "b"}});
    let answer = client.send_json("POST", "/api/v1/namespaces/default/configmaps", &object).await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json().unwrap()
}

/// Reads a recorded answer of v1.36-all.
fn recorded(file: &str) -> String {
    let path = format!("{}/fixtures/kube-apiserver/v1.36-all/{file}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

/// Waits until `condition` holds, for five seconds at most.
async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    for _ in 0..250 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("did not happen within five seconds: {what}");
}
