//! A proxy that is told to stop lets go of its clients without losing a request.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http_body_util::BodyExt as _;
use mvproxy_tests::standin::Fault;
use support::{
    BOTH, Caller, Cluster, Http, Proxy, ProxyOptions, Upgraded, both_serve, bounded, ensure, eventually,
    only_new_serves, promptly, request,
};
use tokio::net::TcpStream;

/// Far below the 30 s after which a draining proxy cuts what is still open.
const SOON: Duration = Duration::from_secs(5);

#[test]
fn open_requests_finish_and_the_proxy_ends() {
    bounded(async {
        for http in BOTH {
            let mut cluster = Cluster::start().await;
            let slow = Duration::from_millis(700);
            cluster.new.standin.faults().inject(Fault::Delay(slow), "leasecandidates", 1);
            cluster.old.standin.faults().inject(Fault::Delay(slow), "configmaps", 1);
            let alice = Caller::alice(&cluster.pki);
            let mut sessions = Vec::new();
            for _ in 0..2 {
                sessions.push(alice.connect(cluster.old.proxy.address, http).await);
            }
            let mut idle = alice.connect(cluster.old.proxy.address, http).await;
            assert_eq!(idle.get("/version").await.status, 200);
            let (path, new_path) = (both_serve().path(), only_new_serves().path());
            let mut others = sessions.split_off(1);
            let begin = Instant::now();
            let (local, rerouted, ()) =
                tokio::join!(sessions[0].get(&path), others[0].get(&new_path), async {
                    eventually("both requests have arrived", async || {
                        let arrived = [
                            cluster.old.requests_for(&path).len(),
                            cluster.new.requests_for(&new_path).len(),
                        ];
                        ensure(arrived == [1, 1], || format!("{arrived:?}"))
                    })
                    .await;
                    cluster.old.proxy.drain();
                });
            assert_eq!((local.status.as_u16(), rerouted.status.as_u16()), (200, 200));
            assert!(begin.elapsed() >= slow, "the requests were open while the proxy drained");
            let ended = promptly("the proxy ends", cluster.old.proxy.ended()).await;
            assert!(ended.is_ok(), "{ended:?}");
            assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
            eventually("clients are told to leave", async || {
                let closed = [&idle, &sessions[0], &others[0]].map(|session| session.client.is_closed());
                ensure(closed == [true; 3], || format!("{closed:?}"))
            })
            .await;
        }
    });
}

#[test]
fn a_proxy_that_replaces_another_serves_and_takes_the_admin_address_when_that_one_ends() {
    bounded(async {
        let mut cluster = Cluster::start().await;
        let admin = cluster.old.proxy.admin;
        let flag = format!("--admin-address={admin}");
        let replacing = Proxy::start(&ProxyOptions {
            pki: &cluster.pki,
            serving: &cluster.old.serving,
            local: cluster.old.standin.addr,
            peers: &[cluster.new.standin.addr],
            flags: &[&flag],
        });
        let asked = async |address| {
            let alice = Caller::alice(&cluster.pki);
            alice.connect(address, Http::Two).await.get(&only_new_serves().path()).await.status.as_u16()
        };
        eventually("the new proxy reroutes", async || {
            let status = asked(replacing.address).await;
            ensure(status == 200, || status.to_string())
        })
        .await;
        assert_eq!(replacing.admin, admin);
        cluster.old.proxy.drain();
        promptly("the old proxy ends", cluster.old.proxy.ended()).await.unwrap();
        replacing.ready().await;
    });
}

#[test]
fn new_connections_are_refused_once_the_proxy_drains() {
    bounded(async {
        let mut cluster = Cluster::start().await;
        let alice = Caller::alice(&cluster.pki);
        // An open watch keeps the proxy from ending.
        let mut session = alice.connect(cluster.old.proxy.address, Http::Two).await;
        let target = format!("{}?watch=true", only_new_serves().path());
        let mut watch = session.open(request("GET", &target)).await.unwrap();
        cluster.old.proxy.drain();
        for address in cluster.old.proxy.addresses.clone() {
            eventually("the listener is closed", async || match TcpStream::connect(address).await {
                Ok(_) => Err("a connection was accepted".to_owned()),
                Err(_) => Ok(()),
            })
            .await;
        }
        let mut admin = Caller::admin(&cluster.pki).connect(cluster.new.standin.addr, Http::Two).await;
        let api = only_new_serves();
        assert_eq!(admin.json("POST", &api.path(), &api.object("late")).await.status, 201);
        let event = promptly("an event while draining", watch.frame()).await.unwrap().unwrap();
        assert!(String::from_utf8_lossy(event.data_ref().unwrap()).contains("late"));
        let begin = Instant::now();
        drop((watch, session));
        let ended = promptly("the proxy ends", cluster.old.proxy.ended()).await;
        assert!(ended.is_ok() && begin.elapsed() < SOON, "{ended:?} after {:?}", begin.elapsed());
    });
}

