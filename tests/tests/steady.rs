//! Two API servers of different versions serve together, and clients of the old one miss nothing.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::{HeaderMap, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use mvproxy_tests::client::Answer;
use mvproxy_tests::standin::Documents;
use serde_json::{Value, json};
use support::{
    BOTH, Caller, Cluster, Http, Proxy, ProxyOptions, both_serve, bounded, only_new_serves,
    only_new_serves_with_status, promptly, request,
};

const PEER_PROXIED: &str = "x-kubernetes-peer-proxied";

#[test]
fn what_only_the_new_server_serves_is_404_straight_to_the_old_one_and_200_through_its_proxy() {
    bounded(async {
        let cluster = Cluster::start().await;
        let alice = Caller::alice(&cluster.pki);
        for http in BOTH {
            let target = format!("{}?limit=7&http={http:?}", only_new_serves().path());
            let straight = alice.get(cluster.old.standin.addr, http, &target).await;
            assert_eq!(straight.status, 404, "{}", straight.text());
            for address in &cluster.old.proxy.addresses {
                cluster.new.standin.clear_requests();
                let through = alice.get(*address, http, &target).await;
                assert_eq!(through.status, 200, "{}", through.text());
                let seen = cluster.new.only_request_for(&target);
                assert_eq!(values(&seen.headers, PEER_PROXIED), ["true"], "{http:?}");
                assert_eq!(seen.user.unwrap().name, "alice");
            }
            assert_eq!(cluster.old.requests_for(&target).len(), 1, "only the straight one");
        }
    });
}

#[test]
fn a_rerouted_request_keeps_its_target_byte_for_byte() {
    bounded(async {
        let cluster = Cluster::start().await;
        let alice = Caller::alice(&cluster.pki);
        let path = only_new_serves_with_status().path();
        for http in BOTH {
            let mut session = alice.connect(cluster.old.proxy.address, http).await;
            for rest in [
                "?b=2&a=1;c&d",
                "?",
                "?&&=",
                "?labelSelector=a%3Db%2cc!%3Dd&x=%zz&y=+",
                "/a%2Fstatus",
                "/a%2fstatus%2Fc?b=2&a=1;c&d",
                "/%41bc",
                "/it's~(odd)*$!@",
                "/na%20me?q=%00",
                "/%C3%BC",
                "/%ff",
            ] {
                let target = format!("{path}{rest}");
                cluster.new.standin.clear_requests();
                session.get(&target).await;
                cluster.new.only_request_for(&target);
                assert!(cluster.old.requests_for(&target).is_empty(), "{http:?} {target}");
            }
        }
    });
}

#[test]
fn objects_of_a_new_api_live_a_whole_life_through_the_old_node() {
    bounded(async {
        let cluster = Cluster::start().await;
        let (admin, api) = (Caller::admin(&cluster.pki), only_new_serves());
        for http in BOTH {
            let mut session = admin.connect(cluster.old.proxy.address, http).await;
            let name = format!("one-{http:?}").to_lowercase();
            let (list, one) = (api.path(), format!("{}/{name}", api.path()));

            let mut object = api.object(&name);
            object["spec"] = json!({"leaseName": "a"});
            let created = session.json("POST", &list, &object).await;
            assert_eq!(created.status, 201, "{}", created.text());
            let found = session.get(&one).await;
            assert_eq!(found.json().unwrap(), created.json().unwrap());

            let mut changed = found.json().unwrap();
            changed["spec"]["leaseName"] = "b".into();
            let updated = session.json("PUT", &one, &changed).await;
            assert_eq!(updated.status, 200, "{}", updated.text());
            let stale = session.json("PUT", &one, &changed).await;
            assert_eq!(stale.status, 409, "{}", stale.text());
            let patched = session.json("PATCH", &one, &json!({"metadata": {"labels": {"a": "b"}}})).await;
            assert_eq!(patched.json().unwrap()["spec"]["leaseName"], "b", "{}", patched.text());
            assert_eq!(patched.json().unwrap()["metadata"]["labels"]["a"], "b");

            let deleted = session.json("DELETE", &one, &json!({})).await;
            assert_eq!(deleted.status, 200, "{}", deleted.text());
            assert_eq!(session.get(&one).await.status, 404);
            let at_old = cluster.old.standin.requests();
            assert!(!at_old.iter().any(|request| request.target.starts_with(&list)), "{at_old:?}");
        }
    });
}

