//! Knows which other API servers there are: from a static list or the `kubernetes` `EndpointSlices`, and from Leases.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::runtime::watcher::{Config as WatchConfig, watcher};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::config::PeerAddress;
use crate::metrics::Metrics;

pub(crate) mod book;
pub mod follow;
mod group;
mod lease;
pub mod own_address;
pub mod own_lease;
pub(crate) mod slice;

use book::Book;
use follow::{Follower, Seen, Subject};
use group::{Rules, Sources};
use lease::{Announcements, LeaseObject};
pub use own_address::OwnAddresses;
use slice::Endpoint;

/// Another API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where it may be dialled, best first; never empty.
    pub addresses: Vec<SocketAddr>,
    /// Whether only a Lease speaks of it: until it has answered, nothing is held against its absence.
    pub hinted: bool,
    /// Changes whenever the server is started anew, where a Lease tells.
    pub incarnation: u64,
}

/// All other API servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerList {
    /// In an order that only depends on what is known.
    pub peers: Vec<Peer>,
    /// Changes whenever a server is started anew of which nobody knows which one it is.
    pub others: u64,
}

/// Publishes the list of peers.
#[derive(Debug)]
pub struct Peers {
    /// `None` until it was read once.
    list: watch::Sender<Option<PeerList>>,
    own: OwnAddresses,
    hostname: Option<String>,
    allowed: Vec<IpNet>,
    metrics: Arc<Metrics>,
    board: Arc<Board>,
}

/// What the followers write and the list is made of.
#[derive(Debug)]
struct Board {
    known: Mutex<Known>,
    changed: Notify,
}

#[derive(Debug)]
struct Known {
    statics: Option<Vec<BTreeSet<SocketAddr>>>,
    slices: Book<Vec<Endpoint>>,
    identities: Announcements,
    proxies: Announcements,
    /// Whether Leases were read, or cannot be.
    leases_are_settled: bool,
}

/// How often the names of static peers are resolved again.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(30);
/// Changes that come together make one new list; so do the thousands of somebody who writes Leases without end.
const GATHER: Duration = Duration::from_millis(100);
/// Part of the time that is left for other work, however many Leases there are.
const QUIET_PART: u32 = 10;
/// Leases run out without anybody saying so.
const RECHECK: Duration = Duration::from_secs(5);
/// Time that the first list waits for Leases, which may tell which addresses are one server.
const LEASE_GRACE: Duration = Duration::from_secs(1);
/// Slices of the one service that are read.
const MOST_SLICES: usize = 1024;
/// Objects in one page of a list: Leases can be large, if somebody wants them to be.
const PAGE: u32 = 100;

impl Peers {
    /// An empty list; `own` addresses never get onto it.
    pub fn new(own: OwnAddresses, allowed: Vec<IpNet>, metrics: Arc<Metrics>) -> Self {
        let known = Known {
            statics: None,
            slices: Book::new(MOST_SLICES),
            identities: Announcements::new(),
            proxies: Announcements::new(),
            leases_are_settled: false,
        };
        Self {
            list: watch::Sender::new(None),
            own,
            hostname: hostname(),
            allowed,
            metrics,
            board: Arc::new(Board { known: Mutex::new(known), changed: Notify::new() }),
        }
    }

    /// The list, now and whenever it changes.
    pub fn subscribe(&self) -> watch::Receiver<Option<PeerList>> {
        self.list.subscribe()
    }

    /// Runs until the task is dropped. With `statics` those are the servers, else the slices name them; Leases are read
    /// where there is a `follower`. With neither there is nobody.
    pub async fn run(self, statics: Vec<PeerAddress>, follower: Option<Follower>) {
        let mut tasks = JoinSet::new();
        let has_statics = !statics.is_empty();
        if has_statics {
            tasks.spawn(resolve(statics, Arc::clone(&self.board), Arc::clone(&self.metrics)));
        } else if follower.is_none() {
            warn!("no credentials to read EndpointSlices with and no --peers: there are no peers");
            self.board.change(|known| known.statics = Some(Vec::new()));
        }
        match follower {
            Some(follower) => {
                if !has_statics {
                    tasks.spawn(follow_slices(follower.clone(), Arc::clone(&self.board)));
                }
                tasks.spawn(follow_leases(follower.clone(), Arc::clone(&self.board), IDENTITIES));
                tasks.spawn(follow_leases(follower, Arc::clone(&self.board), PROXIES));
            }
            None => self.board.change(|known| known.leases_are_settled = true),
        }
        self.publish_for_ever().await;
    }

    async fn publish_for_ever(&self) {
        let begin = Instant::now();
        let mut was_whole = true;
        loop {
            let is_late = begin.elapsed() >= LEASE_GRACE;
            let started = Instant::now();
            if let Some((list, left_out)) = self.compute(is_late) {
                self.publish(&list);
                let is_whole = left_out == 0;
                if !is_whole && std::mem::replace(&mut was_whole, is_whole) {
                    warn!(left_out, "more API servers, or addresses of them, are listed than can be asked");
                }
                was_whole = is_whole;
            }
            let took = started.elapsed();
            let wait = if is_late { RECHECK } else { LEASE_GRACE.saturating_sub(begin.elapsed()) };
            // Without a change Leases may still have run out.
            if timeout(wait, self.board.changed.notified()).await.is_ok() {
                sleep(GATHER.max(took * QUIET_PART)).await;
            }
        }
    }

