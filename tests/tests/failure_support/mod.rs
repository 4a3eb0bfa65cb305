//! A local API server, newer peers that can fail, and a proxy that knows them all, on loopback or in namespaces.
#![allow(dead_code, unused_imports, reason = "every test binary uses its own part of this")]
#![allow(unreachable_pub, reason = "a module of a test binary is reached from that binary only")]

mod certificates;
mod outcome;
mod place;
mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
pub use certificates::BadCertificates;
use http::Request;
use mvproxy_tests::client::Answer;
use mvproxy_tests::pki::Pki;
use mvproxy_tests::standin::Fault;
use mvproxy_tests::store::{Range, Store};
pub use outcome::{Outcome, Row, Seen, assert_own_failure, assert_unavailable};
pub use place::{Place, World, in_namespaces, on_loopback};
use serde_json::json;
pub use server::Server;

use super::support::{
    Api, Caller, Http, Proxy, ProxyOptions, Session, ensure, eventually, only_new_serves, request,
};

/// What the local API server serves.
pub const OLD: &str = "v1.34";
/// What its peers serve.
pub const NEW: &str = "v1.36-all";
/// Failover when a server says no, and everything that has nothing to do with a failure.
pub const AT_ONCE: Duration = Duration::from_secs(1);
/// Failover when a server says nothing.
pub const SOON: Duration = Duration::from_secs(5);

/// The servers and the proxy.
pub struct Rig {
    pub pki: Arc<Pki>,
    pub store: Store,
    /// On the proxy's node.
    pub local: Server,
    pub peers: Vec<Server>,
    pub proxy: Proxy,
    pub admin: Caller,
    rows: AtomicUsize,
    _node: Place,
}

impl Rig {
    /// Starts everything and waits until the proxy knows what each server serves.
    pub async fn start(world: &World, peers: usize) -> Self {
        Self::start_with(world, peers, &[]).await
    }

    /// The same with more flags for the proxy.
    pub async fn start_with(world: &World, peers: usize, flags: &[&str]) -> Self {
        let rig = Self::prepared(world, peers, flags, async |_, _| {}).await;
        rig.proxy.ready().await;
        rig.knows_all().await;
        rig
    }

    /// Does not wait; `prepare` is done to the local server and its peers before the proxy starts.
    pub async fn prepared(
        world: &World,
        peers: usize,
        flags: &[&str],
        prepare: impl AsyncFnOnce(&Server, &[Server]),
    ) -> Self {
        let (pki, store) = (Arc::new(Pki::generate().unwrap()), Store::in_memory());
        let place = world.place("node").await;
        let node = place.beside().await;
        let local = Server::start(place, &pki, &store, "local", OLD).await;
        let mut all = Vec::new();
        for number in 0..peers {
            let name = format!("peer{number}");
            all.push(Server::start(world.place(&name).await, &pki, &store, &name, NEW).await);
        }
        prepare(&local, &all).await;
        let proxy = start_proxy(&node, &pki, &local, &all, flags).await;
        let admin = Caller::admin(&pki);
        Self { pki, store, local, peers: all, proxy, admin, rows: AtomicUsize::new(0), _node: node }
    }

    /// Waits until requests have reached every peer, so that each is known to serve what is new and has a connection that
    /// has worked.
    pub async fn knows_all(&self) {
        let row = self.row("GET", &only_new_serves());
        eventually("every peer is used", async || {
            let answer = self.session(Http::Two).await.get(&row.target).await;
            ensure(answer.status == 200, || format!("{}", answer.status))?;
            let used = self.peers.iter().all(|peer| peer.saw("GET", &row.target) > 0);
            ensure(used, || "one was never asked".to_owned())
        })
        .await;
    }

    /// An administrator's connection to the proxy.
    pub async fn session(&self, http: Http) -> Session {
        self.admin.connect(self.proxy.address, http).await
    }

    /// A request for a collection that no other request resembles. A POST creates an object that is named after it.
    pub fn row(&self, method: &str, api: &Api) -> Row {
        let mut row = self.row_at(method, &api.path());
        if method == "POST" {
            row.body = api.object(&row.name).to_string();
        }
        row
    }

