//! Keeps the snapshot true: one task per server asks, one writer publishes.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep_until};
use tracing::{debug, info};

use super::fetch::Fetcher;
use super::memory::{Remembered, RememberedPeer};
use super::poll::{Poll, ServerId, Update};
use super::refresh::Refresh;
use super::servers::{Fate, Knowledge, News, Server};
use super::settling::Settling;
use super::shared::SharedApis;
use super::{Served, Snapshot};
use crate::metrics::Metrics;
use crate::peers::{Peer, PeerList};
use crate::steering::{PeerCounters, PeerSlot};
use crate::upstream::{Role, Upstream};

/// What the writer of the snapshot works with.
#[derive(Debug)]
pub struct SyncOptions {
    /// What is written.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// How servers are asked.
    pub fetcher: Arc<Fetcher>,
    /// Where failures are counted.
    pub metrics: Arc<Metrics>,
    /// Where peers get their slots.
    pub counters: Arc<PeerCounters>,
    /// This node's API server.
    pub local: Upstream,
    /// How often every server is asked (`--discovery-interval`).
    pub interval: Duration,
    /// How long what a silent server served is believed (`--peer-stale-after`).
    pub stale_after: Duration,
    /// Told of each new snapshot.
    pub changed: watch::Sender<()>,
    /// Has servers asked out of turn.
    pub refresh: Arc<Refresh>,
    /// What was deleted or changed a moment ago.
    pub shared: watch::Receiver<SharedApis>,
    /// What was known of peers before the process began.
    pub remembered: Vec<RememberedPeer>,
    /// Told what is to outlive the process.
    pub memory: watch::Sender<Option<Arc<Remembered>>>,
}

/// The only writer of the snapshot.
#[derive(Debug)]
pub struct Syncer {
    options: SyncOptions,
    /// The local server has the first id, peers have theirs in the order in which they appeared.
    servers: BTreeMap<ServerId, Server>,
    next_id: ServerId,
    /// Whether the list was read at all; until then nobody can say that something is served by nobody.
    peers_are_known: bool,
    /// See [`PeerList::others`].
    others: u64,
    /// When all servers are asked once more, because a shared object changed.
    settling: Settling,
    /// When the memory was told last.
    memorised: Instant,
    updates: mpsc::Sender<Update>,
}

/// The local server.
const LOCAL: ServerId = 0;
/// How often the servers are looked through for what has become too old.
const SWEEP: Duration = Duration::from_secs(1);
/// How often the memory is told when nothing changes.
const MEMORY_INTERVAL: Duration = Duration::from_mins(1);
/// Updates that may wait for the writer.
const ARRIVALS: usize = 64;

/// Runs the writer until the peer list's sender is gone.
pub async fn run(options: SyncOptions, mut peers: watch::Receiver<Option<PeerList>>) {
    let (updates, mut arrivals) = mpsc::channel(ARRIVALS);
    let mut shared = options.shared.clone();
    let mut is_shared = true;
    let mut syncer = Syncer::new(options, updates);
    let mut sweep = interval(SWEEP);
    peers.mark_changed();
    loop {
        let settle = syncer.settling.next();
        tokio::select! {
            changed = peers.changed() => {
                if changed.is_err() {
                    return;
                }
                if let Some(list) = peers.borrow_and_update().clone() {
                    syncer.set_peers(&list);
                }
            }
            changed = shared.changed(), if is_shared => match changed {
                Ok(()) => syncer.settling.changed(Instant::now()),
                // Nobody watches.
                Err(_) => is_shared = false,
            },
            _ = sweep.tick() => syncer.sweep(),
            () = sleep_until(settle.unwrap_or_else(Instant::now)), if settle.is_some() => syncer.settle(),
            Some(update) = arrivals.recv() => syncer.take(update),
        }
    }
}

impl Syncer {
    fn new(options: SyncOptions, updates: mpsc::Sender<Update>) -> Self {
        let mut syncer = Self {
            servers: BTreeMap::new(),
            next_id: LOCAL,
            peers_are_known: false,
            others: 0,
            settling: Settling::default(),
            memorised: Instant::now(),
            updates,
            options,
        };
        let (local, bell) = (syncer.options.local, syncer.options.refresh.local_bell());
        syncer.poll(local, vec![local.address], bell, false, Knowledge::new(None, Instant::now()));
        for peer in std::mem::take(&mut syncer.options.remembered) {
            let upstream = syncer.upstream(peer.addresses[0], false);
            // It has not answered yet. Whether anybody still names it the first list will tell.
            let knowledge = Knowledge { is_failing: true, ..Knowledge::new(Some(peer.served), peer.heard) };
            syncer.poll(upstream, peer.addresses, Arc::default(), false, knowledge);
        }
        if syncer.servers.len() > 1 {
            syncer.publish_names();
            syncer.publish();
        }
        syncer
    }

