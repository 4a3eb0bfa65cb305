//! Objects: created, read, listed, changed and deleted.

use bytes::Bytes;
use http::Request;
use mvproxy_tests::client::{Answer, Client};
use serde_json::{Value, json};

use super::{Rig, create_config_map, get};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn patch(client: &mut Client, target: &str, kind: &str, body: &Value) -> Answer {
    let request = Request::patch(target).header("content-type", kind);
    client.fetch(request.body(Bytes::from(body.to_string())).unwrap()).await.unwrap()
}

fn reason(answer: &Answer) -> (u16, String) {
    (answer.status.as_u16(), answer.json().unwrap()["reason"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn an_object_lives_its_life() {
    let rig = Rig::start("v1.34").await;
    let mut client = rig.admin().await;
    let created = create_config_map(&mut client, "one").await;
    assert_eq!((created["kind"].clone(), created["apiVersion"].clone()), ("ConfigMap".into(), "v1".into()));
    assert_eq!(created["metadata"]["namespace"], "default");
    assert_eq!(created["metadata"]["uid"].as_str().unwrap().len(), 36);
    let target = format!("{MAPS}/one");
    assert_eq!(get(&mut client, &target, &[]).await.json().unwrap(), created);

    let again = client.send_json("POST", MAPS, &json!({"metadata": {"name": "one"}})).await.unwrap();
    assert_eq!(reason(&again), (409, "AlreadyExists".to_owned()));

    let mut changed = created.clone();
    changed["data"] = json!({"a": "c"});
    let updated = client.send_json("PUT", &target, &changed).await.unwrap().json().unwrap();
    assert_eq!(updated["metadata"]["uid"], created["metadata"]["uid"]);
    assert_ne!(updated["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"]);
    let stale = client.send_json("PUT", &target, &created).await.unwrap();
    assert_eq!(reason(&stale), (409, "Conflict".to_owned()));
    let unchanged = client.send_json("PUT", &target, &updated).await.unwrap().json().unwrap();
    assert_eq!(unchanged, updated, "a write that changes nothing is none");

    let change = json!({"data": {"a": null, "x": "y"}});
    let merged = patch(&mut client, &target, "application/merge-patch+json", &change).await;
    assert_eq!(merged.json().unwrap()["data"], json!({"x": "y"}));
    let refused = patch(&mut client, &target, "application/json-patch+json", &json!([])).await;
    assert_eq!(reason(&refused), (415, "UnsupportedMediaType".to_owned()));

    let deleted = client.send_json("DELETE", &target, &json!({})).await.unwrap().json().unwrap();
    assert_eq!(deleted["status"], "Success");
    assert_eq!(deleted["details"]["uid"], created["metadata"]["uid"]);
    assert_eq!(reason(&get(&mut client, &target, &[]).await), (404, "NotFound".to_owned()));
}

#[tokio::test]
async fn apply_creates_and_then_changes() {
    let rig = Rig::start("v1.36-all").await;
    let mut client = rig.admin().await;
    let target = "/apis/networking.k8s.io/v1beta1/ipaddresses/10.0.0.9?fieldManager=test";
    let yaml =
        "apiVersion: networking.k8s.io/v1beta1\nkind: IPAddress\nspec:\n  parentRef: {resource: services}\n";
    for status in [201, 200] {
        let request = Request::patch(target).header("content-type", "application/apply-patch+yaml");
        let answer = client.fetch(request.body(Bytes::from(yaml)).unwrap()).await.unwrap();
        assert_eq!(answer.status.as_u16(), status, "{}", answer.text());
    }
    // The same object in another version of its group.
    let other =
        get(&mut client, "/apis/networking.k8s.io/v1/ipaddresses/10.0.0.9", &[]).await.json().unwrap();
    assert_eq!(other["apiVersion"], "networking.k8s.io/v1");
    assert_eq!(other["spec"]["parentRef"]["resource"], "services");
}

#[tokio::test]
async fn lists_page_and_select() {
    let rig = Rig::start("v1.34").await;
    let mut client = rig.admin().await;
    for (name, label) in [("a", "x"), ("b", "y"), ("c", "x")] {
        let object = json!({"metadata": {"name": name, "labels": {"l": label}}});
        assert_eq!(client.send_json("POST", MAPS, &object).await.unwrap().status, 201);
    }
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap().iter();
        items.map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let first = get(&mut client, &format!("{MAPS}?limit=2"), &[]).await.json().unwrap();
    assert_eq!(
        (names(&first), first["kind"].clone()),
        (vec!["a".to_owned(), "b".to_owned()], "ConfigMapList".into())
    );
    assert_eq!(first["metadata"]["remainingItemCount"], 1);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let rest = get(&mut client, &format!("{MAPS}?limit=2&continue={token}"), &[]).await.json().unwrap();
    assert_eq!(names(&rest), ["c"]);
    assert_eq!(rest["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    for (query, expected) in
        [("labelSelector=l%3Dx", vec!["a", "c"]), ("fieldSelector=metadata.name%3Db", vec!["b"])]
    {
        let list = get(&mut client, &format!("/api/v1/configmaps?{query}"), &[]).await.json().unwrap();
        assert_eq!(names(&list), expected, "{query}");
    }
    let gone = client.send_json("DELETE", &format!("{MAPS}?labelSelector=l%3Dx"), &json!({})).await.unwrap();
    assert_eq!(names(&gone.json().unwrap()), ["a", "c"]);
    assert_eq!(names(&get(&mut client, MAPS, &[]).await.json().unwrap()), ["b"]);
}

#[tokio::test]
async fn shows_tables_and_metadata_where_accepted() {
    let rig = Rig::start("v1.34").await;
    let mut client = rig.admin().await;
    create_config_map(&mut client, "one").await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let shown = get(&mut client, MAPS, &[("Accept", table)]).await.json().unwrap();
    assert_eq!((shown["kind"].clone(), shown["rows"][0]["cells"][0].clone()), ("Table".into(), "one".into()));
    assert_eq!(shown["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let metadata = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let shown = get(&mut client, MAPS, &[("Accept", metadata)]).await.json().unwrap();
    assert_eq!(
        (shown["kind"].clone(), shown["items"][0].get("data")),
        ("PartialObjectMetadataList".into(), None)
    );
    let protobuf = "application/vnd.kubernetes.protobuf";
    assert_eq!(get(&mut client, MAPS, &[("Accept", protobuf)]).await.status, 406);
    let both =
        get(&mut client, MAPS, &[("Accept", "application/vnd.kubernetes.protobuf,application/json")]).await;
    assert_eq!(both.header("content-type"), "application/json");
}

#[tokio::test]
async fn names_namespaces_and_finalizers_count() {
    let rig = Rig::start("v1.34").await;
    let mut client = rig.admin().await;
    let generated =
        client.send_json("POST", MAPS, &json!({"metadata": {"generateName": "g-"}})).await.unwrap();
    let name = generated.json().unwrap()["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(name.starts_with("g-") && name.len() == 7, "{name}");
    let nameless = client.send_json("POST", MAPS, &json!({})).await.unwrap();
    assert_eq!(reason(&nameless), (422, "Invalid".to_owned()));
    let elsewhere = "/api/v1/namespaces/nowhere/configmaps";
    let lost = client.send_json("POST", elsewhere, &json!({"metadata": {"name": "x"}})).await.unwrap();
    assert_eq!(lost.json().unwrap()["message"], "namespaces \"nowhere\" not found");
    let wrong =
        client.send_json("POST", MAPS, &json!({"kind": "Secret", "metadata": {"name": "x"}})).await.unwrap();
    assert_eq!(reason(&wrong), (400, "BadRequest".to_owned()));
    let wrong = json!({"metadata": {"name": "x", "namespace": "other"}});
    assert_eq!(client.send_json("POST", MAPS, &wrong).await.unwrap().status, 400);

    let held = json!({"metadata": {"name": "held", "finalizers": ["example.com/f"]}});
    client.send_json("POST", MAPS, &held).await.unwrap();
    let target = format!("{MAPS}/held");
    client.send_json("DELETE", &target, &json!({})).await.unwrap();
    let waiting = get(&mut client, &target, &[]).await.json().unwrap();
    assert!(waiting["metadata"]["deletionTimestamp"].is_string(), "{waiting}");
    let release = json!({"metadata": {"finalizers": null}});
    patch(&mut client, &target, "application/merge-patch+json", &release).await;
    assert_eq!(get(&mut client, &target, &[]).await.status, 404);

    client.send_json("POST", "/api/v1/namespaces", &json!({"metadata": {"name": "team"}})).await.unwrap();
    let inner = "/api/v1/namespaces/team/configmaps";
    assert_eq!(
        client.send_json("POST", inner, &json!({"metadata": {"name": "x"}})).await.unwrap().status,
        201
    );
    client.send_json("DELETE", "/api/v1/namespaces/team", &json!({})).await.unwrap();
    assert_eq!(get(&mut client, &format!("{inner}/x"), &[]).await.status, 404);
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let rig = Rig::start("v1.34").await;
    let mut client = rig.admin().await;
    let jobs = "/apis/batch/v1/namespaces/default/jobs";
    let job = json!({"metadata": {"name": "j"}, "spec": {"parallelism": 1}, "status": {"active": 9}});
    let created = client.send_json("POST", jobs, &job).await.unwrap().json().unwrap();
    assert_eq!((created.get("status"), created["metadata"]["generation"].clone()), (None, 1.into()));
    let both = json!({"spec": {"parallelism": 5}, "status": {"active": 3}});
    let merge = "application/merge-patch+json";
    let after = patch(&mut client, &format!("{jobs}/j/status"), merge, &both).await.json().unwrap();
    assert_eq!(
        (after["spec"]["parallelism"].clone(), after["status"]["active"].clone()),
        (1.into(), 3.into())
    );
    let both = json!({"spec": {"parallelism": 7}, "status": {"active": 8}});
    let after = patch(&mut client, &format!("{jobs}/j"), merge, &both).await.json().unwrap();
    assert_eq!(
        (after["spec"]["parallelism"].clone(), after["status"]["active"].clone()),
        (7.into(), 3.into())
    );
    assert_eq!(after["metadata"]["generation"], 2);
}

#[tokio::test]
async fn wrong_verbs_and_scopes_are_refused() {
    let rig = Rig::start("v1.34").await;
    let mut client = rig.admin().await;
    let refused = client.send_json("PUT", MAPS, &json!({})).await.unwrap();
    assert_eq!(reason(&refused), (405, "MethodNotAllowed".to_owned()));
    assert_eq!(get(&mut client, "/api/v1/configmaps/one", &[]).await.status, 404);
    assert_eq!(get(&mut client, "/api/v1/namespaces/default/nodes", &[]).await.status, 404);
    let log = get(&mut client, "/api/v1/namespaces/default/pods/p/log", &[]).await;
    assert_eq!(reason(&log), (501, "NotImplemented".to_owned()));
}
