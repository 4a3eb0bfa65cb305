//! Clients learn the truth, quickly and in kube-apiserver's words, when the API server that should answer does not.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use mvproxy_tests::client::Answer;
use mvproxy_tests::standin::{Documents, Fault};
use support::{
    BOTH, Body, Caller, Cluster, Http, Proxy, ProxyOptions, Upstream, aggregated, both_serve, bounded,
    breaking, ensure, eventually, only_new_serves, promptly, request, served_by, standin, whole,
};

/// A 503 as kube-apiserver gives it, which tells nobody about the inside.
#[track_caller]
fn assert_unavailable(answer: &Answer, what: &str) {
    assert_eq!(answer.status, 503, "{what}: {}", answer.text());
    assert_eq!(answer.header("content-type"), "application/json", "{what}");
    assert_eq!(answer.header("retry-after"), "1", "{what}");
    let status = answer.json().unwrap();
    assert_eq!((&status["kind"], &status["apiVersion"]), (&"Status".into(), &"v1".into()), "{what}");
    assert_eq!((&status["status"], &status["code"]), (&"Failure".into(), &503.into()), "{what}");
    assert_eq!(status["reason"], "ServiceUnavailable", "{what}");
    assert_eq!(status["details"]["retryAfterSeconds"], 1, "{what}");
    for secret in ["127.0.0.1", "127.64.43.1", "os error", "refused", "alice", "bob"] {
        assert!(!answer.text().contains(secret), "{what} gives {secret:?} away: {}", answer.text());
    }
}

#[test]
fn a_dead_peer_is_a_503_for_what_only_it_serves_and_nothing_else() {
    bounded(async {
        let cluster = Cluster::start().await;
        let (pki, old) = (cluster.pki, cluster.old);
        drop(cluster.new);
        let mut failed = 0;
        for caller in [Caller::alice(&pki), Caller::bob(&pki), Caller::nobody(&pki)] {
            for http in BOTH {
                let mut session = caller.connect(old.proxy.address, http).await;
                let api = only_new_serves();
                for method in ["GET", "POST", "DELETE"] {
                    let answer = session.fetch(request(method, &api.path())).await;
                    assert_unavailable(&answer, &format!("{method} by {} over {http:?}", caller.label));
                    failed += 1;
                }
                let local = session.get("/version").await;
                assert_eq!(local.status, 200, "the same connection still serves: {}", local.text());
            }
        }
        let metrics = old.proxy.metrics().await;
        let errors = metrics.sum("apiserver_peer_proxy_errors_total", &[("type", "proxy_transport")]);
        assert_eq!(errors, failed);
        assert!(metrics.sum("apiserver_rerouted_request_total", &[("code", "503")]) >= failed);
    });
}