    /// Begins to ask a server.
    fn poll(
        &mut self,
        upstream: Upstream,
        addresses: Vec<SocketAddr>,
        bell: Arc<Notify>,
        hinted: bool,
        knowledge: Knowledge,
    ) -> &mut Server {
        let id = self.next_id;
        self.next_id += 1;
        let addresses = watch::Sender::new(addresses);
        let mut server = Server::new(upstream, addresses, bell, hinted, knowledge);
        server.is_asked_by(self.polling(id, &server));
        self.servers.entry(id).or_insert(server)
    }

    /// The task that asks a server from now on.
    fn polling(&self, id: ServerId, server: &Server) -> JoinHandle<()> {
        let poll = Poll {
            id,
            role: server.upstream.role,
            hinted: server.hinted,
            addresses: server.addresses.subscribe(),
            bell: Arc::clone(&server.bell),
            fetcher: Arc::clone(&self.options.fetcher),
            interval: self.options.interval,
            updates: self.updates.clone(),
            known: server.knowledge.served.clone(),
        };
        tokio::spawn(poll.run())
    }

    /// Takes a new list over. Who may write Leases can have lists made without end: only what a list changes costs a
    /// snapshot.
    fn set_peers(&mut self, list: &PeerList) {
        let is_first = !std::mem::replace(&mut self.peers_are_known, true);
        let (mut is_new, mut has_other_addresses) = (is_first, is_first);
        let mut missing: Vec<ServerId> = self.servers.keys().copied().filter(|id| *id != LOCAL).collect();
        if is_first {
            // They are remembered, and may have been asked in vain so far.
            for id in &missing {
                self.servers[id].bell.notify_one();
            }
        }
        for peer in &list.peers {
            // Of several that are one by now the one of which more is known.
            let same = missing.iter().filter(|id| self.servers[id].is_at(&peer.addresses));
            let news = match same.copied().min_by_key(|id| !self.servers[id].is_known()) {
                Some(id) => {
                    missing.retain(|other| *other != id);
                    self.is_listed(id, peer)
                }
                None => self.appeared(peer),
            };
            is_new |= news.is_of_snapshot;
            has_other_addresses |= news.is_of_addresses;
        }
        for id in missing {
            is_new |= self.is_missing(id, list);
        }
        if std::mem::replace(&mut self.others, list.others) != list.others {
            self.servers.values().for_each(|server| server.bell.notify_one());
        }
        if is_new || has_other_addresses {
            self.publish_names();
        }
        if is_new {
            self.publish();
        }
    }

    fn appeared(&mut self, peer: &Peer) -> News {
        if peer.hinted {
            debug!(address = %peer, "a Lease names a peer");
        } else {
            info!(address = %peer, "peer appeared");
        }
        let upstream = self.upstream(peer.addresses[0], peer.hinted);
        let knowledge = Knowledge::new(None, Instant::now());
        let server = self.poll(upstream, peer.addresses.clone(), Arc::default(), peer.hinted, knowledge);
        // It is asked at once as it is.
        let _ = server.set_listed(peer);
        News { is_of_addresses: true, is_of_snapshot: !peer.hinted, ..News::default() }
    }

    fn is_listed(&mut self, id: ServerId, peer: &Peer) -> News {
        let Some(mut server) = self.servers.remove(&id) else { return News::default() };
        let counted = server.counts();
        let mut news = server.set_listed(peer);
        if !counted && server.counts() {
            // Of whom only a Lease spoke, that was asked less and less often.
            server.is_asked_by(self.polling(id, &server));
        }
        if news.is_to_ask {
            server.bell.notify_one();
        }
        let (known, hinted) = (server.upstream, !server.counts());
        let stays = peer.addresses.contains(&known.address);
        server.upstream = self.upstream(if stays { known.address } else { peer.addresses[0] }, hinted);
        news.is_of_snapshot |= server.upstream != known && !hinted;
        self.servers.insert(id, server);
        news
    }

    /// A server is not on the list any more. It stays for a time, unless it is on it as part of another. Whether the snapshot
    /// depends on it.
    fn is_missing(&mut self, id: ServerId, list: &PeerList) -> bool {
        let Some(server) = self.servers.get_mut(&id) else { return false };
        let is_part = |peer: &Peer| server.addresses.borrow().iter().all(|one| peer.addresses.contains(one));
        // What never counted is not even asked once more: Leases can come and go by the thousand.
        if !server.counts() || list.peers.iter().any(is_part) {
            return self.servers.remove(&id).is_some_and(|server| server.counts());
        }
        if server.knowledge.unlisted.is_some() {
            return false;
        }
        info!(address = %server.upstream.address, "peer left the list");
        server.knowledge.unlisted = Some(Instant::now());
        server.bell.notify_one();
        server.counts()
    }