#[test]
fn a_watch_of_a_new_api_through_the_old_node_delivers_at_once() {
    bounded(async {
        let cluster = Cluster::start().await;
        let (admin, api) = (Caller::admin(&cluster.pki), only_new_serves());
        for http in BOTH {
            let mut watching = admin.connect(cluster.old.proxy.address, http).await;
            let name = format!("seen-{http:?}").to_lowercase();
            let target = format!("{}?watch=true&fieldSelector=metadata.name%3D{name}", api.path());
            let mut watch = watching.open(request("GET", &target)).await.unwrap();
            assert_eq!(watch.status(), 200);

            let mut writing = admin.connect(cluster.new.standin.addr, http).await;
            let begin = Instant::now();
            assert_eq!(writing.json("POST", &api.path(), &api.object(&name)).await.status, 201);
            let event = next_event(&mut watch).await;
            assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
            assert_eq!(
                (&event["type"], &event["object"]["metadata"]["name"]),
                (&json!("ADDED"), &json!(name))
            );

            let one = format!("{}/{name}", api.path());
            assert_eq!(writing.json("DELETE", &one, &json!({})).await.status, 200);
            assert_eq!(next_event(&mut watch).await["type"], "DELETED");
        }
    });
}

/// kube-apiserver allows 100 streams on a connection, and every watch holds one.
#[test]
fn more_watches_than_one_connection_has_streams_all_deliver() {
    bounded(async {
        const WATCHES: usize = 250;
        let cluster = Cluster::start().await;
        let (admin, api) = (Caller::admin(&cluster.pki), only_new_serves());
        let target = format!("{}?watch=true", api.path());
        let mut clients = Vec::new();
        let mut watches = Vec::new();
        for _ in 0..WATCHES / 50 {
            let session = admin.connect(cluster.old.proxy.address, Http::Two).await;
            let shared = session.client.share().unwrap();
            watches.extend((0..50).map(|_| {
                let (mut shared, target) = (shared.clone(), &target);
                async move { shared.send(request("GET", target)).await.unwrap() }
            }));
            clients.push(session);
        }
        let mut open = promptly("every watch opens", join_all(watches)).await;
        let mut writing = admin.connect(cluster.old.proxy.address, Http::Two).await;
        assert_eq!(writing.json("POST", &api.path(), &api.object("many")).await.status, 201);
        for event in join_all(open.iter_mut().map(next_event)).await {
            assert_eq!(event["object"]["metadata"]["name"], "many");
        }
    });
}

#[test]
fn what_both_serve_is_served_by_the_old_server_and_never_reaches_the_new_one() {
    bounded(async {
        let cluster = Cluster::start().await;
        let (admin, api) = (Caller::admin(&cluster.pki), both_serve());
        for http in BOTH {
            let mut session = admin.connect(cluster.old.proxy.address, http).await;
            let name = format!("local-{http:?}").to_lowercase();
            assert_eq!(session.json("POST", &api.path(), &api.object(&name)).await.status, 201);
            assert_eq!(session.get(&format!("{}/{name}", api.path())).await.status, 200);
        }
        assert_eq!(cluster.old.requests_for(&api.path()).len(), BOTH.len());
        let marked = |request: &mvproxy_tests::standin::RecordedRequest| {
            request.target.starts_with(&api.path()) && request.headers.contains_key(PEER_PROXIED)
        };
        assert!(!cluster.old.standin.requests().iter().any(marked), "a local request is not marked");
        let at_new = cluster.new.standin.requests();
        assert!(!at_new.iter().any(|request| request.target.starts_with(&api.path())), "{at_new:?}");
    });
}

#[test]
fn what_nobody_serves_is_answered_as_the_old_server_answers_it() {
    bounded(async {
        let cluster = Cluster::start().await;
        let alice = Caller::alice(&cluster.pki);
        let missing_object = format!("{}/missing", both_serve().path());
        for target in [
            "/apis/nobody.example.com/v1/things",
            "/apis/nobody.example.com",
            "/apis/apps/v9/deployments",
            "/apis/apps/v1/namespaces/default/nonsense",
            "/api/v1/nonsense",
            "/api/v9/pods",
            "/nonsense",
            "/api/v1/watch",
            "/apis/apps/v1/namespaces/default/deployments/d/nonsense",
            "/",
            &missing_object,
        ] {
            for http in BOTH {
                let straight = alice.get(cluster.old.standin.addr, http, target).await;
                let through = alice.get(cluster.old.proxy.address, http, target).await;
                assert_same(&straight, &through, &format!("{target} over {http:?}"));
            }
        }
    });
}

#[test]
fn answers_have_the_headers_of_a_straight_answer_each_once() {
    bounded(async {
        let cluster = Cluster::start().await;
        let alice = Caller::alice(&cluster.pki);
        let (new_api, api) = (only_new_serves().path(), both_serve().path());
        for http in BOTH {
            for (method, target, straight_to) in [
                ("GET", "/version", cluster.old.standin.addr),
                ("GET", "/readyz", cluster.old.standin.addr),
                ("GET", api.as_str(), cluster.old.standin.addr),
                ("POST", api.as_str(), cluster.old.standin.addr),
                ("GET", "/api/v1/nonsense", cluster.old.standin.addr),
                ("GET", new_api.as_str(), cluster.new.standin.addr),
                ("POST", new_api.as_str(), cluster.new.standin.addr),
            ] {
                let straight = alice.ask(straight_to, http, request(method, target)).await;
                let through = alice.ask(cluster.old.proxy.address, http, request(method, target)).await;
                let what = format!("{method} {target} over {http:?}");
                assert_eq!(names(&straight.headers), names(&through.headers), "{what}");
                assert_same(&straight, &through, &what);
            }
        }
    });
}

