//! Certificates, keys and CAs are renewed under load: whoever is entitled notices nothing, whoever no longer is, at once.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use mvproxy_tests::client::Trust;
use mvproxy_tests::pki::{Identity, Pki};
use mvproxy_tests::standin::RequestHeader;
use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};
use support::{
    BOTH, Caller, Cluster, Http, Resuming, both_serve, bounded, ensure, eventually, only_new_serves,
};
use tokio::task::JoinHandle;

const EXPIRATION: &str = "mvproxy_certificate_expiration_timestamp_seconds";

/// Requests of all clients between two renewals.
const ROUND: usize = 60;

/// A cluster whose every CA is about to be replaced by that of `new`.
struct Rotation {
    cluster: Cluster,
    new: Pki,
    load: Load,
}

#[test]
fn every_credential_is_renewed_under_load_without_a_failed_request() {
    bounded(async {
        let mut rotation = Rotation::start().await;
        rotation.load.goes_on().await;
        rotation.clients_get_a_second_ca().await;
        rotation.load.goes_on().await;
        rotation.serving_certificate_changes().await;
        rotation.load.goes_on().await;
        rotation.front_proxy_pair_changes().await;
        rotation.load.goes_on().await;
        rotation.clients_lose_the_first_ca().await;
        rotation.load.goes_on().await;
        let (requests, failures) = rotation.load.end().await;
        assert_eq!(failures, Vec::<String>::new(), "of {requests} requests");
        assert!(requests > 6 * ROUND, "only {requests} requests were sent");
        println!("{requests} requests of entitled clients, 0 failed, through 5 renewals");
    });
}

impl Rotation {
    async fn start() -> Self {
        let cluster = Cluster::start().await;
        let mut load = Load::default();
        for http in BOTH {
            load.add(&believing_both(Caller::bob(&cluster.pki), &cluster.pki, None), &cluster, http);
        }
        Self { cluster, new: Pki::generate().unwrap(), load }
    }

    fn renew(&self, name: &str, text: &str) {
        self.cluster.old.proxy.renew(name, text);
    }

    fn caller(&self, of: Caller) -> Caller {
        believing_both(of, &self.cluster.pki, Some(&self.new))
    }

    /// Old clients go on, new ones begin.
    async fn clients_get_a_second_ca(&mut self) {
        let (address, pki) = (self.cluster.old.proxy.address, &self.cluster.pki);
        let dave = self.caller(Caller::alice(&self.new).labelled("a client of the new CA"));
        assert_eq!(dave.get(address, Http::Two, &both_serve().path()).await.status, 401);
        self.renew("ca.crt", &format!("{}{}", pki.ca_pem(), self.new.ca_pem()));
        eventually("the new CA is believed", async || {
            let status = dave.get(address, Http::Two, &both_serve().path()).await.status;
            ensure(status == 200, || status.to_string())
        })
        .await;
        for http in BOTH {
            self.load.add(&dave, &self.cluster, http);
        }
    }

    async fn serving_certificate_changes(&self) {
        let address = self.cluster.old.proxy.address;
        let renewed = self.new.serving("old", address.ip()).unwrap();
        let only_new = Caller { trust: Trust::Ca(self.new.ca_pem().to_owned()), ..Caller::bob(&self.new) };
        // The key first: for a moment the files are no pair.
        self.renew("apiserver.key", &renewed.key_pem);
        self.renew("apiserver.crt", &renewed.cert_pem);
        eventually("the new certificate is shown", async || {
            let options = only_new.options(address, Http::Two);
            mvproxy_tests::client::Client::connect(&options).await.map_err(|error| format!("{error:#}"))
        })
        .await;
    }

    /// The API servers stop to believe the old pair as soon as the proxy has the new one.
    async fn front_proxy_pair_changes(&self) {
        let Cluster { old, new: peer, pki, .. } = &self.cluster;
        let (old_ca, new_ca) = (pki.front_proxy_ca_pem(), self.new.front_proxy_ca_pem());
        let servers = [&old.standin, &peer.standin];
        let all_trust = |bundle: &str| {
            for server in servers {
                server.trust(Some(pki.ca_pem()), Some(RequestHeader::usual(bundle))).unwrap();
            }
        };
        all_trust(&format!("{old_ca}{new_ca}"));
        let reloads = self.reloads().await;
        let pair: &Identity = self.new.front_proxy_client();
        self.renew("front-proxy-ca.crt", &format!("{old_ca}{new_ca}"));
        self.renew("front-proxy-client.crt", &pair.cert_pem);
        self.renew("front-proxy-client.key", &pair.key_pem);
        // A pair that could be told from the former one only by what servers make of it.
        eventually("the new pair is in use", async || {
            ensure(self.reloads().await > reloads, || "not reloaded".to_owned())?;
            let metrics = self.cluster.old.proxy.metrics().await;
            ensure(metrics.sum("mvproxy_credentials_outdated", &[]) == 0, || "half a pair".to_owned())
        })
        .await;
        // Requests that were on their way over connections with the old pair end; new ones must not use those.
        self.load.goes_on().await;
        all_trust(new_ca);
    }

    async fn reloads(&self) -> u64 {
        let metrics = self.cluster.old.proxy.metrics().await;
        metrics.sum("mvproxy_credential_reloads_total", &[("result", "success")])
    }