    /// Only what counts gets a slot of its own: there are few, and they are kept for good.
    fn upstream(&self, address: SocketAddr, hinted: bool) -> Upstream {
        let slot = if hinted { PeerSlot::SHARED } else { self.options.counters.slot(address) };
        Upstream { address, role: Role::Peer, slot }
    }

    /// Forgets what has become too old.
    fn sweep(&mut self) {
        let (now, stale_after) = (Instant::now(), self.options.stale_after);
        let mut changed = false;
        self.servers.retain(|id, server| {
            let fate = if *id == LOCAL { Fate::Stays } else { server.knowledge.fate(now, stale_after) };
            let address = server.upstream.address;
            match fate {
                Fate::Stays => return true,
                Fate::BecomesUnknown => {
                    info!(%address, "peer was silent for too long: what it serves is not known any more");
                    server.knowledge.served = None;
                }
                Fate::IsForgotten => info!(%address, "peer forgotten"),
            }
            changed = true;
            fate != Fate::IsForgotten
        });
        if changed {
            self.publish_names();
            self.publish();
        } else if self.memorised.elapsed() > MEMORY_INTERVAL {
            // When servers were heard last has to be written now and then, even if nothing changes.
            self.memorise();
        }
    }

    fn settle(&mut self) {
        self.servers.values().for_each(|server| server.bell.notify_one());
        if self.settling.passed() {
            self.publish();
        }
    }

    fn take(&mut self, update: Update) {
        let Some(server) = self.servers.get_mut(&update.id) else { return };
        match update.result {
            Ok(found) => {
                let is_partly_hidden = server.is_partly_hidden();
                let is_new = server.answered(found, update.asked);
                let moved = server.upstream.address != update.address;
                let was_hinted = std::mem::take(&mut server.hinted);
                if was_hinted {
                    info!(address = %update.address, "peer appeared");
                }
                if moved || was_hinted {
                    let upstream = self.upstream(update.address, false);
                    if let Some(server) = self.servers.get_mut(&update.id) {
                        server.upstream = upstream;
                    }
                }
                if update.id == LOCAL && is_new {
                    // It may be an API that all servers share.
                    self.servers.values().skip(1).for_each(|server| server.bell.notify_one());
                }
                if is_new || moved || is_partly_hidden {
                    self.publish();
                }
            }
            Err(error) => {
                self.options.metrics.discovery_failed("fetch_discovery", error.reason());
                server.failed(&error);
            }
        }
        self.publish_freshness();
    }

    fn publish(&mut self) {
        // Cheap enough for what happens a few times a minute: names of objects, not objects.
        let shared = self.options.shared.borrow().clone();
        for (id, server) in &mut self.servers {
            server.look(*id != LOCAL, &shared);
        }
        let mut known: Vec<&Server> = self.servers.values().filter(|server| server.counts()).collect();
        // Those that left give way where there are too many.
        known.sort_by_key(|server| server.knowledge.unlisted.is_some());
        let servers: Vec<(Upstream, Option<&Served>)> =
            known.iter().map(|server| (server.upstream, server.visible.as_deref())).collect();
        let snapshot = Snapshot::new(&servers, self.peers_are_known);
        info!(
            peers = snapshot.peers(),
            resources = snapshot.resources(),
            skewed = snapshot.is_skewed(),
            "discovery snapshot"
        );
        self.options.snapshot.store(Arc::new(snapshot));
        self.options.changed.send_replace(());
        self.memorise();
    }

    fn memorise(&mut self) {
        self.memorised = Instant::now();
        let shared = self.options.shared.borrow();
        let peers = self.servers.values().skip(1).filter_map(Server::to_be_remembered).collect();
        let apis = shared.live().map(|(api, generation)| (api.clone(), generation)).collect();
        drop(shared);
        self.options.memory.send_replace(Some(Arc::new(Remembered { peers, apis })));
    }

    /// Hangs up the bells of the present servers, and forgets connections to all others.
    fn publish_names(&self) {
        let mut bells = HashMap::new();
        let mut upstreams = vec![self.options.local];
        for server in self.servers.values().skip(1) {
            for address in server.addresses.borrow().iter() {
                bells.insert(*address, Arc::clone(&server.bell));
                upstreams.push(Upstream { address: *address, ..server.upstream });
            }
        }
        self.options.refresh.set_peers(bells);
        self.options.fetcher.keep_only(&upstreams);
        self.publish_freshness();
    }

    fn publish_freshness(&self) {
        let peers = self.servers.values().skip(1).filter(|server| server.counts());
        self.options.metrics.set_freshness(peers.map(Server::freshness).collect());
    }
}
