//! Discovery over the wire: which form, which headers, which bytes.

use mvproxy_tests::client::{Answer, Client};
use mvproxy_tests::standin::{DOCUMENT_NAMES, Documents};

use super::{Rig, get, recorded, request};

const JSON: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const LEGACY: &str = "application/json";

#[tokio::test]
async fn negotiates_as_observed() {
    let rig = Rig::start("v1.36-all").await;
    let mut client = rig.admin().await;
    let parameters = "g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let beta = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
    let protobuf = format!("application/vnd.kubernetes.protobuf;{parameters}");
    let table: &[(String, Option<&str>)] = &[
        (JSON.to_owned(), Some(JSON)),
        (format!("{JSON};profile=nopeer"), Some(JSON)),
        (format!("{JSON};profile=\"nopeer\""), Some(JSON)),
        (protobuf.clone(), Some(&protobuf)),
        (format!("*/*;{parameters}"), Some(JSON)),
        (format!("application/cbor;{parameters}"), None),
        (format!("{JSON},{beta},application/json"), Some(JSON)),
        (format!("application/json;q=1,{JSON};q=0.1"), Some(JSON)),
        (LEGACY.to_owned(), Some(LEGACY)),
        ("*/*".to_owned(), Some(LEGACY)),
        (beta.to_owned(), None),
        (format!("{beta},application/json"), Some(LEGACY)),
        (JSON.replace("v2", "v3"), None),
        ("text/html".to_owned(), None),
    ];
    for path in ["/apis", "/api"] {
        for (accept, expected) in table {
            let answer = get(&mut client, path, &[("Accept", accept)]).await;
            let Some(content_type) = expected else {
                assert_eq!(answer.status, 406, "{path} {accept}");
                assert_eq!(answer.json().unwrap()["reason"], "NotAcceptable", "{path} {accept}");
                continue;
            };
            assert_eq!(answer.status, 200, "{path} {accept}: {}", answer.text());
            assert_eq!(answer.header("content-type"), *content_type, "{path} {accept}");
            let aggregated = *content_type != LEGACY;
            assert_eq!(answer.header("vary"), if aggregated { "Accept" } else { "" }, "{accept}");
            let caching = if aggregated { "public" } else { "no-cache, private" };
            assert_eq!(answer.header("cache-control"), caching, "{accept}");
            assert_eq!(answer.headers.contains_key("etag"), aggregated, "{accept}");
        }
    }
}

#[tokio::test]
async fn roots_differ_in_paths_and_methods() {
    let rig = Rig::start("v1.36-all").await;
    let mut client = rig.admin().await;
    let ranged = JSON.replace("application/json", "application/*");
    assert_eq!(get(&mut client, "/apis", &[("Accept", &ranged)]).await.header("content-type"), JSON);
    assert_eq!(get(&mut client, "/api", &[("Accept", &ranged)]).await.status, 406);
    assert_eq!(get(&mut client, "/apis/", &[("Accept", JSON)]).await.status, 406);
    assert_eq!(get(&mut client, "/apis/", &[]).await.header("content-type"), LEGACY);
    let status = async |client: &mut Client, method, path| {
        client.fetch(request(method, path, &[("Accept", JSON)])).await.unwrap().status.as_u16()
    };
    assert_eq!(status(&mut client, "POST", "/apis").await, 200);
    assert_eq!(status(&mut client, "HEAD", "/apis").await, 200);
    assert_eq!(status(&mut client, "POST", "/api").await, 405);
}

#[tokio::test]
async fn serves_every_recording_byte_for_byte() {
    for name in DOCUMENT_NAMES {
        let rig = Rig::start(name).await;
        let mut client = rig.admin().await;
        let file = |file: &str| {
            std::fs::read(format!("{}/fixtures/kube-apiserver/{name}/{file}", env!("CARGO_MANIFEST_DIR")))
                .unwrap()
        };
        let protobuf = JSON.replace("application/json", "application/vnd.kubernetes.protobuf");
        for (path, accept, recorded) in [
            ("/api", JSON, "api.v2.json"),
            ("/apis", JSON, "apis.v2.json"),
            ("/api", &protobuf, "api.v2.pb"),
            ("/apis", &protobuf, "apis.v2.pb"),
            ("/apis", LEGACY, "apis.legacy.json"),
            ("/api/v1", LEGACY, "api-v1.legacy.json"),
            ("/version", LEGACY, "version.json"),
            ("/readyz?verbose", LEGACY, "readyz-verbose.txt"),
        ] {
            let answer = get(&mut client, path, &[("Accept", accept)]).await;
            assert_eq!(answer.body, file(recorded), "{name} {path} {accept}");
        }
    }
}

