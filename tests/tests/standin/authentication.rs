//! Who a request is believed to come from, as a table.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Request;
use mvproxy_tests::client::Client;
use mvproxy_tests::pki::{Identity, Subject};
use serde_json::{Value, json};

use super::{BOB, Rig, get, recorded};

const REVIEW: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

/// What the answer to a `SelfSubjectReview` must be.
enum Expected {
    /// 201 with this user name and these groups.
    User(&'static str, &'static [&'static str]),
    /// 401, also for /livez.
    Unauthorized,
    /// 403 as system:anonymous, and 200 for /livez.
    Anonymous,
}

/// What is tried, certificate, headers, expectation.
type Case<'a> = (&'a str, Option<&'a Identity>, &'a [(&'a str, &'a str)], Expected);

async fn review(rig: &Rig, identity: Option<&Identity>, headers: &[(&str, &str)]) -> (u16, Value, u16) {
    let mut options = rig.stranger();
    options.identity = identity.cloned();
    let build = |method: &str, target: &str, body: &str| {
        let request =
            Request::builder().method(method).uri(target).header("content-type", "application/json");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(bytes::Bytes::from(body.to_owned())).unwrap()
    };
    let mut client = Client::connect(&options).await.unwrap();
    let answer = client.fetch(build("POST", REVIEW, "{}")).await.unwrap();
    let mut client = Client::connect(&options).await.unwrap();
    let live = client.fetch(build("GET", "/livez", "")).await.unwrap();
    (answer.status.as_u16(), answer.json().unwrap(), live.status.as_u16())
}

#[tokio::test]
async fn follows_the_observed_order_of_methods() {
    use Expected::{Anonymous, Unauthorized, User};
    let rig = Rig::start("v1.36").await;
    let alice = rig.pki.client(&named("alice", &["dev", "ops"])).unwrap();
    let stranger = rig.pki.stranger(&named("alice", &["system:masters"])).unwrap();
    let other_proxy = rig.pki.front_proxy(&named("other-proxy", &[])).unwrap();
    let front = rig.pki.front_proxy_client().clone();
    let websocket =
        format!("x, base64url.bearer.authorization.k8s.io.{}", URL_SAFE_NO_PAD.encode("bob-token"));

    let bob: &[_] = &["qa", "ops", "system:authenticated"];
    let plain: &[_] = &["system:authenticated"];
    let alices: &[_] = &["dev", "ops", "system:authenticated"];
    let as_carol = ("X-Remote-User", "carol");
    let masters = ("X-Remote-Group", "system:masters");
    let token = ("Authorization", BOB);
    let bad_token = ("Authorization", "Bearer wrong");
    let anonymous = [("X-Remote-User", "system:anonymous"), ("X-Remote-Group", "system:unauthenticated")];
    let proxy_masters: &[_] = &["system:masters", "system:authenticated"];

    let (protocol, upgrade) = (("Sec-WebSocket-Protocol", &*websocket), ("Upgrade", "websocket"));

    let table: [Case<'_>; 24] = [
        ("nothing", None, &[], Anonymous),
        ("token", None, &[token], User("bob", bob)),
        (
            "token in a WebSocket protocol",
            None,
            &[protocol, ("Connection", "Upgrade"), upgrade],
            User("bob", bob),
        ),
        ("the same without a WebSocket", None, &[protocol], Anonymous),
        ("the same without the connection's leave", None, &[protocol, upgrade], Anonymous),
        ("bad token", None, &[bad_token], Unauthorized),
        ("headers without a certificate", None, &[as_carol], Anonymous),
        ("certificate", Some(&alice), &[], User("alice", alices)),
        ("certificate with headers", Some(&alice), &[as_carol, masters], User("alice", alices)),
        ("certificate with a token", Some(&alice), &[token], User("alice", alices)),
        ("certificate with a bad token", Some(&alice), &[bad_token], User("alice", alices)),
        ("unknown CA", Some(&stranger), &[], Unauthorized),
        ("unknown CA with headers", Some(&stranger), &[as_carol], Unauthorized),
        ("unknown CA with a token", Some(&stranger), &[token], User("bob", bob)),
        ("front proxy without a user", Some(&front), &[], Unauthorized),
        ("front proxy with an empty user", Some(&front), &[("X-Remote-User", ""), masters], Unauthorized),
        ("front proxy with a token", Some(&front), &[token], User("bob", bob)),
        ("front proxy with a user", Some(&front), &[as_carol], User("carol", plain)),
        ("front proxy with user and token", Some(&front), &[as_carol, token], User("carol", plain)),
        ("front proxy with user and bad token", Some(&front), &[as_carol, bad_token], User("carol", plain)),
        ("front proxy asserting masters", Some(&front), &[as_carol, masters], User("carol", proxy_masters)),
        ("front proxy asserting nobody", Some(&front), &anonymous, Anonymous),
        ("front proxy of another name", Some(&other_proxy), &[as_carol], Unauthorized),
        (
            "front proxy of another name with a token",
            Some(&other_proxy),
            &[as_carol, token],
            User("bob", bob),
        ),
    ];
    for case in table {
        check(&rig, case).await;
    }
}

async fn check(rig: &Rig, (case, identity, headers, expected): Case<'_>) {
    let (status, body, live) = review(rig, identity, headers).await;
    match expected {
        Expected::User(name, groups) => {
            assert_eq!((status, live), (201, 200), "{case}: {body}");
            assert_eq!(body["status"]["userInfo"]["username"], name, "{case}");
            assert_eq!(body["status"]["userInfo"]["groups"], json!(groups), "{case}");
        }
        Expected::Unauthorized => assert_eq!((status, live), (401, 401), "{case}: {body}"),
        Expected::Anonymous => {
            assert_eq!((status, live), (403, 200), "{case}: {body}");
            let message = body["message"].as_str().unwrap();
            assert!(message.contains("User \"system:anonymous\" cannot create"), "{case}: {message}");
        }
    }
}

#[tokio::test]
async fn a_certificate_s_review_has_the_recorded_shape() {
    let rig = Rig::start("v1.36-all").await;
    let mut admin = rig.admin().await;
    let found = admin.send_json("POST", REVIEW, &json!({})).await.unwrap().json().unwrap();
    let real: Value = serde_json::from_str(&recorded("selfsubjectreview-x509-admin.json")).unwrap();
    let credential = "/status/userInfo/extra/authentication.kubernetes.io~1credential-id/0";
    let ids = [&found, &real].map(|review| review.pointer(credential).unwrap().as_str().unwrap().to_owned());
    assert!(ids.iter().all(|id| id.starts_with("X509SHA256=") && id.len() == 75), "{ids:?}");
    let mut masked = found.clone();
    *masked.pointer_mut(credential).unwrap() = ids[1].clone().into();
    masked["metadata"]["creationTimestamp"] = real["metadata"]["creationTimestamp"].clone();
    assert_eq!(masked, real);
}

#[tokio::test]
async fn reads_every_attribute_a_front_proxy_asserts() {
    let headers = [
        ("X-Remote-User", "carol"),
        ("X-Remote-Uid", "u-1"),
        ("X-Remote-Group", "g1"),
        ("X-Remote-Group", "g2"),
        ("X-Remote-Extra-Scopes", "a"),
        ("X-Remote-Extra-Scopes", "b"),
        ("X-Remote-Extra-Example.com%2Fkey", "c"),
    ];
    let rig = Rig::start("v1.36").await;
    let front = rig.pki.front_proxy_client().clone();
    let (_, body, _) = review(&rig, Some(&front), &headers).await;
    assert_eq!(
        body["status"]["userInfo"],
        json!({"username": "carol", "uid": "u-1", "groups": ["g1", "g2", "system:authenticated"],
               "extra": {"scopes": ["a", "b"], "example.com/key": ["c"]}})
    );
    // kubeadm configures no uid header: the UID is lost.
    let rig = Rig::start_with("v1.36", |options| {
        options.request_header.as_mut().unwrap().uid_headers.clear();
    })
    .await;
    let front = rig.pki.front_proxy_client().clone();
    let (_, body, _) = review(&rig, Some(&front), &headers).await;
    assert_eq!(body["status"]["userInfo"].get("uid"), None);
}

#[tokio::test]
async fn reads_the_uid_of_a_certificate() {
    let rig = Rig::start("v1.36").await;
    let dave = rig.pki.client(&Subject { uid: Some("d-1"), ..named("dave", &[]) }).unwrap();
    let (_, body, _) = review(&rig, Some(&dave), &[]).await;
    assert_eq!(body["status"]["userInfo"]["uid"], "d-1");
}

#[tokio::test]
async fn only_masters_impersonate() {
    let rig = Rig::start("v1.36").await;
    let front = rig.pki.front_proxy_client().clone();
    let impersonate = [
        ("Impersonate-User", "eve"),
        ("Impersonate-Group", "x"),
        ("Impersonate-Uid", "e-1"),
        ("Impersonate-Extra-A", "1"),
    ];
    let with = |first: &[(&'static str, &'static str)]| [first, &impersonate].concat();
    let masters = with(&[("X-Remote-User", "root"), ("X-Remote-Group", "system:masters")]);
    let (_, body, _) = review(&rig, Some(&front), &masters).await;
    assert_eq!(
        body["status"]["userInfo"],
        json!({"username": "eve", "uid": "e-1", "groups": ["x", "system:authenticated"], "extra": {"a": ["1"]}})
    );
    let (status, body, _) = review(&rig, Some(&front), &with(&[("X-Remote-User", "carol")])).await;
    assert_eq!(status, 403);
    let message = "users \"eve\" is forbidden: User \"carol\" cannot impersonate resource \"users\" in API group \"\" \
                   at the cluster scope";
    assert_eq!(body["message"], message);
}

#[tokio::test]
async fn failures_have_the_recorded_bodies() {
    let rig = Rig::start("v1.36-all").await;
    let curl = ("User-Agent", "curl/8.0");
    let mut client = Client::connect(&rig.stranger()).await.unwrap();
    let answer = get(&mut client, "/api/v1/secrets", &[curl]).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (403, recorded("anonymous-403.json")));
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("cache-control"), "no-cache, private");
    for header in recorded("anonymous-http2.headers").lines().skip(1).filter_map(|line| line.split_once(':'))
    {
        let ours = answer.headers.contains_key(header.0) || header.0 == "x-content-type-options";
        assert!(ours, "no {}", header.0);
    }
    let mut client = Client::connect(&rig.stranger()).await.unwrap();
    let answer = get(&mut client, "/api/v1/secrets", &[curl, ("Authorization", "Bearer wrong")]).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (401, recorded("bad-token-401.json")));
}

fn named<'a>(common_name: &'a str, organizations: &'a [&'a str]) -> Subject<'a> {
    Subject { common_name, organizations, uid: None }
}
