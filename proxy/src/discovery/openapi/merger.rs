//! Keeps the merged `/openapi/v2` true while API servers differ: asks, merges and publishes beside the path of requests.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::HeaderValue;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, error, info, warn};

use super::error::OpenApiError;
use super::fetch::{Source, fetch};
use super::merged::Merged;
use crate::asker::Asker;
use crate::causes::chain;
use crate::discovery::merge::numbers;
use crate::discovery::{ServerSet, Snapshot};
use crate::metrics::Metrics;
use crate::upstream::Upstream;

/// The merged document, for those who serve it.
#[derive(Debug, Default)]
pub struct OpenApiV2 {
    merged: watch::Sender<Option<Arc<Merged>>>,
    bell: Notify,
}

impl OpenApiV2 {
    /// The document; `None` while the servers do not differ, or it was not made yet.
    pub fn now(&self) -> Option<Arc<Merged>> {
        self.merged.borrow().clone()
    }

    /// The document once it is made of the local server's present one. Whatever there is after `limit`.
    pub async fn made_of(&self, local_etag: Option<&HeaderValue>, limit: Duration) -> Option<Arc<Merged>> {
        let mut merged = self.merged.subscribe();
        self.bell.notify_one();
        let is_made = |merged: &Option<Arc<Merged>>| {
            merged.as_ref().is_some_and(|merged| merged.is_made_of(local_etag))
        };
        let _ = timeout(limit, merged.wait_for(is_made)).await;
        self.now()
    }
}

/// The only writer of the merged document.
#[derive(Debug)]
pub struct Merger {
    asker: Arc<Asker>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    metrics: Arc<Metrics>,
    openapi: Arc<OpenApiV2>,
    servers: HashMap<SocketAddr, Known>,
    /// What the published document is made of, in this order.
    made_of: Vec<Arc<Source>>,
}

/// What is known of one server.
#[derive(Debug, Default)]
struct Known {
    /// Its last document.
    source: Option<Arc<Source>>,
    is_failing: bool,
}

/// What came of asking all servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// There is nothing to merge.
    Alike,
    Unchanged,
    Changed,
}

/// Rounds that are asked for begin no more often; well below what a request waits for news.
const BREATH: Duration = Duration::from_millis(250);
/// After a change servers are asked again: they describe a custom resource a moment later than they serve it, and a change
/// of its schema alone shows nowhere else. The pause doubles from the first to the second.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(5));

impl Merger {
    /// One that publishes at `openapi`.
    pub fn new(
        asker: Arc<Asker>,
        snapshot: Arc<ArcSwap<Snapshot>>,
        metrics: Arc<Metrics>,
        openapi: Arc<OpenApiV2>,
    ) -> Self {
        Self { asker, snapshot, metrics, openapi, servers: HashMap::new(), made_of: Vec::new() }
    }

    /// Runs until the snapshot's writer is gone.
    pub async fn run(mut self, mut changes: watch::Receiver<()>) {
        let mut pause = PAUSES.0;
        loop {
            let began = Instant::now();
            changes.mark_unchanged();
            let outcome = self.round().await;
            pause = if outcome == Outcome::Changed { PAUSES.0 } else { pause };
            tokio::select! {
                news = changes.changed() => {
                    if news.is_err() {
                        return;
                    }
                    pause = PAUSES.0;
                }
                () = self.openapi.bell.notified(), if outcome != Outcome::Alike => pause = PAUSES.0,
                () = sleep(pause), if outcome != Outcome::Alike => pause = (pause * 2).min(PAUSES.1),
            }
            if outcome != Outcome::Alike {
                sleep_until(began + BREATH).await;
            }
        }
    }