    /// The list as of now, and how much is not on it; `None` while nobody has said who the servers are.
    fn compute(&self, without_leases: bool) -> Option<(PeerList, usize)> {
        let known = self.board.known();
        let is_settled = known.leases_are_settled || (known.identities.is_read() && known.proxies.is_read());
        if (known.statics.is_none() && !known.slices.is_read()) || !(is_settled || without_leases) {
            return None;
        }
        let (endpoints, more_endpoints) = slice::all(known.slices.iter().map(|(_, endpoints)| endpoints));
        let rules = Rules {
            is_own: self.own.now(),
            hostname: self.hostname.as_deref(),
            allowed: &self.allowed,
            prefers_v4: self.own.advertised().is_none_or(|address| address.is_ipv4()),
            now: Instant::now(),
        };
        let (list, more_servers) = rules.list(&Sources {
            statics: known.statics.as_deref().unwrap_or_default(),
            endpoints: &endpoints,
            identities: &known.identities,
            proxies: &known.proxies,
        });
        Some((list, more_endpoints + more_servers))
    }

    fn publish(&self, list: &PeerList) {
        // Those that only Leases speak of are named when they have answered.
        let believed = |list: &PeerList| -> Vec<String> {
            list.peers.iter().filter(|peer| !peer.hinted).map(|peer| peer.addresses[0].to_string()).collect()
        };
        let mut is_other = false;
        self.list.send_if_modified(|known| {
            let is_new = known.as_ref() != Some(list);
            is_other = known.as_ref().map(believed) != Some(believed(list));
            *known = Some(list.clone());
            is_new
        });
        if is_other {
            info!(peers = believed(list).join(","), "peer list");
        }
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        f.write_str(&addresses.join("|"))
    }
}

impl Board {
    /// Locks data that is whole at every moment, so that a panic elsewhere does not make it unusable.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.known());
        self.changed.notify_one();
    }
}

/// Resolves the names of a static list again and again.
async fn resolve(peers: Vec<PeerAddress>, board: Arc<Board>, metrics: Arc<Metrics>) {
    let mut known: Vec<BTreeSet<SocketAddr>> = vec![BTreeSet::new(); peers.len()];
    loop {
        for (peer, known) in peers.iter().zip(&mut known) {
            match tokio::net::lookup_host((peer.host.as_str(), peer.port)).await {
                Ok(addresses) => *known = addresses.collect(),
                // The addresses found before stay: a name server's bad minute removes no API server.
                Err(error) => {
                    metrics.discovery_failed("hostport_resolution", "name");
                    warn!(host = peer.host, %error, "--peers: name not resolved");
                }
            }
        }
        // A peer without an address is one that nothing is known of: better no list than one without it.
        if known.iter().all(|addresses| !addresses.is_empty()) {
            board.change(|board| board.statics = Some(known.clone()));
        }
        sleep(RESOLVE_INTERVAL).await;
    }
}

async fn follow_slices(follower: Follower, board: Arc<Board>) {
    let subject = Subject {
        name: "EndpointSlices of default/kubernetes",
        meanwhile: "not readable; the peers known last stay",
        error_type: "hostport_resolution",
    };
    let start = |client| {
        let slices: Api<EndpointSlice> = Api::namespaced(client, slice::NAMESPACE);
        watcher(slices, WatchConfig::default().labels(slice::SELECTOR).page_size(PAGE))
    };
    let sink = |seen: Seen<EndpointSlice>| {
        board.change(|known| {
            known.slices.take(
                seen,
                |slice| slice.metadata.name.as_deref(),
                |slice, _| Some(slice::endpoints(slice)),
            );
        });
    };
    follower.follow(subject, start, sink).await;
}

/// One of the two kinds of Leases.
#[derive(Clone, Copy)]
struct LeaseKind {
    subject: Subject,
    selector: &'static str,
    leases: fn(&mut Known) -> &mut Announcements,
}

const IDENTITIES: LeaseKind = LeaseKind {
    subject: Subject {
        name: "identity Leases of API servers in kube-system",
        meanwhile: "not readable; that a server was restarted is noticed when it is asked next",
        error_type: "lease_list",
    },
    selector: lease::APISERVER_SELECTOR,
    leases: |known| &mut known.identities,
};
const PROXIES: LeaseKind = LeaseKind {
    subject: Subject {
        name: "Leases of proxies in kube-system",
        meanwhile: "not readable; other proxies' --peer-advertise-ip are not known",
        error_type: "lease_list",
    },
    selector: lease::PROXY_SELECTOR,
    leases: |known| &mut known.proxies,
};

async fn follow_leases(follower: Follower, board: Arc<Board>, kind: LeaseKind) {
    let start = |client| {
        let leases: Api<LeaseObject> = Api::namespaced(client, lease::NAMESPACE);
        watcher(leases, WatchConfig::default().labels(kind.selector).page_size(PAGE))
    };
    let sink = |seen: Seen<LeaseObject>| {
        board.change(|known| {
            known.leases_are_settled |= matches!(seen, Seen::Failed);
            (kind.leases)(known).take(seen, Instant::now(), Timestamp::now());
        });
    };
    follower.follow(kind.subject, start, sink).await;
}

/// What kube-apiserver labels its own Lease with, where it runs on the host's network.
pub(crate) fn hostname() -> Option<String> {
    nix::unistd::gethostname().ok()?.into_string().ok().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests;
