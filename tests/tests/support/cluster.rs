//! Puts a cluster together in the middle of an upgrade.

use std::net::SocketAddr;

use mvproxy_tests::pki::{Identity, Pki};
use mvproxy_tests::standin::{Documents, RecordedRequest, Standin, StandinOptions};
use mvproxy_tests::store::Store;

use super::callers::Caller;
use super::proxy::{Proxy, ProxyOptions};
use super::{apis, ensure, eventually};

/// One control-plane node.
pub struct Node {
    pub standin: Standin,
    pub proxy: Proxy,
    /// What both show to clients.
    pub serving: Identity,
}

/// Two nodes, one store.
pub struct Cluster {
    pub old: Node,
    pub new: Node,
    pub pki: Pki,
    pub store: Store,
}

impl Cluster {
    /// An old v1.34 and a new v1.36 node; both proxies know both servers.
    pub async fn start() -> Self {
        let load = |name| Documents::load(name).unwrap();
        Self::start_with(load("v1.34"), load("v1.36-all"), &[]).await
    }

    /// The same with other documents and more flags for both proxies.
    pub async fn start_with(old: Documents, new: Documents, flags: &[&str]) -> Self {
        let cluster = Self::start_unsynced(old, new, flags).await;
        for node in [&cluster.old, &cluster.new] {
            node.proxy.ready().await;
            cluster.synced(&node.proxy).await;
        }
        cluster
    }

    /// The same without waiting for discovery.
    pub async fn start_unsynced(old: Documents, new: Documents, flags: &[&str]) -> Self {
        let (pki, store) = (Pki::generate().unwrap(), Store::in_memory());
        let (old, old_serving) = standin(&pki, &store, "old", old).await;
        let (new, new_serving) = standin(&pki, &store, "new", new).await;
        let start = |serving, local: SocketAddr, peer: SocketAddr| {
            Proxy::start(&ProxyOptions { pki: &pki, serving, local, peers: &[peer], flags })
        };
        let old_proxy = start(&old_serving, old.addr, new.addr);
        let new_proxy = start(&new_serving, new.addr, old.addr);
        let old = Node { standin: old, proxy: old_proxy, serving: old_serving };
        let new = Node { standin: new, proxy: new_proxy, serving: new_serving };
        Self { old, new, pki, store }
    }

    /// Waits until `proxy` shows what either server serves.
    pub async fn synced(&self, proxy: &Proxy) {
        let admin = Caller::admin(&self.pki);
        let mut union = apis::served_by(&admin, self.old.standin.addr).await.unwrap();
        union.extend(apis::served_by(&admin, self.new.standin.addr).await.unwrap());
        eventually("the proxy knows both servers", async || {
            let known = apis::served_by(&admin, proxy.address).await?;
            let missing: Vec<_> = union.keys().filter(|key| !known.contains_key(*key)).collect();
            ensure(missing.is_empty(), || format!("missing {missing:?}"))
        })
        .await;
    }
}

impl Node {
    /// Requests for exactly this target that reached the API server.
    pub fn requests_for(&self, target: &str) -> Vec<RecordedRequest> {
        self.standin.requests().into_iter().filter(|request| request.target == target).collect()
    }

    /// The one request for this target that reached the API server.
    #[track_caller]
    pub fn only_request_for(&self, target: &str) -> RecordedRequest {
        let mut found = self.requests_for(target);
        assert_eq!(found.len(), 1, "{target}: {found:?}");
        found.remove(0)
    }
}

/// A stand-in for `hostname` and its certificate.
pub async fn standin(pki: &Pki, store: &Store, hostname: &str, documents: Documents) -> (Standin, Identity) {
    let mut options = StandinOptions::from_pki(pki, hostname, "v1.36-all", store).unwrap();
    options.documents = documents;
    let serving = options.serving.clone();
    (Standin::start(options).await.unwrap(), serving)
}