#[test]
fn an_http1_client_is_told_that_its_connection_closes() {
    bounded(async {
        let cluster = Cluster::start().await;
        let alice = Caller::alice(&cluster.pki);
        cluster.old.standin.faults().inject(Fault::Delay(Duration::from_millis(500)), "configmaps", 1);
        let mut session = alice.connect(cluster.old.proxy.address, Http::One).await;
        let path = both_serve().path();
        let (answer, ()) = tokio::join!(session.get(&path), async {
            eventually("the request has arrived", async || {
                ensure(cluster.old.requests_for(&path).len() == 1, || "not yet".to_owned())
            })
            .await;
            cluster.old.proxy.drain();
        });
        assert_eq!(answer.header("connection"), "close", "{:?}", answer.headers);
    });
}

#[test]
fn watches_end_in_order_one_after_the_other_while_the_proxy_drains() {
    const WATCHES: usize = 6;
    bounded(async {
        let mut cluster = Cluster::start().await;
        let alice = Caller::alice(&cluster.pki);
        let (mut watches, mut sessions) = (Vec::new(), Vec::new());
        for http in BOTH {
            for path in [both_serve().path(), only_new_serves().path()] {
                for _ in 0..WATCHES {
                    let mut session = alice.connect(cluster.old.proxy.address, http).await;
                    let target = format!("{path}?watch=true");
                    watches.push(session.open(request("GET", &target)).await.unwrap());
                    sessions.push(session);
                }
            }
        }
        cluster.old.proxy.drain();
        let begin = Instant::now();
        let ends = watches.into_iter().map(async |mut watch| {
            loop {
                match watch.frame().await {
                    Some(Ok(_)) => {}
                    ended => break (begin.elapsed(), ended.map(|frame| frame.map(drop))),
                }
            }
        });
        let ends = join_all(ends).await;
        assert!(ends.iter().all(|(_, ended)| ended.is_none()), "{ends:?}");
        let times: Vec<_> = ends.into_iter().map(|(at, _)| at).collect();
        let (first, last) = (times.iter().min().unwrap(), times.iter().max().unwrap());
        println!("ended from {first:.1?} to {last:.1?}");
        assert!(last.saturating_sub(*first) > Duration::from_secs(8), "all at once: {times:?}");
        let ended = promptly("the proxy ends", cluster.old.proxy.ended()).await;
        assert!(ended.is_ok() && begin.elapsed() < Duration::from_secs(29), "{ended:?}");
    });
}

#[test]
fn an_open_exec_is_not_cut_while_the_proxy_drains() {
    bounded(async {
        let mut cluster = Cluster::start().await;
        let pod = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}});
        let mut admin = Caller::admin(&cluster.pki).connect(cluster.old.standin.addr, Http::Two).await;
        let created = admin.json("POST", "/api/v1/namespaces/default/pods", &pod).await;
        assert_eq!(created.status, 201, "{}", created.text());
        let (alice, address) = (Caller::alice(&cluster.pki), cluster.old.proxy.address);
        let upgrade = ["Connection: Upgrade", "Upgrade: SPDY/3.1"];
        let target = "/api/v1/namespaces/default/pods/p/exec";
        let mut exec = Upgraded::ask(&alice, address, target, &upgrade).await.unwrap();
        exec.echo(b"before").await.unwrap();
        cluster.old.proxy.drain();
        eventually("the listener is closed", async || match TcpStream::connect(address).await {
            Ok(_) => Err("a connection was accepted".to_owned()),
            Err(_) => Ok(()),
        })
        .await;
        for round in 0..10 {
            let echoed = exec.echo(b"while draining").await;
            assert!(echoed.is_ok(), "round {round}: {echoed:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let begin = Instant::now();
        exec.finish().await.unwrap();
        let ended = promptly("the proxy ends", cluster.old.proxy.ended()).await;
        assert!(ended.is_ok() && begin.elapsed() < SOON, "{ended:?} after {:?}", begin.elapsed());
    });
}
