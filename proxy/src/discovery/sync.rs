//! Keeps the snapshot true: one task per server asks, one writer publishes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tracing::{info, warn};

use super::fetch::{FetchError, Fetcher};
use super::{Served, Snapshot};
use crate::error::chain;
use crate::metrics::Metrics;
use crate::upstream::{Role, Upstream};

/// The only writer of the snapshot.
#[derive(Debug)]
pub struct Syncer {
    snapshot: Arc<ArcSwap<Snapshot>>,
    fetcher: Arc<Fetcher>,
    metrics: Arc<Metrics>,
    local: Upstream,
    interval: Duration,
    changed: watch::Sender<()>,
    servers: HashMap<SocketAddr, Server>,
    peers: Vec<Upstream>,
}

/// One server as the writer knows it.
#[derive(Debug)]
struct Server {
    polling: JoinHandle<()>,
    /// The last set it was known to serve. A server that cannot be asked keeps it: nothing that exists is forgotten
    /// because somebody was slow.
    served: Option<Arc<Served>>,
    failing: bool,
}

struct Update {
    address: SocketAddr,
    result: Result<Arc<Served>, FetchError>,
}

impl Syncer {
    /// A writer for `snapshot` that asks every server each `interval` and tells `changed` of each new snapshot.
    pub fn new(
        snapshot: Arc<ArcSwap<Snapshot>>,
        fetcher: Fetcher,
        metrics: Arc<Metrics>,
        local: Upstream,
        interval: Duration,
        changed: watch::Sender<()>,
    ) -> Self {
        Self {
            snapshot,
            fetcher: Arc::new(fetcher),
            metrics,
            local,
            interval,
            changed,
            servers: HashMap::new(),
            peers: Vec::new(),
        }
    }

    /// Runs until the peer list's sender is gone.
    pub async fn run(mut self, mut peers: watch::Receiver<Vec<Upstream>>) {
        let (updates, mut arrivals) = mpsc::channel(ARRIVALS);
        self.poll(self.local, &updates);
        self.set_peers(peers.borrow_and_update().clone(), &updates);
        loop {
            tokio::select! {
                changed = peers.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let list = peers.borrow_and_update().clone();
                    self.set_peers(list, &updates);
                    self.publish();
                }
                Some(update) = arrivals.recv() => self.take(update),
            }
        }
    }

    fn set_peers(&mut self, peers: Vec<Upstream>, updates: &mpsc::Sender<Update>) {
        for upstream in &peers {
            if !self.servers.contains_key(&upstream.address) {
                info!(address = %upstream.address, "peer appeared");
                self.poll(*upstream, updates);
            }
        }
        let local = self.local.address;
        self.servers.retain(|address, server| {
            let stays = *address == local || peers.iter().any(|upstream| upstream.address == *address);
            if !stays {
                info!(%address, "peer left");
                server.polling.abort();
            }
            stays
        });
        self.peers = peers;
    }

    fn poll(&mut self, upstream: Upstream, updates: &mpsc::Sender<Update>) {
        let polling = tokio::spawn(poll(upstream, Arc::clone(&self.fetcher), self.interval, updates.clone()));
        self.servers.insert(upstream.address, Server { polling, served: None, failing: false });
    }

    fn take(&mut self, update: Update) {
        let Some(server) = self.servers.get_mut(&update.address) else { return };
        match update.result {
            Ok(found) => {
                if std::mem::take(&mut server.failing) {
                    info!(address = %update.address, "discovery succeeds again");
                }
                let is_new = server.served.as_ref().is_none_or(|known| !Arc::ptr_eq(known, &found));
                server.served = Some(found);
                if is_new {
                    self.publish();
                }
            }
            Err(error) => {
                self.metrics.discovery_failed();
                if !std::mem::replace(&mut server.failing, true) {
                    warn!(address = %update.address, error = %chain(&error), "discovery failed; the last known set stays");
                }
            }
        }
    }

    fn publish(&self) {
        let known = |upstream: &Upstream| {
            self.servers.get(&upstream.address).and_then(|server| server.served.as_deref())
        };
        let servers: Vec<(Upstream, Option<&Served>)> = std::iter::once(&self.local)
            .chain(&self.peers)
            .map(|upstream| (*upstream, known(upstream)))
            .collect();
        let snapshot = Snapshot::new(&servers);
        info!(
            peers = snapshot.peers(),
            resources = snapshot.resources(),
            skewed = snapshot.is_skewed(),
            "discovery snapshot"
        );
        self.snapshot.store(Arc::new(snapshot));
        self.changed.send_replace(());
    }
}

/// Updates that may wait for the writer.
const ARRIVALS: usize = 64;
/// Until the local server has answered once it is asked this often: it may still be starting.
const IMPATIENT: Duration = Duration::from_millis(500);

async fn poll(upstream: Upstream, fetcher: Arc<Fetcher>, interval: Duration, updates: mpsc::Sender<Update>) {
    let mut known: Option<Arc<Served>> = None;
    let mut ticks = interval_at(Instant::now(), interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if known.is_none() && upstream.role == Role::Local {
            tokio::time::sleep(IMPATIENT.min(interval)).await;
        } else {
            ticks.tick().await;
        }
        let result = fetcher.fetch(&upstream, known.as_ref()).await;
        if let Ok(served) = &result {
            known = Some(Arc::clone(served));
        }
        if updates.send(Update { address: upstream.address, result }).await.is_err() {
            return;
        }
    }
}
