//! Watches: what they begin with, what they resume from, how they end.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use mvproxy_tests::client::Client;
use mvproxy_tests::store::Store;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Rig, create_config_map, get, recorded, request};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A running watch, read line by line.
pub(super) struct Watch {
    _client: Client,
    body: Incoming,
    buffer: Vec<u8>,
}

impl Watch {
    pub(super) async fn start(rig: &Rig, target: &str) -> Self {
        let mut client = rig.admin().await;
        let response = client.send(request("GET", target, &[])).await.unwrap();
        assert_eq!(response.status(), 200);
        Self { _client: client, body: response.into_body(), buffer: Vec::new() }
    }

    /// The next event; none when the watch ended properly.
    pub(super) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame =
                timeout(Duration::from_secs(5), self.body.frame()).await.expect("no event for five seconds");
            self.buffer.extend(frame?.unwrap().into_data().unwrap());
        }
    }

    /// Type and name of the next event.
    pub(super) async fn next_name(&mut self) -> (String, String) {
        let event = self.next().await.expect("the watch ended");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&event["type"]), text(&event["object"]["metadata"]["name"]))
    }
}

fn named(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn resumes_after_any_revision() {
    let rig = Rig::start("v1.34").await;
    let mut client = rig.admin().await;
    let first = create_config_map(&mut client, "one").await;
    create_config_map(&mut client, "two").await;
    client.send_json("DELETE", &format!("{MAPS}/one"), &json!({})).await.unwrap();

    let mut watch =
        Watch::start(&rig, &format!("{MAPS}?watch=true&resourceVersion={}", revision(&first))).await;
    assert_eq!(watch.next_name().await, named("ADDED", "two"));
    let deleted = watch.next().await.unwrap();
    assert_eq!(
        (deleted["type"].clone(), revision(&deleted["object"])),
        ("DELETED".into(), revision(&first) + 2)
    );
    create_config_map(&mut client, "three").await;
    assert_eq!(watch.next_name().await, named("ADDED", "three"));

    for version in ["", "0"] {
        let mut watch =
            Watch::start(&rig, &format!("/api/v1/configmaps?watch=1&resourceVersion={version}")).await;
        assert_eq!(watch.next_name().await, named("ADDED", "three"));
        assert_eq!(watch.next_name().await, named("ADDED", "two"));
    }
    let mut legacy = Watch::start(&rig, "/api/v1/watch/namespaces/default/configmaps/two").await;
    assert_eq!(legacy.next_name().await, named("ADDED", "two"));
}

#[tokio::test]
async fn events_have_the_recorded_shape() {
    let rig = Rig::start("v1.36-all").await;
    let mut client = rig.admin().await;
    let list = get(&mut client, MAPS, &[]).await.json().unwrap();
    let mut watch =
        Watch::start(&rig, &format!("{MAPS}?watch=true&resourceVersion={}", revision(&list))).await;
    create_config_map(&mut client, "w1").await;
    client.send_json("DELETE", &format!("{MAPS}/w1"), &json!({})).await.unwrap();
    for line in recorded("watch-configmaps.jsonl").lines().take(2) {
        let mut real: Value = serde_json::from_str(line).unwrap();
        let found = watch.next().await.unwrap();
        // Field ownership is the one thing that is not kept here.
        real["object"]["metadata"].as_object_mut().unwrap().remove("managedFields");
        for field in ["uid", "resourceVersion", "creationTimestamp"] {
            real["object"]["metadata"][field] = found["object"]["metadata"][field].clone();
        }
        assert_eq!(found, real);
    }
}

#[tokio::test]
async fn bookmarks_carry_the_revision_and_timeouts_end_the_watch() {
    let rig =
        Rig::start_with("v1.34", |options| options.bookmark_interval = Duration::from_millis(100)).await;
    let mut client = rig.admin().await;
    let list = get(&mut client, MAPS, &[]).await.json().unwrap();
    let query = "watch=true&allowWatchBookmarks=true&timeoutSeconds=1";
    let mut watch = Watch::start(&rig, &format!("{MAPS}?{query}&resourceVersion={}", revision(&list))).await;
    let secrets = "/api/v1/namespaces/default/secrets";
    let other =
        client.send_json("POST", secrets, &json!({"metadata": {"name": "s"}})).await.unwrap().json().unwrap();
    let mut newest = 0;
    while let Some(event) = watch.next().await {
        assert_eq!(event["type"], "BOOKMARK");
        assert_eq!(event["object"]["kind"], "ConfigMap");
        newest = newest.max(revision(&event["object"]));
    }
    assert!(newest >= revision(&other), "bookmarks advance with writes elsewhere");

    let initial = format!(
        "{MAPS}?watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
    );
    create_config_map(&mut client, "one").await;
    let mut watch = Watch::start(&rig, &initial).await;
    assert_eq!(watch.next_name().await, named("ADDED", "one"));
    let end = watch.next().await.unwrap();
    assert_eq!(end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
}

#[tokio::test]
async fn a_forgotten_revision_is_answered_410() {
    let rig = Rig::start_with("v1.34", |options| options.store = Store::with_history_limit(2)).await;
    let mut client = rig.admin().await;
    let mut newest = 0;
    for name in ["a", "b", "c", "d"] {
        newest = revision(&create_config_map(&mut client, name).await);
    }
    let mut watch = Watch::start(&rig, &format!("{MAPS}?watch=true&resourceVersion=1")).await;
    let found = watch.next().await.unwrap();
    let real: Value = serde_json::from_str(&recorded("watch-too-old.json")).unwrap();
    let mut expected = real.clone();
    expected["object"]["message"] = format!("too old resource version: 1 ({newest})").into();
    assert_eq!(found, expected);
    assert_eq!(watch.next().await, None, "the watch ends after the error");
}

#[tokio::test]
async fn changes_of_the_selection_look_like_creation_and_deletion() {
    let rig = Rig::start("v1.34").await;
    let mut client = rig.admin().await;
    create_config_map(&mut client, "one").await;
    let mut watch = Watch::start(&rig, &format!("{MAPS}?watch=true&labelSelector=on")).await;
    let mut label = async |value: Value| {
        let patch = json!({"metadata": {"labels": {"on": value}}}).to_string();
        let request = http::Request::patch(format!("{MAPS}/one"))
            .header("content-type", "application/merge-patch+json");
        assert_eq!(client.fetch(request.body(patch.into()).unwrap()).await.unwrap().status, 200);
    };
    label(json!("1")).await;
    label(json!("2")).await;
    label(Value::Null).await;
    for kind in ["ADDED", "MODIFIED", "DELETED"] {
        assert_eq!(watch.next_name().await, named(kind, "one"));
    }
}
