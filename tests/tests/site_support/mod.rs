//! API servers on one port of several loopback addresses, as on the nodes of a cluster, and proxies that have to find them.
#![allow(dead_code, unused_imports, reason = "every test binary uses its own part of this")]
#![allow(unreachable_pub, reason = "a module of a test binary is reached from that binary only")]

mod log;
mod objects;
mod trap;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

pub use log::Log;
use mvproxy_tests::pki::{Identity, Pki, Subject};
use mvproxy_tests::standin::{Documents, RecordedRequest, Standin, StandinOptions};
use mvproxy_tests::store::Store;
pub use objects::{Objects, lease};
use tempfile::TempDir;
pub use trap::Trap;

use super::support::{Caller, Http, Metrics, Proxy, ProxyOptions, eventually};

/// The servers and what they share. The local one is at 127.0.0.1, peer number n at 127.0.0.(n + 2).
pub struct Site {
    pub pki: Pki,
    pub store: Store,
    pub port: u16,
    pub local: Option<Standin>,
    serving: Identity,
    files: TempDir,
}

impl Site {
    /// A cluster of one server.
    pub async fn start(documents: Documents) -> Self {
        let (pki, store) = (Pki::generate().unwrap(), Store::in_memory());
        let port = free_port();
        let (local, serving) =
            server(&pki, &store, Ipv4Addr::LOCALHOST.into(), port, "local", documents).await;
        let files = tempfile::tempdir().unwrap();
        let user = Subject { common_name: "system:mixed-version-proxy", ..Subject::default() };
        std::fs::write(files.path().join("own.conf"), pki.kubeconfig("https://10.9.9.9:1", &user).unwrap())
            .unwrap();
        Self { pki, store, port, local: Some(local), serving, files }
    }

    /// Starts peer number `number`, anew if it ran before.
    pub async fn peer(&self, number: u8, documents: Documents) -> Standin {
        let ip = peer_ip(number);
        let name = format!("peer{number}");
        server(&self.pki, &self.store, ip, self.port, &name, documents).await.0
    }

    /// Where peer number `number` is.
    pub fn peer_address(&self, number: u8) -> SocketAddr {
        SocketAddr::new(peer_ip(number), self.port)
    }

    pub fn local_address(&self) -> SocketAddr {
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.port)
    }

    /// A proxy before the local server that finds its peers by itself.
    pub fn proxy(&self, flags: &[&str]) -> Proxy {
        self.proxy_of(self.local_address(), &[], flags)
    }

    /// A proxy before the server at `local`; with `peers` it is told who they are.
    pub fn proxy_of(&self, local: SocketAddr, peers: &[SocketAddr], flags: &[&str]) -> Proxy {
        let kubeconfig = format!("--kubeconfig={}", self.files.path().join("own.conf").display());
        let port = format!("--secure-port={}", self.port);
        let mut all = vec![kubeconfig.as_str(), port.as_str()];
        all.extend(flags);
        Proxy::start(&ProxyOptions { pki: &self.pki, serving: &self.serving, local, peers, flags: &all })
    }

    pub fn admin(&self) -> Caller {
        Caller::admin(&self.pki)
    }

    /// A folder that lasts as long as the cluster.
    pub fn folder(&self, name: &str) -> String {
        self.files.path().join(name).display().to_string()
    }

    /// What is in the store, to be changed as API servers or anybody else would.
    pub fn objects(&self) -> Objects {
        Objects(self.store.clone())
    }
}

/// Waits until the proxy knows exactly these peers.
pub async fn knows(proxy: &Proxy, peers: &[SocketAddr]) {
    eventually("the proxy knows its peers", async || {
        let known = known(proxy).await;
        let mut peers: Vec<String> = peers.iter().map(SocketAddr::to_string).collect();
        peers.sort();
        if known == peers { Ok(()) } else { Err(format!("{known:?} and not {peers:?}")) }
    })
    .await;
}

/// The peers of which a proxy knows what they serve.
pub async fn known(proxy: &Proxy) -> Vec<String> {
    let mut known = proxy.metrics().await.values("mvproxy_peer_discovery_age_seconds", "peer");
    known.sort();
    known
}

/// How often a server was asked what it serves.
pub fn questions(server: &Standin) -> usize {
    let is_question = |request: &&RecordedRequest| ["/api", "/apis"].contains(&request.target.as_str());
    server.requests().iter().filter(is_question).count()
}

async fn server(
    pki: &Pki,
    store: &Store,
    ip: IpAddr,
    port: u16,
    hostname: &str,
    documents: Documents,
) -> (Standin, Identity) {
    let mut options = StandinOptions::from_pki(pki, hostname, "v1.36-all", store).unwrap();
    options.bind = SocketAddr::new(ip, port);
    options.serving = pki.serving(hostname, ip).unwrap();
    options.documents = documents;
    let serving = options.serving.clone();
    (Standin::start(options).await.unwrap(), serving)
}

fn peer_ip(number: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, number + 2).into()
}

/// A port that is free on all addresses.
fn free_port() -> u16 {
    std::net::TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port()
}
