//! Two stand-ins on one store, in this process and over its socket.

use mvproxy_tests::client::{Client, ClientOptions, Trust};
use mvproxy_tests::pki::{Pki, Subject};
use mvproxy_tests::standin::{Standin, StandinOptions};
use mvproxy_tests::store::{Expected, Key, Store, StoreError};
use serde_json::{Value, json};
use tokio::net::UnixListener;

use super::watch::Watch;
use super::{Rig, create_config_map, eventually, get};

const COUNTER: &str = "/api/v1/namespaces/default/configmaps/counter";

/// A store behind a socket, and its path.
fn store_on_a_socket(dir: &tempfile::TempDir) -> std::path::PathBuf {
    let path = dir.path().join("store.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move { Store::in_memory().serve(listener).await });
    path
}

async fn increment(client: &mut Client, times: u64) {
    for _ in 0..times {
        loop {
            let mut object = get(client, COUNTER, &[]).await.json().unwrap();
            let count: u64 = object["data"]["count"].as_str().unwrap_or("0").parse().unwrap();
            object["data"]["count"] = (count + 1).to_string().into();
            match client.send_json("PUT", COUNTER, &object).await.unwrap().status.as_u16() {
                200 => break,
                409 => {}
                other => panic!("{other}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_share_objects_revisions_and_watches_over_a_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = store_on_a_socket(&dir);
    let pki = Pki::generate().unwrap();
    let subject = Subject { common_name: "admin", organizations: &["system:masters"], uid: None };
    let identity = pki.client(&subject).unwrap();
    let mut rigs = Vec::new();
    for (name, documents) in [("old", "v1.34"), ("new", "v1.36-all")] {
        let store = Store::connect(&path).await.unwrap();
        let options = StandinOptions::from_pki(&pki, name, documents, &store).unwrap();
        rigs.push((Standin::start(options).await.unwrap(), store));
    }
    let connect = |standin: &Standin| {
        let options =
            ClientOptions::new(standin.addr, Trust::Ca(pki.ca_pem().to_owned())).with_identity(&identity);
        async move { Client::connect(&options).await.unwrap() }
    };
    let (mut old, mut new) = (connect(&rigs[0].0).await, connect(&rigs[1].0).await);

    let (standin, store) = rigs.remove(0);
    let rig = Rig { pki, store, standin };
    let mut watch = Watch::start(&rig, "/api/v1/configmaps?watch=true").await;
    create_config_map(&mut new, "counter").await;
    assert_eq!(watch.next_name().await, ("ADDED".to_owned(), "counter".to_owned()));

    let writes = tokio::join!(increment(&mut old, 25), increment(&mut new, 25));
    assert_eq!(writes, ((), ()));
    let object = get(&mut old, COUNTER, &[]).await.json().unwrap();
    assert_eq!(object["data"]["count"], "50", "no lost update");
    let mut last = 0;
    for count in 1..=50 {
        let event = watch.next().await.unwrap();
        assert_eq!(event["object"]["data"]["count"], count.to_string(), "every write once and in order");
        let revision: u64 = event["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
        assert!(revision > last);
        last = revision;
    }

    // Only the new server knows the version, both see the object.
    let beta = "/apis/networking.k8s.io/v1beta1/ipaddresses";
    let address = json!({"metadata": {"name": "10.0.0.9"}, "spec": {}});
    assert_eq!(old.send_json("POST", beta, &address).await.unwrap().text(), "404 page not found\n");
    assert_eq!(new.send_json("POST", beta, &address).await.unwrap().status, 201);
    let seen = get(&mut old, "/apis/networking.k8s.io/v1/ipaddresses/10.0.0.9", &[]).await.json().unwrap();
    assert_eq!(seen["apiVersion"], "networking.k8s.io/v1");
}

#[tokio::test]
async fn servers_announce_themselves_and_withdraw() {
    let rig = Rig::start("v1.36-all").await;
    let options = StandinOptions::from_pki(&rig.pki, "node-b", "v1.34", &rig.store).unwrap();
    let second = StandinOptions { advertise: Some("127.0.0.2".parse().unwrap()), ..options };
    let second = Standin::start(second).await.unwrap();
    let mut client = rig.admin().await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases?labelSelector=apiserver.kubernetes.io/identity";
    let slice = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
    let list = get(&mut client, leases, &[]).await.json().unwrap();
    let announced: Vec<bool> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|lease| lease["metadata"]["annotations"].get("kubernetes.io/peer-advertise-address").is_some())
        .collect();
    assert_eq!(announced.iter().filter(|announced| **announced).count(), 1, "only 1.36 announces: {list}");
    assert_eq!(announced.len(), 2);
    let addresses = |slice: &Value| -> Vec<String> {
        let endpoints = slice["endpoints"].as_array().unwrap().iter();
        endpoints.map(|one| one["addresses"][0].as_str().unwrap().to_owned()).collect()
    };
    let before = get(&mut client, slice, &[]).await.json().unwrap();
    assert_eq!(addresses(&before), ["127.0.0.1", "127.0.0.2"]);
    assert_eq!(before["ports"][0]["port"], second.addr.port());
    second.stop().await.unwrap();
    assert_eq!(addresses(&get(&mut client, slice, &[]).await.json().unwrap()), ["127.0.0.1"]);
    assert_eq!(get(&mut client, leases, &[]).await.json().unwrap()["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_lost_store_is_an_error_and_a_returned_one_is_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.sock");
    let inner = Store::in_memory();
    let serve = |inner: Store| {
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move { inner.serve(listener).await })
    };
    let task = serve(inner.clone());
    let store = Store::connect(&path).await.unwrap();
    let key = Key::new("", "configmaps", "default", "x");
    let entry = store.put(&key, json!({"a": 1}), Expected::Absent).await.unwrap();
    assert_eq!(
        store.put(&key, json!({}), Expected::Absent).await,
        Err(StoreError::Conflict { current: Some(entry.revision) })
    );
    task.abort();
    std::fs::remove_file(&path).unwrap();
    eventually("the store is unreachable", async || {
        matches!(store.get(&key).await, Err(StoreError::Unreachable { .. }))
    })
    .await;
    serve(inner);
    eventually("the store is back", async || store.get(&key).await == Ok(Some(entry.clone()))).await;
}
