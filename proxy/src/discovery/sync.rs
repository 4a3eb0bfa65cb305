//! Keeps the snapshot true: one task per server asks, one writer publishes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep_until};
use tracing::{info, warn};

use super::fetch::{FetchError, Fetcher};
use super::{Served, Snapshot};
use crate::causes::chain;
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
    /// Asks for the local server's documents at once.
    refresh: Arc<Notify>,
    servers: HashMap<SocketAddr, Server>,
    peers: Vec<Upstream>,
    /// Whether the list was read at all; until then nobody can say that something is served by nobody.
    peers_are_known: bool,
    /// Peers that left the list, and until when they are remembered.
    departed: HashMap<Upstream, Instant>,
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
        refresh: Arc<Notify>,
    ) -> Self {
        Self {
            snapshot,
            fetcher: Arc::new(fetcher),
            metrics,
            local,
            interval,
            changed,
            refresh,
            servers: HashMap::new(),
            peers: Vec::new(),
            peers_are_known: false,
            departed: HashMap::new(),
        }
    }

    /// Runs until the peer list's sender is gone.
    pub async fn run(mut self, mut peers: watch::Receiver<Option<Vec<Upstream>>>) {
        let (updates, mut arrivals) = mpsc::channel(ARRIVALS);
        self.poll(self.local, &updates);
        let mut sweep = interval(SWEEP);
        peers.mark_changed();
        loop {
            tokio::select! {
                changed = peers.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if let Some(list) = peers.borrow_and_update().clone() {
                        self.peers_are_known = true;
                        self.set_peers(list, &updates);
                        self.publish();
                    }
                }
                _ = sweep.tick() => if self.forget_departed() {
                    self.publish();
                },
                Some(update) = arrivals.recv() => self.take(update),
            }
        }
    }

    /// Takes a new list over. A peer that is not on it any more stays for [`DEPARTURE_GRACE`]: API servers leave the list
    /// at every restart, and what they serve does not cease to exist by that.
    fn set_peers(&mut self, listed: Vec<Upstream>, updates: &mpsc::Sender<Update>) {
        for upstream in &listed {
            if !self.servers.contains_key(&upstream.address) {
                info!(address = %upstream.address, "peer appeared");
                self.poll(*upstream, updates);
            }
        }
        let now = Instant::now();
        self.departed.retain(|upstream, _| !listed.contains(upstream));
        for upstream in self.peers.iter().filter(|upstream| !listed.contains(upstream)) {
            info!(address = %upstream.address, "peer left the list");
            self.departed.entry(*upstream).or_insert(now + DEPARTURE_GRACE);
        }
        self.peers = listed;
        self.forget_departed();
    }

    /// Forgets peers that left long ago, or that never said what they serve; whether there were any.
    fn forget_departed(&mut self) -> bool {
        let (now, before) = (Instant::now(), self.departed.len());
        self.departed.retain(|upstream, until| {
            let server = self.servers.get(&upstream.address);
            let stays = *until > now && server.is_some_and(|server| server.served.is_some());
            if !stays && let Some(server) = self.servers.remove(&upstream.address) {
                info!(address = %upstream.address, "peer forgotten");
                server.polling.abort();
            }
            stays
        });
        self.departed.len() != before
    }

    fn poll(&mut self, upstream: Upstream, updates: &mpsc::Sender<Update>) {
        // Only the local server is ever asked out of turn.
        let refresh = if upstream.role == Role::Local { Arc::clone(&self.refresh) } else { Arc::default() };
        let polling =
            tokio::spawn(poll(upstream, Arc::clone(&self.fetcher), self.interval, refresh, updates.clone()));
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
            .chain(self.departed.keys())
            .map(|upstream| (*upstream, known(upstream)))
            .collect();
        let snapshot = Snapshot::new(&servers, self.peers_are_known);
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

/// Time a peer is remembered after it left the list: longer than any restart, shorter than anybody waits for a 404.
const DEPARTURE_GRACE: Duration = Duration::from_mins(10);
/// How often departed peers are looked through.
const SWEEP: Duration = Duration::from_secs(10);
/// Updates that may wait for the writer.
const ARRIVALS: usize = 64;
/// Until the local server has answered once it is asked this often: it may still be starting.
const IMPATIENT: Duration = Duration::from_millis(500);

async fn poll(
    upstream: Upstream,
    fetcher: Arc<Fetcher>,
    interval: Duration,
    refresh: Arc<Notify>,
    updates: mpsc::Sender<Update>,
) {
    let mut known: Option<Arc<Served>> = None;
    loop {
        let begun = Instant::now();
        let result = fetcher.fetch(&upstream, known.as_ref()).await;
        if let Ok(served) = &result {
            known = Some(Arc::clone(served));
        }
        if updates.send(Update { address: upstream.address, result }).await.is_err() {
            return;
        }
        let is_awaited = known.is_none() && upstream.role == Role::Local;
        let pause = if is_awaited { IMPATIENT.min(interval) } else { interval };
        tokio::select! {
            () = sleep_until(begun + pause) => {}
            () = refresh.notified() => {}
        }
    }
}
