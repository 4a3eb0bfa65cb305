//! A local API server, two newer peers that can fail, and a proxy that knows all three.
#![allow(dead_code, unused_imports, reason = "every test binary uses its own part of this")]
#![allow(unreachable_pub, reason = "a module of a test binary is reached from that binary only")]

mod certificates;
mod trap;

use std::net::SocketAddr;
use std::time::Duration;

pub use certificates::BadCertificates;
use mvproxy_tests::client::Answer;
use mvproxy_tests::pki::{Identity, Pki};
use mvproxy_tests::standin::{Documents, Standin, StandinOptions};
use mvproxy_tests::store::{Range, Store};
pub use trap::Trap;

use super::support::{Api, Caller, Http, Proxy, ProxyOptions, Session, ensure, eventually, only_new_serves};

/// What the local API server serves.
pub const OLD: &str = "v1.34";
/// What its peers serve.
pub const NEW: &str = "v1.36-all";

/// One API server, its certificate, and what stands before it.
pub struct Peer {
    pub standin: Standin,
    pub serving: Identity,
    pub trap: Trap,
}

/// The servers and the proxy.
pub struct Rig {
    pub pki: Pki,
    pub store: Store,
    pub local: Option<Standin>,
    local_address: SocketAddr,
    pub serving: Identity,
    pub peers: Vec<Peer>,
    pub proxy: Proxy,
    pub admin: Caller,
}

impl Rig {
    /// Starts everything and waits until the proxy knows what each server serves.
    pub async fn start(peers: usize) -> Self {
        let rig = Self::start_unsynced(peers, &[]).await;
        rig.knows_all().await;
        rig
    }

    /// Does not wait; peers with these numbers hang from the beginning.
    pub async fn start_unsynced(peers: usize, hanging: &[usize]) -> Self {
        Self::start_with(peers, hanging, &[]).await
    }

    /// The same with more flags for the proxy.
    pub async fn start_with(peers: usize, hanging: &[usize], more: &[&str]) -> Self {
        // One worker has one pool, so a test knows which connections there are.
        let flags: Vec<&str> = ["--workers=1"].iter().chain(more).copied().collect();
        let (pki, store) = (Pki::generate().unwrap(), Store::in_memory());
        let (local, serving) = start_standin(&pki, &store, "local", OLD, None).await;
        let mut all = Vec::new();
        for number in 0..peers {
            let (standin, serving) = start_standin(&pki, &store, &format!("peer{number}"), NEW, None).await;
            let trap = Trap::before(standin.addr, &serving).await;
            if hanging.contains(&number) {
                trap.freeze();
            }
            all.push(Peer { standin, serving, trap });
        }
        let addresses: Vec<SocketAddr> = all.iter().map(|peer| peer.trap.address).collect();
        let proxy = Proxy::start(&ProxyOptions {
            pki: &pki,
            serving: &serving,
            local: local.addr,
            peers: &addresses,
            flags: &flags,
        });
        proxy.ready().await;
        let admin = Caller::admin(&pki);
        let local_address = local.addr;
        Self { pki, store, local: Some(local), local_address, serving, peers: all, proxy, admin }
    }

    /// Waits until requests have reached every peer, so that each is known to serve what is new.
    pub async fn knows_all(&self) {
        let target = format!("{}?knows", only_new_serves().path());
        eventually("every peer is used", async || {
            let answer = self.session(Http::Two).await.get(&target).await;
            ensure(answer.status == 200, || format!("{}", answer.status))?;
            let used = |peer: &Peer| peer.standin.requests().iter().any(|request| request.target == target);
            ensure(self.peers.iter().all(used), || "one was never asked".to_owned())
        })
        .await;
    }

    /// An administrator's connection to the proxy.
    pub async fn session(&self, http: Http) -> Session {
        self.admin.connect(self.proxy.address, http).await
    }

    /// How many requests of this method and target each peer has seen.
    pub fn seen(&self, method: &str, target: &str) -> Vec<usize> {
        let count = |peer: &Peer| {
            let requests = peer.standin.requests();
            requests.iter().filter(|seen| seen.method == method && seen.target == target).count()
        };
        self.peers.iter().map(count).collect()
    }

    /// How often an object was created.
    pub async fn created(&self, name: &str) -> usize {
        let events = self.store.events(&Range::default(), 0, Duration::ZERO).await.unwrap().events;
        events.iter().filter(|event| event.key.name == name && event.previous.is_none()).count()
    }

    /// Starts the local API server again where it was.
    pub async fn restart_local(&mut self) {
        let (local, serving) = (self.local_address, self.serving.clone());
        self.local = Some(start_at(&self.pki, &self.store, "local", OLD, local, serving).await);
    }
}

async fn start_standin(
    pki: &Pki,
    store: &Store,
    hostname: &str,
    documents: &str,
    bind: Option<SocketAddr>,
) -> (Standin, Identity) {
    let mut options = StandinOptions::from_pki(pki, hostname, documents, store).unwrap();
    options.bind = bind.unwrap_or(options.bind);
    let serving = options.serving.clone();
    (Standin::start(options).await.unwrap(), serving)
}

/// Starts a stand-in on a port that another one has just left.
pub async fn start_at(
    pki: &Pki,
    store: &Store,
    hostname: &str,
    documents: &str,
    address: SocketAddr,
    serving: Identity,
) -> Standin {
    eventually("the port is free", async || {
        let mut options = StandinOptions::from_pki(pki, hostname, documents, store).unwrap();
        options.bind = address;
        options.serving = serving.clone();
        Standin::start(options).await.map_err(|error| format!("{error:#}"))
    })
    .await
}

/// A 503 as kube-apiserver gives it, with nothing about the inside in it.
#[track_caller]
pub fn assert_unavailable(answer: &Answer, what: &str) {
    assert_eq!(answer.status, 503, "{what}: {}", answer.text());
    assert_eq!(answer.header("retry-after"), "1", "{what}");
    assert_own_failure(answer, 503, "ServiceUnavailable", what);
}

/// A Status of the proxy's own.
#[track_caller]
pub fn assert_own_failure(answer: &Answer, code: u16, reason: &str, what: &str) {
    assert_eq!(answer.status, code, "{what}: {}", answer.text());
    assert_eq!(answer.header("content-type"), "application/json", "{what}");
    let status = answer.json().unwrap();
    assert_eq!((&status["kind"], &status["apiVersion"]), (&"Status".into(), &"v1".into()), "{what}");
    assert_eq!((&status["status"], &status["code"]), (&"Failure".into(), &code.into()), "{what}");
    assert_eq!(status["reason"], reason, "{what}");
    for secret in ["127.0.0.1", "127.64", "os error", "refused", "kubernetes-admin"] {
        assert!(!answer.text().contains(secret), "{what} gives {secret:?} away: {}", answer.text());
    }
}