#[test]
fn a_peer_that_resets_connections_is_a_503_and_recovers() {
    bounded(async {
        let cluster = Cluster::start().await;
        // Peers that have a connection keep it; bob has none yet.
        let bob = Caller::bob(&cluster.pki);
        cluster.new.standin.faults().inject(Fault::Refuse, "", usize::MAX);
        for http in BOTH {
            let answer = bob.get(cluster.old.proxy.address, http, &only_new_serves().path()).await;
            assert_unavailable(&answer, "while connections are reset");
        }
        cluster.new.standin.faults().clear();
        let answer = bob.get(cluster.old.proxy.address, Http::Two, &only_new_serves().path()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    });
}

#[test]
fn with_two_capable_peers_and_one_dead_every_request_succeeds() {
    bounded(async {
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
        knows_two(&proxy, &admin, &api.path(), [cluster.new.standin.addr, third.addr]).await;
        drop(third);
        for address in &proxy.addresses {
            for http in BOTH {
                let mut session = admin.connect(*address, http).await;
                for number in 0..20 {
                    let answer = session.get(&api.path()).await;
                    assert_eq!(answer.status, 200, "GET {number}: {}", answer.text());
                    let name = format!("w{number}-{}-{http:?}", address.port()).to_lowercase();
                    let written = session.json("POST", &api.path(), &api.object(&name)).await;
                    assert_eq!(written.status, 201, "POST {number}: {}", written.text());
                }
            }
        }
    });
}

/// Waits until requests for `path` have gone to both peers.
async fn knows_two(proxy: &Proxy, caller: &Caller, path: &str, peers: [SocketAddr; 2]) {
    eventually("both peers are used", async || {
        caller.get(proxy.address, Http::Two, path).await;
        let metrics = proxy.metrics().await;
        let used = |peer: &SocketAddr| {
            metrics.sum("mvproxy_peer_requests_total", &[("peer", &peer.to_string())]) > 0
        };
        ensure(peers.iter().all(used), || "one is not".to_owned())
    })
    .await;
}

#[test]
fn a_dead_local_server_is_a_503_where_nobody_may_stand_in_and_rerouting_goes_on() {
    bounded(async {
        let load = |name| Documents::load(name).unwrap();
        let alone = ["--local-failover=false"];
        let cluster = Cluster::start_with(load("v1.34"), load("v1.36-all"), &alone).await;
        let (pki, old, new) = (cluster.pki, cluster.old, cluster.new);
        drop(old.standin);
        for caller in [Caller::alice(&pki), Caller::bob(&pki), Caller::nobody(&pki)] {
            for http in BOTH {
                let path = both_serve().path();
                for target in [path.as_str(), "/version", "/readyz", "/readyz?verbose", "/apis"] {
                    let answer = caller.get(old.proxy.address, http, target).await;
                    assert_unavailable(&answer, &format!("{target} by {} over {http:?}", caller.label));
                }
                let merged = caller.ask(old.proxy.address, http, aggregated("/apis")).await;
                assert_unavailable(&merged, "discovery, which only the local server may grant");
            }
        }
        let alice = Caller::alice(&pki);
        let answer = alice.get(old.proxy.address, Http::Two, &only_new_serves().path()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(served_by(&alice, new.proxy.address).await.is_ok(), "the other node is not touched");
    });
}

#[test]
fn a_peer_stands_in_for_a_dead_local_server_but_not_for_its_health() {
    bounded(async {
        let cluster = Cluster::start().await;
        let (pki, old, new) = (cluster.pki, cluster.old, cluster.new);
        let tag = Caller::alice(&pki).ask(old.proxy.address, Http::Two, aggregated("/apis")).await;
        drop(old.standin);
        let api = both_serve();
        for (caller, created, merged) in
            [(Caller::alice(&pki), 201, 200), (Caller::bob(&pki), 201, 200), (Caller::nobody(&pki), 403, 403)]
        {
            for http in BOTH {
                let what = format!("{} over {http:?}", caller.label);
                let mut session = caller.connect(old.proxy.address, http).await;
                let name = format!("{}-{http:?}", caller.label.len()).to_lowercase();
                let written = session.json("POST", &api.path(), &api.object(&name)).await;
                assert_eq!(written.status, created, "{what}: {}", written.text());
                assert_eq!(session.get("/version").await.status, 200, "{what}");
                for target in ["/readyz", "/readyz?verbose", "/livez"] {
                    assert_unavailable(&session.get(target).await, &format!("{target} by {what}"));
                }
                let discovery = session.fetch(aggregated("/apis")).await;
                assert_eq!(discovery.status, merged, "{what}: {}", discovery.text());
                if merged == 200 {
                    assert_eq!(discovery.headers["etag"], tag.headers["etag"], "{what}");
                }
            }
        }
        let peer_proxied = new.requests_for(&api.path()).iter().all(|request| request.peer_proxied);
        assert!(peer_proxied, "who stands in does not send it on");
    });
}

#[test]
fn head_is_answered_without_a_body_also_by_the_proxy_itself() {
    bounded(async {
        let cluster = Cluster::start().await;
        let (pki, old) = (cluster.pki, cluster.old);
        drop(cluster.new);
        for (caller, status) in [(Caller::alice(&pki), 503), (Caller::front_proxy(&pki), 401)] {
            for http in BOTH {
                let mut session = caller.connect(old.proxy.address, http).await;
                let answer = session.fetch(request("HEAD", &only_new_serves().path())).await;
                assert_eq!(answer.status, status, "{http:?}");
                assert!(answer.body.is_empty());
                let announced: usize = answer.header("content-length").parse().unwrap();
                let get = session.get(&only_new_serves().path()).await;
                assert_eq!(announced, get.body.len());
            }
        }
    });
}

#[test]
fn a_body_that_is_cut_ends_with_an_error_and_not_as_if_it_were_whole() {
    bounded(async {
        let cluster = Cluster::start().await;
        let remote = only_new_serves().path();
        let whole_length = format!("{remote}?length");
        let dying = dying_peer(&cluster, |request| {
            let answer = Response::builder();
            let has_length = request.uri().query() == Some("length");
            let answer = if has_length { answer.header("content-length", 1_000_000) } else { answer };
            answer.body(breaking(b"{\"kind\":")).unwrap()
        })
        .await;
        for caller in [Caller::alice(&cluster.pki), Caller::bob(&cluster.pki), Caller::nobody(&cluster.pki)] {
            for http in BOTH {
                for target in [&remote, &whole_length] {
                    let what = format!("{target} by {} over {http:?}", caller.label);
                    let mut session = caller.connect(dying.proxy.address, http).await;
                    let answer = session.open(request("GET", target)).await.unwrap();
                    assert_eq!(answer.status(), 200, "{what}");
                    let body = promptly("the end of the body", answer.into_body().collect()).await;
                    assert!(body.is_err(), "{what}: {body:?}");
                }
            }
        }
        let errors = dying.proxy.metrics().await;
        let errors = errors.sum("mvproxy_peer_errors_total", &[("peer", &dying.peer.address.to_string())]);
        assert!(errors >= 12, "{errors} of 12 are counted");
    });
}

#[test]
fn a_watch_ends_with_an_error_when_its_server_dies() {
    bounded(async {
        for http in BOTH {
            let cluster = Cluster::start().await;
            let target = format!("{}?watch=true", only_new_serves().path());
            let mut session = Caller::alice(&cluster.pki).connect(cluster.old.proxy.address, http).await;
            let watch: Response<Incoming> = session.open(request("GET", &target)).await.unwrap();
            drop(cluster.new.standin);
            let ended = promptly("the watch ends", watch.into_body().collect()).await;
            assert!(ended.is_err(), "{http:?}: a clean end says that nothing more happened");
        }
    });
}

/// Nobody can know whether a write that got no answer took effect, so it is never sent twice.
#[test]
fn a_write_that_draws_no_answer_is_not_repeated() {
    bounded(async {
        let cluster = Cluster::start().await;
        let arrived = Arc::new(AtomicUsize::new(0));
        let count = arrived.clone();
        let dying = dying_peer(&cluster, move |request| {
            // The proxy itself asks for OpenAPI documents meanwhile.
            if request.uri().path() == only_new_serves().path() {
                count.fetch_add(1, Ordering::Relaxed);
            }
            panic!("an API server that dies in the middle of a request");
        })
        .await;
        for caller in [Caller::alice(&cluster.pki), Caller::nobody(&cluster.pki)] {
            for (method, at_most) in [("POST", 1), ("PUT", 1), ("PATCH", 1), ("DELETE", 1), ("GET", 5)] {
                for http in BOTH {
                    arrived.store(0, Ordering::Relaxed);
                    let asked = request(method, &only_new_serves().path());
                    let answer = caller.ask(dying.proxy.address, http, asked).await;
                    let what = format!("{method} by {} over {http:?}", caller.label);
                    // A read may be asked for again, and the client is told so.
                    let code = if method == "GET" { 503 } else { 502 };
                    assert_eq!(answer.status, code, "{what}: {}", answer.text());
                    assert_eq!(answer.json().unwrap()["kind"], "Status");
                    let seen = arrived.load(Ordering::Relaxed);
                    assert!((1..=at_most).contains(&seen), "{what} arrived {seen} times");
                }
            }
        }
    });
}

/// A proxy before the old server whose one peer knows discovery and else does what a test says.
struct Dying {
    proxy: Proxy,
    peer: Upstream,
}

async fn dying_peer<H>(cluster: &Cluster, handler: H) -> Dying
where
    H: Fn(Request<Incoming>) -> Response<Body> + Clone + Send + Sync + 'static,
{
    let admin = Caller::admin(&cluster.pki);
    let mut documents = Vec::new();
    for path in ["/api", "/apis", "/version", "/readyz"] {
        let answer = admin.ask(cluster.new.standin.addr, Http::Two, aggregated(path)).await;
        documents.push((path, answer.text()));
    }
    let peer = Upstream::start(&cluster.new.serving, move |request: Request<Incoming>| {
        let known = documents.iter().find(|(path, _)| *path == request.uri().path());
        let known = known.map(|(_, json)| Response::new(whole(json.clone())));
        let handler = handler.clone();
        async move { known.unwrap_or_else(|| handler(request)) }
    })
    .await;
    let proxy = Proxy::start(&ProxyOptions {
        pki: &cluster.pki,
        serving: &cluster.old.serving,
        local: cluster.old.standin.addr,
        peers: &[peer.address],
        flags: &[],
    });
    cluster.synced(&proxy).await;
    Dying { proxy, peer }
}

/// kube-apiserver answers before its authorizer has read any role, and refuses everybody until then.
#[test]
fn a_server_that_refuses_to_say_whether_it_is_ready_after_it_was_not_gets_no_requests() {
    bounded(async {
        let cluster = Cluster::start().await;
        let faults = cluster.old.standin.faults();
        faults.inject(Fault::InternalError, "/readyz", 2);
        faults.inject(Fault::Forbidden, "/readyz", usize::MAX);
        let alice = Caller::alice(&cluster.pki);
        let mut session = alice.connect(cluster.old.proxy.address, Http::Two).await;
        let (path, mut turn) = (both_serve().path(), 0);
        let mut goes_to_the_peer = async || {
            turn += 1;
            let target = format!("{path}?turn={turn}");
            assert_eq!(session.get(&target).await.status, 200);
            !cluster.new.requests_for(&target).is_empty()
        };
        eventually("a server that is not ready is passed over", async || {
            ensure(goes_to_the_peer().await, || "the local server got it".to_owned())
        })
        .await;
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(4) {
            assert!(goes_to_the_peer().await, "after {:?}", begun.elapsed());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        faults.clear();
        eventually("a server that is ready again is asked", async || {
            ensure(!goes_to_the_peer().await, || "the peer got it".to_owned())
        })
        .await;
    });
}
