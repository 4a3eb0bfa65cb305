//! Keeps the merged `/openapi/v2` true while API servers differ: asks, merges and publishes beside the path of requests.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::HeaderValue;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, error, info, warn};

use super::DOCUMENT_LIMIT;
use super::described::Api;
use super::error::OpenApiError;
use super::fetch::{Source, fetch};
use super::merged::{Described, Merged};
use crate::asker::Asker;
use crate::causes::chain;
use crate::discovery::Snapshot;
use crate::discovery::merge::numbers;
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
    /// Servers that are being asked, of whom a slow one delays nobody else.
    answers: FuturesUnordered<Asking>,
    /// What the published document is made of, in this order.
    made_of: Vec<Described>,
}

type Asking = Pin<Box<dyn Future<Output = (Upstream, Result<Arc<Source>, OpenApiError>)> + Send>>;

/// What is known of one server.
#[derive(Debug, Default)]
struct Known {
    /// Its last document.
    source: Option<Arc<Source>>,
    is_failing: bool,
    asking: Asked,
}

/// Whether a server is being asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Asked {
    #[default]
    Not,
    Once,
    /// What it is about to say may be older than the reason to ask again.
    Again,
}

/// Rounds that are asked for begin no more often; well below what a request waits for news.
const BREATH: Duration = Duration::from_millis(250);
/// After a change servers are asked again: they describe a custom resource a moment later than they serve it, and a change
/// of its schema alone shows nowhere else. The pause doubles from the first to the second.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(5));
/// Bytes of either form of the merged document: twice as many as one server's may have.
const MERGED_LIMIT: usize = 2 * DOCUMENT_LIMIT;

impl Merger {
    /// One that publishes at `openapi`.
    pub fn new(
        asker: Arc<Asker>,
        snapshot: Arc<ArcSwap<Snapshot>>,
        metrics: Arc<Metrics>,
        openapi: Arc<OpenApiV2>,
    ) -> Self {
        let (servers, answers, made_of) = (HashMap::new(), FuturesUnordered::new(), Vec::new());
        Self { asker, snapshot, metrics, openapi, servers, answers, made_of }
    }

    /// Runs until the snapshot's writer is gone.
    pub async fn run(mut self, mut changes: watch::Receiver<()>) {
        let mut pause = PAUSES.0;
        loop {
            let began = Instant::now();
            changes.mark_unchanged();
            let differ = self.ask_all();
            let mut has_news = self.merge().await;
            let mut next = began + if has_news { PAUSES.0 } else { pause };
            loop {
                tokio::select! {
                    news = changes.changed() => {
                        if news.is_err() {
                            return;
                        }
                        (has_news, next) = (true, next.min(began + BREATH));
                        if !differ {
                            break;
                        }
                    }
                    () = self.openapi.bell.notified(), if differ => {
                        (has_news, next) = (true, next.min(began + BREATH));
                    }
                    Some((upstream, answer)) = self.answers.next() => {
                        self.take(upstream, answer);
                        if self.merge().await {
                            (has_news, next) = (true, next.min(Instant::now() + PAUSES.0));
                        }
                    }
                    () = sleep_until(next), if differ => break,
                }
            }
            pause = if has_news { PAUSES.0 } else { (pause * 2).min(PAUSES.1) };
        }
    }

    /// Asks the local server and the peers that serve what it lacks. False when there are none: then there is nothing to merge.
    fn ask_all(&mut self) -> bool {
        let snapshot = self.snapshot.load_full();
        let peers = snapshot.richer();
        let Some(local) = snapshot.upstream(0).filter(|_| !peers.is_empty()) else {
            self.forget();
            return false;
        };
        let wanted: Vec<Upstream> =
            [local].into_iter().chain(peers.iter().filter_map(|peer| snapshot.upstream(peer))).collect();
        self.servers.retain(|address, _| wanted.iter().any(|upstream| upstream.address == *address));
        for upstream in wanted {
            let known = self.servers.entry(upstream.address).or_default();
            match known.asking {
                Asked::Not => self.answers.push(asking(&self.asker, upstream, known)),
                Asked::Once | Asked::Again => known.asking = Asked::Again,
            }
        }
        true
    }

    fn forget(&mut self) {
        self.servers.clear();
        self.answers.clear();
        self.made_of.clear();
        self.openapi.merged.send_if_modified(|merged| merged.take().is_some());
    }

    fn take(&mut self, upstream: Upstream, answer: Result<Arc<Source>, OpenApiError>) {
        let address = upstream.address;
        let Some(known) = self.servers.get_mut(&address) else { return };
        let is_to_be_asked = std::mem::take(&mut known.asking) == Asked::Again;
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
        if is_to_be_asked {
            self.answers.push(asking(&self.asker, upstream, known));
        }
    }

    /// Publishes what there is to merge. Whether that is new.
    async fn merge(&mut self) -> bool {
        let documents = self.documents(&self.snapshot.load());
        let is_known = documents.len() == self.made_of.len()
            && documents.iter().zip(&self.made_of).all(|(one, other)| one.is(other));
        if documents.len() < 2 || is_known {
            return false;
        }
        self.made_of.clone_from(&documents);
        let merged =
            spawn_blocking(move || Merged::of(&documents[0].source, &documents[1..], MERGED_LIMIT)).await;
        match merged {
            Ok(Ok((merged, left_out))) => {
                debug!(documents = self.made_of.len(), "OpenAPI v2 merged");
                if left_out > 0 {
                    warn!(left_out, "OpenAPI v2: peers describe too much to be merged");
                }
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
    /// without the local one. A peer that is slow or down may describe what was deleted meanwhile.
    fn documents(&self, snapshot: &Snapshot) -> Vec<Described> {
        let peers = snapshot.richer();
        let source = |upstream: Upstream| self.servers.get(&upstream.address)?.source.clone();
        let Some(first) = snapshot.upstream(0).and_then(source) else { return Vec::new() };
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
        let is_gone = |api: &&Api| !api.is_served(snapshot);
        let others = others.into_iter().map(|(_, source)| Described {
            gone: source.apis.iter().filter(is_gone).cloned().collect(),
            source,
        });
        [Described { source: first, gone: Vec::new() }].into_iter().chain(others).collect()
    }
}

/// Begins to ask a server.
fn asking(asker: &Arc<Asker>, upstream: Upstream, known: &mut Known) -> Asking {
    known.asking = Asked::Once;
    let (asker, source) = (Arc::clone(asker), known.source.clone());
    Box::pin(async move { (upstream, fetch(&asker, &upstream, source.as_ref()).await) })
}