#[test]
fn a_request_that_claims_to_be_proxied_is_served_locally() {
    bounded(async {
        let cluster = Cluster::start().await;
        let path = only_new_serves().path();
        for (row, marks) in [vec!["true"], vec!["false"], vec![""], vec!["true", "true"], vec!["", "x"]]
            .into_iter()
            .enumerate()
        {
            for http in BOTH {
                let alice = marks
                    .iter()
                    .fold(Caller::alice(&cluster.pki), |alice, mark| alice.header(PEER_PROXIED, mark));
                let target = format!("{path}?row={row}{http:?}");
                let answer = alice.get(cluster.old.proxy.address, http, &target).await;
                assert_eq!(answer.status, 404, "{marks:?} over {http:?}: {}", answer.text());
                cluster.old.only_request_for(&target);
                assert!(cluster.new.requests_for(&target).is_empty(), "{marks:?}");
            }
        }
    });
}

#[test]
fn a_request_hops_once_even_when_the_tables_of_both_proxies_are_wrong() {
    bounded(async {
        let load = |name| Documents::load(name).unwrap();
        // Both proxies learn once and then not again within this test.
        let rarely = ["--discovery-interval=1h"];
        let cluster = Cluster::start_unsynced(load("v1.36-all"), load("v1.34"), &rarely).await;
        cluster.new.proxy.ready().await;
        cluster.synced(&cluster.new.proxy).await;
        // The second proxy believes that the old server serves it. Now the sides change, for a third one.
        cluster.old.standin.set_documents(load("v1.34"));
        cluster.new.standin.set_documents(load("v1.36-all"));
        let confused = Proxy::start(&ProxyOptions {
            pki: &cluster.pki,
            serving: &cluster.old.serving,
            local: cluster.old.standin.addr,
            peers: &[cluster.new.proxy.address],
            flags: &rarely,
        });
        confused.ready().await;
        cluster.synced(&confused).await;
        cluster.new.standin.set_documents(load("v1.34"));

        let alice = Caller::alice(&cluster.pki);
        for http in BOTH {
            let target = format!("{}?http={http:?}", only_new_serves().path());
            let answer = alice.get(confused.address, http, &target).await;
            assert_eq!(answer.status, 404, "{}", answer.text());
            cluster.new.only_request_for(&target);
            assert!(cluster.old.requests_for(&target).is_empty(), "a second hop");
        }
    });
}

#[test]
fn with_the_feature_gate_off_nothing_is_rerouted_or_merged() {
    bounded(async {
        let load = |name| Documents::load(name).unwrap();
        let off = ["--feature-gates=UnknownVersionInteroperabilityProxy=false"];
        let cluster = Cluster::start_unsynced(load("v1.34"), load("v1.36-all"), &off).await;
        cluster.old.proxy.ready().await;
        let alice = Caller::alice(&cluster.pki);
        for http in BOTH {
            let answer = alice.get(cluster.old.proxy.address, http, &only_new_serves().path()).await;
            assert_eq!(answer.status, 404, "{}", answer.text());
            let straight = alice.ask(cluster.old.standin.addr, http, support::aggregated("/apis")).await;
            let through = alice.ask(cluster.old.proxy.address, http, support::aggregated("/apis")).await;
            assert_same(&straight, &through, "/apis");
        }
        assert!(cluster.new.standin.requests().is_empty(), "{:?}", cluster.new.standin.requests());
    });
}

/// The next line of a watch.
async fn next_event(watch: &mut Response<Incoming>) -> Value {
    let mut line: Vec<u8> = Vec::new();
    while !line.ends_with(b"\n") {
        let frame = promptly("an event", watch.frame()).await.expect("the watch goes on").unwrap();
        line.extend(frame.into_data().unwrap());
    }
    serde_json::from_slice(&line).unwrap()
}

/// The same status, body and kind of body.
#[track_caller]
fn assert_same(straight: &Answer, through: &Answer, what: &str) {
    assert_eq!(straight.status, through.status, "{what}");
    assert_eq!(straight.header("content-type"), through.header("content-type"), "{what}");
    assert_eq!(straight.text(), through.text(), "{what}");
}

/// Header names, each as often as it is there.
fn names(headers: &HeaderMap) -> Vec<String> {
    let mut names: Vec<String> = headers.iter().map(|(name, _)| name.to_string()).collect();
    names.sort();
    names
}

fn values<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
}