    /// The same for an object of so many bytes.
    pub fn large_row(&self, api: &Api, bytes: usize) -> Row {
        let mut row = self.row("POST", api);
        let mut object = api.object(&row.name);
        object["metadata"]["annotations"] = json!({"padding": "x".repeat(bytes)});
        row.body = object.to_string();
        row
    }

    /// The next request for what only peers serve suffers `fault` at each of them, and nothing else fails.
    pub fn each_peer_suffers(&self, fault: &Fault) {
        for peer in &self.peers {
            peer.clear_faults();
            peer.inject(fault.clone(), &only_new_serves().path(), 1);
        }
    }

    /// The same for any path, without a body.
    pub fn row_at(&self, method: &str, path: &str) -> Row {
        let number = self.rows.fetch_add(1, Ordering::Relaxed);
        let (name, target) = (format!("row-{number}"), format!("{path}?row={number}"));
        Row { method: method.to_owned(), target, name, body: String::new() }
    }

    /// What the local server itself answers to such a request.
    pub async fn straight(&self, row: &Row) -> Answer {
        let mut row = row.clone();
        row.target.push_str("&straight");
        self.admin.ask(self.local.address, Http::Two, row.request()).await
    }

    /// Sends such a request and looks who saw it.
    pub async fn ask(&self, session: &mut Session, method: &str, api: &Api) -> Outcome {
        self.send(session, self.row(method, api)).await
    }

    /// Sends a request and looks who saw it.
    pub async fn send(&self, session: &mut Session, row: Row) -> Outcome {
        let begun = Instant::now();
        let answer = session.fetch(row.request()).await;
        let took = begun.elapsed();
        Outcome { answer, took, seen: self.seen(&row).await, row }
    }

    /// Who saw a request up to now.
    pub async fn seen(&self, row: &Row) -> Seen {
        let Row { method, target, name, .. } = row;
        Seen {
            local: self.local.saw(method, target),
            peers: self.peers.iter().map(|peer| peer.saw(method, target)).collect(),
            stored: self.created(name).await,
        }
    }

    /// Waits until some peer has seen a request.
    pub async fn has_seen(&self, row: &Row) {
        eventually("it has arrived", async || {
            ensure(self.seen(row).await.total() > 0, || "not yet".to_owned())
        })
        .await;
    }

    /// Waits until a request has taken effect, if it has one.
    pub async fn has_stored(&self, row: &Row) {
        eventually("it is stored", async || {
            let stored = self.created(&row.name).await;
            ensure(row.method != "POST" || stored > 0, || "not yet".to_owned())
        })
        .await;
    }

    /// The number of the peer that saw a request.
    #[track_caller]
    pub fn only_peer_that_saw(&self, row: &Row) -> usize {
        let saw = |number: &usize| self.peers[*number].saw(&row.method, &row.target) == 1;
        let found: Vec<usize> = (0..self.peers.len()).filter(saw).collect();
        assert_eq!(found.len(), 1, "{} was seen by {found:?}", row.target);
        found[0]
    }

    /// How often an object was created.
    pub async fn created(&self, name: &str) -> usize {
        let events = self.store.events(&Range::default(), 0, Duration::ZERO).await.unwrap().events;
        events.iter().filter(|event| event.key.name == name && event.previous.is_none()).count()
    }
}

async fn start_proxy(
    node: &Place,
    pki: &Arc<Pki>,
    local: &Server,
    peers: &[Server],
    flags: &[&str],
) -> Proxy {
    // One worker has one pool, so a test knows which connections there are.
    let own = [
        "--workers=1".to_owned(),
        format!("--listen={}:0", node.ip),
        format!("--admin-address={}:0", node.ip),
    ];
    let flags: Vec<String> = own.into_iter().chain(flags.iter().map(ToString::to_string)).collect();
    let (pki, serving, local) = (Arc::clone(pki), local.serving.clone(), local.local_address());
    let peers: Vec<_> = peers.iter().map(|peer| peer.address).collect();
    let start = async move {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        Proxy::start(&ProxyOptions { pki: &pki, serving: &serving, local, peers: &peers, flags: &flags })
    };
    node.run(start).await
}