    /// Clients of the old CA are refused: on open connections, on resumed sessions and on new ones.
    async fn clients_lose_the_first_ca(&self) {
        let address = self.cluster.old.proxy.address;
        let alice = self.caller(Caller::alice(&self.cluster.pki));
        let path = both_serve().path();
        let mut open = Vec::new();
        for http in BOTH {
            let mut session = alice.connect(address, http).await;
            assert_eq!(session.get(&path).await.status, 200);
            open.push(session);
        }
        let sessions =
            [&TLS12, &TLS13].map(|version| Resuming::new(&alice.options(address, Http::One), &[version]));
        for session in &sessions {
            assert_eq!(session.get(&path).await, (HandshakeKind::Full, 200));
            assert_eq!(session.get(&path).await, (HandshakeKind::Resumed, 200));
        }
        self.renew("ca.crt", self.new.ca_pem());
        eventually("the old CA is no longer believed", async || {
            let status = alice.get(address, Http::Two, &path).await.status;
            ensure(status == 401, || status.to_string())
        })
        .await;
        for session in &mut open {
            assert_eq!(session.get(&path).await.status, 401, "on an open connection");
            assert_eq!(session.get(&only_new_serves().path()).await.status, 401, "and for a peer");
        }
        for session in &sessions {
            assert_eq!(session.get(&path).await, (HandshakeKind::Full, 401), "no session outlives its CA");
        }
    }
}

/// Believes serving certificates of both CAs: each is shown for a while.
fn believing_both(caller: Caller, old: &Pki, new: Option<&Pki>) -> Caller {
    let new = new.map(Pki::ca_pem).unwrap_or_default();
    Caller { trust: Trust::Ca(format!("{}{new}", old.ca_pem())), ..caller }
}

/// Requests of entitled clients, one after the other, until it ends.
#[derive(Default)]
struct Load {
    clients: Vec<JoinHandle<Vec<String>>>,
    ends: Arc<AtomicBool>,
    requests: Arc<AtomicUsize>,
}

impl Load {
    /// One client that keeps its connection.
    fn add(&mut self, caller: &Caller, cluster: &Cluster, http: Http) {
        let (caller, address) = (caller.clone(), cluster.old.proxy.address);
        let (ends, requests) = (Arc::clone(&self.ends), Arc::clone(&self.requests));
        self.clients.push(tokio::spawn(async move {
            let (mut session, mut failures) = (caller.connect(address, http).await, Vec::new());
            while !ends.load(Ordering::Relaxed) {
                for path in [both_serve().path(), only_new_serves().path()] {
                    let answer = session.get(&path).await;
                    requests.fetch_add(1, Ordering::Relaxed);
                    if answer.status != 200 {
                        failures.push(format!("{} {http:?} {path}: {}", caller.label, answer.text()));
                    }
                }
            }
            failures
        }));
    }

    /// Waits until every client has sent some more requests.
    async fn goes_on(&self) {
        let enough = self.requests.load(Ordering::Relaxed) + ROUND;
        eventually("the clients go on", async || {
            let requests = self.requests.load(Ordering::Relaxed);
            ensure(requests >= enough, || format!("{requests} of {enough} requests"))
        })
        .await;
    }

    /// How many requests there were, and what became of those that failed.
    async fn end(self) -> (usize, Vec<String>) {
        self.ends.store(true, Ordering::Relaxed);
        let mut failures = Vec::new();
        for client in self.clients {
            failures.extend(client.await.unwrap());
        }
        (self.requests.load(Ordering::Relaxed), failures)
    }
}

#[test]
fn a_broken_new_file_keeps_the_old_one_and_is_shown() {
    bounded(async {
        let cluster = Cluster::start().await;
        let proxy = &cluster.old.proxy;
        let alice = Caller::alice(&cluster.pki);
        let verbose = async || support::admin_get(proxy.admin, "/readyz?verbose").await.unwrap();
        let outdated = async || proxy.metrics().await.sum("mvproxy_credentials_outdated", &[]);
        assert_eq!(outdated().await, 0);
        assert!(proxy.metrics().await.series(EXPIRATION) >= 5, "one series for each certificate");

        proxy.renew("ca.crt", "-----BEGIN CERTIFICATE-----\nnot base64!\n-----END CERTIFICATE-----\n");
        eventually("the mistake is noticed", async || ensure(outdated().await == 1, || "0".to_owned())).await;
        let (status, text) = verbose().await;
        assert_eq!(status, 200, "the proxy works as before: {text}");
        let line = text.lines().find(|line| line.contains("-credentials")).unwrap();
        assert!(line.contains("--client-ca-file") && line.contains("ca.crt"), "{line}");
        let anybody = alice.get(proxy.address, Http::Two, "/readyz?verbose").await.text();
        let line = anybody.lines().find(|line| line.contains("-credentials")).unwrap();
        assert!(line.ends_with("reason withheld"), "{line}");
        assert_eq!(alice.get(proxy.address, Http::Two, &both_serve().path()).await.status, 200);
        let failures = [("result", "failure")];
        assert_eq!(proxy.metrics().await.sum("mvproxy_credential_reloads_total", &failures), 1);

        proxy.renew("ca.crt", cluster.pki.ca_pem());
        eventually("the repair is noticed", async || ensure(outdated().await == 0, || "1".to_owned())).await;
        assert!(!verbose().await.1.contains("-credentials"));
    });
}