#[tokio::test]
async fn answers_304_to_exactly_its_own_tag() {
    let rig = Rig::start("v1.34").await;
    let mut client = rig.admin().await;
    let tag = get(&mut client, "/apis", &[("Accept", JSON)]).await.header("etag").to_owned();
    assert!(
        tag.len() == 130 && tag[1..129].chars().all(|c| c.is_ascii_digit() || ('A'..='F').contains(&c)),
        "{tag}"
    );
    let unquoted = tag.trim_matches('"').to_owned();
    for (sent, status) in [
        (tag.clone(), 304),
        ("*".to_owned(), 200),
        (format!("W/{tag}"), 200),
        (format!("{tag}, \"x\""), 200),
        (unquoted, 200),
    ] {
        let answer = get(&mut client, "/apis", &[("Accept", JSON), ("If-None-Match", &sent)]).await;
        assert_eq!(answer.status.as_u16(), status, "{sent}");
        assert_eq!(answer.header("etag"), tag);
        assert_eq!(answer.body.is_empty(), status == 304);
        assert_eq!((answer.header("vary"), answer.header("cache-control")), ("Accept", "public"));
    }
    rig.standin.set_documents(Documents::load("v1.34").unwrap().without_version("batch", "v1"));
    let answer = get(&mut client, "/apis", &[("Accept", JSON), ("If-None-Match", &tag)]).await;
    assert_eq!(answer.status, 200);
    assert!(answer.header("etag") != tag && !answer.text().contains("\"batch\""));
    assert_eq!(get(&mut client, "/apis/batch/v1/jobs", &[]).await.status, 404);
}

#[tokio::test]
async fn unknown_paths_have_the_recorded_404() {
    let rig = Rig::start("v1.36-all").await;
    let mut client = rig.admin().await;
    let page =
        |answer: &Answer| (answer.status.as_u16(), answer.header("content-type").to_owned(), answer.text());
    for (path, file) in [
        ("/apis/nope.example.com/v1/widgets", "unknown-group-404.body"),
        ("/apis/nope.example.com", "unknown-group-404.body"),
        ("/apis/batch/v9", "unknown-group-404.body"),
        ("/api/v1/nopes", "unknown-resource-404.body"),
        ("/nope", "unknown-group-404.body"),
    ] {
        let answer = get(&mut client, path, &[]).await;
        assert_eq!(page(&answer), (404, "text/plain; charset=utf-8".to_owned(), recorded(file)), "{path}");
    }
    let answer = get(&mut client, "/api/v1/namespaces/default/pods/p/nope", &[]).await;
    assert_eq!(page(&answer).1, "application/json");
    assert_eq!(answer.json().unwrap()["message"], "the server could not find the requested resource");
    let answer = get(&mut client, "/api/v1/namespaces/default/pods/nope", &[("User-Agent", "curl/8")]).await;
    assert_eq!(page(&answer), (404, "application/json".to_owned(), recorded("not-found-404.json")));
    let answer = get(&mut client, "/api/v1/watch", &[]).await;
    assert_eq!(
        (answer.status.as_u16(), answer.json().unwrap()["reason"].clone()),
        (500, "InternalError".into())
    );
}

#[tokio::test]
async fn openapi_lists_a_document_per_group_version() {
    let rig = Rig::start("v1.34").await;
    let mut client = rig.admin().await;
    let index = get(&mut client, "/openapi/v3", &[]).await.json().unwrap();
    let url = index["paths"]["apis/batch/v1"]["serverRelativeURL"].as_str().unwrap();
    let document = get(&mut client, url, &[]).await.json().unwrap();
    let patch = &document["paths"]["/apis/batch/v1/namespaces/{namespace}/jobs/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Job");
    assert_eq!(get(&mut client, "/openapi/v3/apis/batch/v9", &[]).await.status, 404);
}
