//! An API server that goes away costs clients neither a write nor an event while another can take over.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use mvproxy_tests::standin::{Documents, Standin, StandinOptions};
use serde_json::Value;
use support::{
    BOTH, Caller, Cluster, Http, Proxy, ProxyOptions, bounded, eventually, only_new_serves, promptly,
    request, standin,
};

/// The names in the next `count` events.
async fn names(watch: &mut Response<Incoming>, count: usize) -> Vec<String> {
    let mut text = Vec::new();
    while text.split(|byte| *byte == b'\n').count() <= count {
        let frame = promptly("an event", watch.frame()).await.expect("the watch goes on").unwrap();
        text.extend(frame.into_data().unwrap());
    }
    let lines = String::from_utf8(text).unwrap();
    let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.map(|event| event["object"]["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_watch_goes_on_at_another_server_without_a_gap_or_a_repetition() {
    bounded(async {
        for http in BOTH {
            let cluster = Cluster::start().await;
            let (third, _) =
                standin(&cluster.pki, &cluster.store, "third", Documents::load("v1.36-all").unwrap()).await;
            let proxy = Proxy::start(&ProxyOptions {
                pki: &cluster.pki,
                serving: &cluster.old.serving,
                local: cluster.old.standin.addr,
                peers: &[cluster.new.standin.addr, third.addr],
                flags: &[],
            });
            cluster.synced(&proxy).await;
            let (admin, api) = (Caller::admin(&cluster.pki), only_new_serves());
            let mut writing = admin.connect(proxy.address, http).await;
            // As informers do: list, then watch from there.
            let list = writing.get(&api.path()).await.json().unwrap();
            let version = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
            let target = format!("{}?watch=true&resourceVersion={version}", api.path());
            let mut session = admin.connect(proxy.address, http).await;
            let mut watch = session.open(request("GET", &target)).await.unwrap();
            for name in ["a", "b"] {
                assert_eq!(writing.json("POST", &api.path(), &api.object(name)).await.status, 201);
            }
            assert_eq!(names(&mut watch, 2).await, ["a", "b"]);

            let asked = |server: &Standin| server.requests().iter().any(|request| request.target == target);
            assert_ne!(asked(&cluster.new.standin), asked(&third), "one of them has the watch");
            let survivor = if asked(&third) {
                drop(third);
                cluster.new.standin
            } else {
                drop(cluster.new);
                third
            };
            let mut writing = admin.connect(survivor.addr, http).await;
            for name in ["c", "d"] {
                assert_eq!(writing.json("POST", &api.path(), &api.object(name)).await.status, 201);
            }
            assert_eq!(names(&mut watch, 2).await, ["c", "d"], "{http:?}");
        }
    });
}

#[test]
fn a_peer_that_restarts_is_written_to_at_once() {
    bounded(async {
        let cluster = Cluster::start().await;
        let (pki, store, old, new) = (cluster.pki, cluster.store, cluster.old, cluster.new);
        let api = only_new_serves();
        let (alice, bob) = (Caller::alice(&pki), Caller::bob(&pki));
        let mut sessions = Vec::new();
        for address in &old.proxy.addresses {
            for http in BOTH {
                sessions.push(alice.connect(*address, http).await);
                sessions.push(bob.connect(*address, http).await);
            }
        }
        let mut running = new.standin;
        for round in 0..3 {
            for (number, session) in sessions.iter_mut().enumerate() {
                let name = format!("w{round}-{number}");
                let written = session.json("POST", &api.path(), &api.object(&name)).await;
                assert_eq!(written.status, 201, "{name}: {}", written.text());
            }
            let bind = running.addr;
            drop(running);
            let mut options = StandinOptions::from_pki(&pki, "new", "v1.36-all", &store).unwrap();
            (options.bind, options.serving) = (bind, new.serving.clone());
            running = eventually("the port is free again", async || {
                Standin::start(options.clone()).await.map_err(|error| format!("{error:#}"))
            })
            .await;
        }
        let listed = alice.get(running.addr, Http::Two, &api.path()).await;
        assert_eq!(listed.json().unwrap()["items"].as_array().unwrap().len(), 3 * sessions.len());
    });
}
