//! Starts what follows the API server's objects and the proxy's own file: who the peers are, which APIs all servers share.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::info;

use super::AppError;
use crate::config::Config;
use crate::discovery::memory::{Memory, Remembered, RememberedPeer};
use crate::discovery::shared::SharedApis;
use crate::discovery::shared::watch::{follow_definitions, follow_services};
use crate::metrics::Metrics;
use crate::own_client::OwnClients;
use crate::peers::follow::Follower;
use crate::peers::own_lease::OwnLease;
use crate::peers::{OwnAddresses, PeerList, Peers, hostname};

/// What the writer of the snapshot follows.
pub(super) struct Followed {
    /// The other API servers.
    pub(super) list: watch::Receiver<Option<PeerList>>,
    /// APIs that all servers share.
    pub(super) shared: watch::Receiver<SharedApis>,
    /// Peers that were known before the process began.
    pub(super) remembered: Vec<RememberedPeer>,
    /// Takes what is to outlive it.
    pub(super) memory: watch::Sender<Option<Arc<Remembered>>>,
    /// The proxy's own announcement.
    pub(super) lease: Option<OwnLease>,
}

/// Starts it all in `tasks`; the Lease is left to the caller, who has to wait for its end.
pub(super) fn start(
    config: &Config,
    metrics: &Arc<Metrics>,
    tasks: &mut JoinSet<()>,
) -> Result<Followed, AppError> {
    let own = OwnAddresses::of(config);
    let advertised = own.advertised();

    let memory = watch::Sender::new(None);
    let mut remembered = Remembered::default();
    if let Some(file) = file_of(config, advertised) {
        remembered = file.load(config.peer_stale_after);
        let is_own = own.now();
        remembered.peers.retain(|peer| !peer.addresses.iter().any(&is_own));
        tasks.spawn(file.keep(memory.subscribe()));
    }

    let peers = Peers::new(own, config.peer_allowed_cidrs.clone(), Arc::clone(metrics));
    let list = peers.subscribe();
    let apis = watch::Sender::new(SharedApis::remembered(config.peer_stale_after, remembered.apis));
    let shared = apis.subscribe();
    let clients = OwnClients::new(config)?;
    let follower = clients.clone().map(|clients| Follower { clients, metrics: Arc::clone(metrics) });
    tasks.spawn(peers.run(config.peers.clone(), follower.clone()));
    if let Some(follower) = follower {
        tasks.spawn(follow_definitions(follower.clone(), apis.clone()));
        tasks.spawn(follow_services(follower, apis));
    } else {
        info!("no credentials: that an API was deleted is noticed when servers are asked next");
    }
    let lease = clients.zip(advertised).map(|(clients, address)| OwnLease::new(clients, address));
    Ok(Followed { list, shared, remembered: remembered.peers, memory, lease })
}

/// The file of this node and its API server; `None` when nothing is to be kept.
fn file_of(config: &Config, advertised: Option<SocketAddr>) -> Option<Memory> {
    let (local, advertised) = (config.local_apiserver.to_string(), advertised.map(|one| one.to_string()));
    let origin = [hostname().unwrap_or_default(), local, advertised.unwrap_or_default()];
    let folder = config.state_dir.clone()?;
    Some(Memory::new(folder, &origin.each_ref().map(String::as_str)))
}