    /// Asks the local server and the peers that serve what it lacks; each answer is merged as it comes.
    async fn round(&mut self) -> Outcome {
        let snapshot = self.snapshot.load_full();
        let peers = snapshot.richer();
        let Some(local) = snapshot.upstream(0).filter(|_| !peers.is_empty()) else {
            self.forget();
            return Outcome::Alike;
        };
        let wanted: Vec<Upstream> =
            [local].into_iter().chain(peers.iter().filter_map(|peer| snapshot.upstream(peer))).collect();
        self.servers.retain(|address, _| wanted.iter().any(|upstream| upstream.address == *address));
        let asker = Arc::clone(&self.asker);
        let mut answers: FuturesUnordered<_> = wanted
            .iter()
            .map(|upstream| {
                let known = self.servers.get(&upstream.address).and_then(|known| known.source.clone());
                let asker = &asker;
                async move { (upstream.address, fetch(asker, upstream, known.as_ref()).await) }
            })
            .collect();
        let mut outcome = Outcome::Unchanged;
        while let Some((address, answer)) = answers.next().await {
            self.take(address, answer);
            if self.merge(&snapshot, local, peers).await {
                outcome = Outcome::Changed;
            }
        }
        outcome
    }

    fn forget(&mut self) {
        self.servers.clear();
        self.made_of.clear();
        self.openapi.merged.send_if_modified(|merged| merged.take().is_some());
    }

    fn take(&mut self, address: SocketAddr, answer: Result<Arc<Source>, OpenApiError>) {
        let known = self.servers.entry(address).or_default();
        match answer {
            Ok(source) => {
                if std::mem::take(&mut known.is_failing) {
                    info!(%address, "OpenAPI v2 fetched again");
                }
                known.source = Some(source);
            }
            Err(error) => {
                self.metrics.discovery_failed("fetch_openapi", error.reason());
                let meanwhile = if known.source.is_some() {
                    "its last document stays"
                } else {
                    "its document is missing"
                };
                if std::mem::replace(&mut known.is_failing, true) {
                    debug!(%address, error = chain(&error), "OpenAPI v2 not fetched");
                } else {
                    warn!(%address, error = chain(&error), meanwhile, "OpenAPI v2 not fetched");
                }
            }
        }
    }

    /// Publishes what there is to merge. Whether that is new.
    async fn merge(&mut self, snapshot: &Snapshot, local: Upstream, peers: ServerSet) -> bool {
        let sources = self.sources(snapshot, local, peers);
        let is_known = sources.len() == self.made_of.len()
            && sources.iter().zip(&self.made_of).all(|(one, other)| Arc::ptr_eq(one, other));
        if sources.len() < 2 || is_known {
            return false;
        }
        self.made_of.clone_from(&sources);
        match spawn_blocking(move || Merged::of(&sources[0], &sources[1..])).await {
            Ok(Ok(merged)) => {
                debug!(documents = self.made_of.len(), "OpenAPI v2 merged");
                self.openapi.merged.send_replace(Some(Arc::new(merged)));
                true
            }
            Ok(Err(source)) => {
                error!(error = chain(&source), "OpenAPI v2 not merged");
                false
            }
            // The runtime starts nothing more while it shuts down.
            Err(_) => false,
        }
    }

    /// The local server's document and then the peers', in the order in which discovery documents are merged; nothing
    /// without the local one.
    fn sources(&self, snapshot: &Snapshot, local: Upstream, peers: ServerSet) -> Vec<Arc<Source>> {
        let source = |upstream: Upstream| self.servers.get(&upstream.address)?.source.clone();
        let Some(first) = source(local) else { return Vec::new() };
        let mut others: Vec<_> = peers
            .iter()
            .filter_map(|peer| {
                let version = numbers(snapshot.version(peer).unwrap_or_default());
                Some((Reverse(version), source(snapshot.upstream(peer)?)?))
            })
            .collect();
        others.sort_by(|(version, source), (other_version, other)| {
            (version, &source.etag).cmp(&(other_version, &other.etag))
        });
        [first].into_iter().chain(others.into_iter().map(|(_, source)| source)).collect()
    }
}
