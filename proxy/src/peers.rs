//! Knows which other API servers there are: a static list, or the `kubernetes` EndpointSlices in `default`.

use std::collections::BTreeSet;
use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, pin_mut};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::reflector;
use kube::runtime::reflector::store;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::causes::chain;
use crate::config::PeerAddress;
use crate::discovery::ServerSet;
use crate::steering::PeerCounters;
use crate::upstream::{Role, Upstream};

pub mod own_address;

pub use own_address::OwnAddresses;

/// How often the names of static peers are resolved again.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(30);
/// Time between two attempts to read EndpointSlices.
const RECONNECT_PAUSE: Duration = Duration::from_secs(2);
/// Peers one snapshot can hold beside the local server.
const MOST_PEERS: usize = ServerSet::CAPACITY - 2;

/// Publishes the list of peers and the slots they are counted in.
#[derive(Debug)]
pub struct Peers {
    /// `None` until it was read once.
    list: watch::Sender<Option<Vec<Upstream>>>,
    counters: Arc<PeerCounters>,
    own: OwnAddresses,
}

impl Peers {
    /// An empty list; `own` addresses never get onto it.
    pub fn new(counters: Arc<PeerCounters>, own: OwnAddresses) -> Self {
        Self { list: watch::Sender::new(None), counters, own }
    }

    /// The list, now and whenever it changes.
    pub fn subscribe(&self) -> watch::Receiver<Option<Vec<Upstream>>> {
        self.list.subscribe()
    }

    /// Follows a static list; names are resolved again and again.
    pub async fn follow_static(self, peers: Vec<PeerAddress>) {
        let mut known: Vec<BTreeSet<SocketAddr>> = vec![BTreeSet::new(); peers.len()];
        loop {
            for (peer, known) in peers.iter().zip(&mut known) {
                match tokio::net::lookup_host((peer.host.as_str(), peer.port)).await {
                    Ok(addresses) => *known = addresses.collect(),
                    // The addresses found before stay: a name server's bad minute removes no API server.
                    Err(error) => warn!(host = peer.host, %error, "--peers: name not resolved"),
                }
            }
            // A peer without an address is one that nothing is known of: better no list than one without it.
            if known.iter().all(|addresses| !addresses.is_empty()) {
                self.publish(known.iter().flatten().copied().collect());
            }
            tokio::time::sleep(RESOLVE_INTERVAL).await;
        }
    }

    /// Follows the `kubernetes` service's EndpointSlices, where every API server enters itself. `connect` is called again
    /// after an error: the credentials may have been renewed.
    pub async fn follow_endpoint_slices<E: Error + 'static>(
        self,
        connect: impl Fn() -> Result<Client, E> + Send,
    ) {
        loop {
            match connect() {
                Ok(client) => self.follow_with(client).await,
                Err(error) => warn!(error = %chain(&error), "own credentials cannot be used"),
            }
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
    }

    /// Follows the EndpointSlices until they cannot be read.
    async fn follow_with(&self, client: Client) {
        let slices: Api<EndpointSlice> = Api::namespaced(client, "default");
        let (reader, writer) = store();
        let config = watcher::Config::default().labels("kubernetes.io/service-name=kubernetes");
        let events = reflector(writer, watcher(slices, config));
        pin_mut!(events);
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => {}
                Ok(watcher::Event::InitDone | watcher::Event::Apply(_) | watcher::Event::Delete(_)) => {
                    self.publish(reader.state().iter().flat_map(|slice| addresses(slice)).collect());
                }
                Err(error) => {
                    warn!(error = %chain(&error), "EndpointSlices of default/kubernetes are not readable; the last list stays");
                    return;
                }
            }
        }
    }

    /// There is nobody to follow: the list is empty for good.
    pub async fn follow_nobody(self) {
        self.publish(BTreeSet::new());
        std::future::pending::<()>().await;
    }

    fn publish(&self, mut addresses: BTreeSet<SocketAddr>) {
        addresses.retain(|address| !self.own.contains(address));
        if addresses.len() > MOST_PEERS {
            warn!(known = addresses.len(), used = MOST_PEERS, "more peers than can be used");
        }
        let upstreams: Vec<Upstream> = addresses
            .into_iter()
            .take(MOST_PEERS)
            .map(|address| Upstream { address, role: Role::Peer, slot: self.counters.slot(address) })
            .collect();
        let changed = self.list.send_if_modified(|list| {
            let changed = list.as_ref() != Some(&upstreams);
            *list = Some(upstreams.clone());
            changed
        });
        if changed {
            let addresses: Vec<String> =
                upstreams.iter().map(|upstream| upstream.address.to_string()).collect();
            info!(peers = addresses.join(","), "peer list");
        }
    }
}

/// Every ready address with the slice's HTTPS port.
pub fn addresses(slice: &EndpointSlice) -> Vec<SocketAddr> {
    let ports = slice.ports.iter().flatten().filter(|port| port.name.as_deref() == Some("https"));
    let ports: Vec<u16> =
        ports.filter_map(|port| port.port).filter_map(|port| u16::try_from(port).ok()).collect();
    let ready = slice.endpoints.iter().flatten().filter(|endpoint| {
        endpoint.conditions.as_ref().is_none_or(|conditions| conditions.ready != Some(false))
    });
    ready
        .flat_map(|endpoint| &endpoint.addresses)
        .filter_map(|address| address.parse::<IpAddr>().ok())
        .flat_map(|ip| ports.iter().map(move |port| SocketAddr::new(ip, *port)))
        .collect()
}

#[cfg(test)]
mod tests;
