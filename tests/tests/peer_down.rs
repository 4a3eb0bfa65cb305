//! Clients learn the truth, quickly and in kube-apiserver's words, when the API server that should answer does not.

mod support;

use std::net::SocketAddr;

use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use mvproxy_tests::client::Answer;
use mvproxy_tests::standin::{Documents, Fault};
use support::{
    BOTH, Caller, Cluster, Http, Proxy, ProxyOptions, Upstream, aggregated, both_serve, bounded, ensure,
    eventually, only_new_serves, promptly, request, served_by, standin, whole,
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
        let mut failed = 0.0;
        for caller in [Caller::alice(&pki), Caller::bob(&pki), Caller::nobody(&pki)] {
            for http in BOTH {
                let mut session = caller.connect(old.proxy.address, http).await;
                let api = only_new_serves();
                for method in ["GET", "POST", "DELETE"] {
                    let answer = session.fetch(request(method, &api.path())).await;
                    assert_unavailable(&answer, &format!("{method} by {} over {http:?}", caller.label));
                    failed += 1.0;
                }
                let local = session.get("/version").await;
                assert_eq!(local.status, 200, "the same connection still serves: {}", local.text());
            }
        }
        let metrics = old.proxy.metrics().await;
        let errors = metrics.sum("apiserver_peer_proxy_errors_total", &[("type", "proxy_transport")]);
        assert!((errors - failed).abs() < 0.5, "{errors} of {failed} failures are counted");
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
            metrics.sum("mvproxy_peer_requests_total", &[("peer", &peer.to_string())]) > 0.0
        };
        ensure(peers.iter().all(used), || "one is not".to_owned())
    })
    .await;
}

#[test]
fn a_dead_local_server_is_a_503_and_rerouting_goes_on() {
    bounded(async {
        let cluster = Cluster::start().await;
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
        let pki = &cluster.pki;
        let (local, remote) = (both_serve().path(), only_new_serves().path());
        let watch = format!("{remote}?watch=true");
        let proxy = cluster.old.proxy.address;
        for (caller, target, node) in [
            (Caller::alice(pki), local.as_str(), &cluster.old),
            (Caller::alice(pki), &remote, &cluster.new),
            (Caller::alice(pki), &watch, &cluster.new),
            (Caller::bob(pki), &remote, &cluster.new),
            (Caller::nobody(pki), "/version", &cluster.old),
        ] {
            for http in BOTH {
                for after in [1, 10] {
                    let what = format!("{target} by {} over {http:?} after {after} bytes", caller.label);
                    node.standin.faults().inject(
                        Fault::CutBody { after },
                        target.split('?').next().unwrap(),
                        1,
                    );
                    if target == watch {
                        let mut admin = Caller::admin(pki).connect(cluster.new.standin.addr, http).await;
                        let name = format!("cut-{after}-{http:?}").to_lowercase();
                        admin.json("POST", &only_new_serves().path(), &only_new_serves().object(&name)).await;
                    }
                    let mut session = caller.connect(proxy, http).await;
                    let ended = session.try_fetch(request("GET", target)).await;
                    assert!(ended.is_err(), "{what}: {ended:?}");
                    node.standin.faults().clear();
                    let again = caller.get(proxy, http, target.split('?').next().unwrap()).await;
                    assert_eq!(again.status, 200, "{what}");
                }
            }
        }
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
fn a_write_that_draws_no_answer_is_not_repeated_and_a_read_is() {
    bounded(async {
        let cluster = Cluster::start().await;
        let arrived = std::sync::Arc::new(std::sync::Mutex::new(Vec::<String>::new()));
        let record = arrived.clone();
        let api = only_new_serves();
        let (documents, caller) = (recorded_documents(&cluster).await, Caller::alice(&cluster.pki));
        let upstream = Upstream::start(&cluster.new.serving, move |request: http::Request<Incoming>| {
            let (record, documents) = (record.clone(), documents.clone());
            async move {
                let path = request.uri().path();
                if let Some((_, json)) = documents.iter().find(|(known, _)| known == path) {
                    return Response::new(whole(json.clone()));
                }
                record.lock().unwrap().push(request.method().to_string());
                panic!("an API server that dies in the middle of a request");
            }
        })
        .await;
        let proxy = Proxy::start(&ProxyOptions {
            pki: &cluster.pki,
            serving: &cluster.old.serving,
            local: cluster.old.standin.addr,
            peers: &[upstream.address],
            flags: &[],
        });
        cluster.synced(&proxy).await;
        for (method, at_most) in [("POST", 1), ("PUT", 1), ("PATCH", 1), ("DELETE", 1), ("GET", 2)] {
            for http in BOTH {
                arrived.lock().unwrap().clear();
                let answer = caller.ask(proxy.address, http, request(method, &api.path())).await;
                assert_eq!(answer.status, 502, "{method}: {}", answer.text());
                let seen = arrived.lock().unwrap().clone();
                assert!((1..=at_most).contains(&seen.len()), "{method} over {http:?} arrived {seen:?}");
            }
        }
    });
}

/// What the new server answers to a proxy that asks what it serves.
async fn recorded_documents(cluster: &Cluster) -> Vec<(String, String)> {
    let admin = Caller::admin(&cluster.pki);
    let mut documents = Vec::new();
    for path in ["/api", "/apis", "/version"] {
        let answer = admin.ask(cluster.new.standin.addr, Http::Two, aggregated(path)).await;
        documents.push((path.to_owned(), answer.text()));
    }
    documents
}
