//! What Prometheus reads: rerouted requests under the built-in proxy's names, and the same maps that bpftool shows.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::classify::RequestInfo;
use crate::cut::Cutter;
use crate::discovery::{Freshness, Snapshot};
use crate::error::RequestError;
use crate::limits::Sources;
use crate::reload::CredentialState;
use crate::steering::{Steering, WorkerState};

mod wire;

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    rerouted: Family<Rerouted, Counter>,
    proxy_errors: Family<ErrorType, Counter>,
    sync_errors: Family<SyncError, Counter>,
    connections_ended: Family<EndReason, Counter>,
    freshness: Arc<ArcSwap<Vec<Freshness>>>,
}

/// Why the proxy ended a client's connection, or did not serve it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The TLS handshake took too long.
    Handshake,
    /// The head of a request took too long.
    Header,
    /// There was no request for too long.
    Idle,
    /// The client opened requests only to give them up.
    GivenUp,
    /// Its source has too many connections.
    SourceLimit,
    /// There are too many connections; this one was handed to the API server untouched.
    PassedOn,
    /// There are too many connections, and too many that were passed on.
    Limit,
}

impl Ended {
    fn label(self) -> &'static str {
        match self {
            Ended::Handshake => "handshake_timeout",
            Ended::Header => "header_timeout",
            Ended::Idle => "idle_timeout",
            Ended::GivenUp => "requests_given_up",
            Ended::SourceLimit => "source_limit",
            Ended::PassedOn => "passed_on",
            Ended::Limit => "limit",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndReason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Rerouted {
    code: u16,
    group: String,
    version: String,
    resource: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorType {
    r#type: &'static str,
}

/// Upstream's label and one of our own beside it: sums over `type` are what upstream counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SyncError {
    r#type: &'static str,
    reason: &'static str,
}

impl Metrics {
    /// Registers everything; the collector reads kernel maps and the snapshot when it is scraped, never before.
    pub fn new(live: Live) -> Self {
        let mut registry = Registry::default();
        let rerouted = Family::default();
        registry.register(
            "apiserver_rerouted_request",
            "Requests answered by a peer API server because the local one does not serve the resource",
            rerouted.clone(),
        );
        let proxy_errors = Family::default();
        registry.register(
            "apiserver_peer_proxy_errors",
            "Requests the proxy itself had to refuse or fail, by kind",
            proxy_errors.clone(),
        );
        let sync_errors = Family::default();
        registry.register(
            "apiserver_peer_discovery_sync_errors",
            "Failed attempts to learn what an API server serves, by kind",
            sync_errors.clone(),
        );
        let connections_ended = Family::default();
        registry.register(
            "mvproxy_client_connections_ended",
            "Client connections that the proxy ended by a limit or did not serve, by reason",
            connections_ended.clone(),
        );
        let freshness = Arc::clone(&live.freshness);
        registry.register_collector(Box::new(live));
        Self { registry, rerouted, proxy_errors, sync_errors, connections_ended, freshness }
    }

    /// A rerouted request was answered, by a peer or, with the proxy's own failure, for one.
    pub fn rerouted(&self, code: u16, info: &RequestInfo<'_>) {
        let labels = Rerouted {
            code,
            group: info.group.to_owned(),
            version: info.version.to_owned(),
            resource: info.resource.to_owned(),
        };
        self.rerouted.get_or_create(&labels).inc();
    }

    /// A request ended with the proxy's own failure.
    pub fn request_failed(&self, error: &RequestError) {
        self.proxy_errors.get_or_create(&ErrorType { r#type: error.label() }).inc();
    }

    /// Who the servers are, or what one of them serves, could not be learned.
    pub fn discovery_failed(&self, r#type: &'static str, reason: &'static str) {
        self.sync_errors.get_or_create(&SyncError { r#type, reason }).inc();
    }

    /// How well each peer is known at present.
    pub fn set_freshness(&self, freshness: Vec<Freshness>) {
        self.freshness.store(Arc::new(freshness));
    }

    /// A client's connection met a limit.
    pub fn connection_ended(&self, reason: Ended) {
        self.connections_ended.get_or_create(&EndReason { reason: reason.label() }).inc();
    }

    /// The text that Prometheus reads.
    ///
    /// # Errors
    /// Never in practice: the text goes into memory.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

/// Values that live elsewhere and are read at scrape time.
#[derive(Debug)]
pub struct Live {
    /// Kernel maps and heartbeats.
    pub steering: Arc<Steering>,
    /// What every server serves.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// How well each peer is known; written by [`Metrics::set_freshness`].
    pub freshness: Arc<ArcSwap<Vec<Freshness>>>,
    /// Certificates, keys and CAs in use.
    pub credentials: Arc<ArcSwap<CredentialState>>,
    /// Open connections.
    pub sources: Arc<Sources>,
    /// What cuts connections, if anything does.
    pub cutter: Option<Arc<Cutter>>,
    /// Number of workers.
    pub workers: usize,
}

impl Collector for Live {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_peers(&mut encoder)?;
        self.encode_freshness(&mut encoder)?;
        self.encode_credentials(&mut encoder)?;
        self.encode_load(&mut encoder)?;
        self.encode_decisions(&mut encoder)?;
        wire::encode(self.steering.xdp(), &mut encoder)?;
        self.encode_state(&mut encoder)
    }
}

impl Live {
    fn encode_peers(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let totals = self.steering.counters().totals();
        let l4 = self.steering.peer_l4();
        let rows = |read: fn(&mvproxy_common::PeerL7) -> u64| -> Vec<(String, u64)> {
            totals.iter().map(|(peer, cells)| (peer.to_string(), read(cells))).collect()
        };
        counters(encoder, "mvproxy_peer_requests", "Requests sent to an API server", &rows(|c| c.requests))?;
        counters(encoder, "mvproxy_peer_rerouted", "Requests rerouted to a peer", &rows(|c| c.rerouted))?;
        counters(
            encoder,
            "mvproxy_peer_errors",
            "Requests an API server did not answer",
            &rows(|c| c.errors),
        )?;
        let opened: Vec<_> = l4.iter().map(|(peer, cells)| (peer.to_string(), cells.opened)).collect();
        counters(encoder, "mvproxy_peer_connections_opened", "Connections opened to an API server", &opened)?;
        let failed: Vec<_> = l4.iter().map(|(peer, cells)| (peer.to_string(), cells.failed)).collect();
        counters(encoder, "mvproxy_peer_connections_failed", "Connections that did not come about", &failed)
    }

    fn encode_freshness(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let freshness = self.freshness.load();
        let name = "mvproxy_peer_discovery_stale";
        let help = "1 while a peer cannot be asked what it serves and what is known of it stays";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for peer in freshness.iter() {
            let labels = [("peer", peer.peer.to_string())];
            ConstGauge::new(i64::from(peer.is_stale)).encode(family.encode_family(&labels)?)?;
        }
        let name = "mvproxy_peer_discovery_age_seconds";
        let help = "Time since a peer was asked and answered";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (peer, heard) in freshness.iter().filter_map(|peer| Some((peer.peer, peer.heard?))) {
            let labels = [("peer", peer.to_string())];
            ConstGauge::new(heard.elapsed().as_secs_f64()).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn encode_credentials(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let state = self.credentials.load();
        let name = "mvproxy_certificate_expiration_timestamp_seconds";
        let help = "When a certificate in use ceases to be valid";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for expiration in &state.expirations {
            let end = i64::try_from(expiration.not_after.as_secs()).unwrap_or(i64::MAX);
            let labels = [("flag", expiration.flag), ("subject", expiration.subject.as_str())];
            ConstGauge::new(end).encode(family.encode_family(&labels)?)?;
        }
        let name = "mvproxy_credential_reloads";
        let help = "Changes of certificates, keys and CAs, by whether they could be put into use";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (result, value) in [("success", state.reloads), ("failure", state.failures)] {
            ConstCounter::new(value).encode(family.encode_family(&[("result", result)])?)?;
        }
        gauge(
            encoder,
            "mvproxy_credentials_outdated",
            "1 while a file cannot be used and its former content stays in use",
            !state.mistakes.is_empty(),
        )
    }

    fn encode_load(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let open = i64::try_from(self.sources.open_connections()).unwrap_or(i64::MAX);
        let metric = encoder.encode_descriptor(
            "mvproxy_client_connections",
            "Open connections of clients, upgraded ones and those passed on included",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(open).encode(metric)?;
        let states = self.steering.workers(self.workers);
        let help = "Workers by state; only those that serve get new connections from the kernel";
        let mut family = encoder.encode_descriptor("mvproxy_workers", help, None, MetricType::Gauge)?;
        for state in WorkerState::ALL {
            let count = states.iter().filter(|found| **found == state).count();
            let labels = [("state", state.label())];
            let gauge = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
            gauge.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn encode_decisions(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(cutter) = &self.cutter {
            let help = "Connections cut because they went straight to the API server when steering began";
            let name = "mvproxy_connections_cut";
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(cutter.count()).encode(metric)?;
        }
        let Some(stats) = self.steering.stats() else { return Ok(()) };
        let name = "mvproxy_steering_decisions";
        let help = "New connections by what the kernel did with them; only those steered came to a proxy";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (decision, value) in stats.decisions() {
            ConstCounter::new(value).encode(family.encode_family(&[("decision", decision)])?)?;
        }
        Ok(())
    }

    fn encode_state(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let snapshot = self.snapshot.load();
        gauge(
            encoder,
            "mvproxy_steering",
            "1 while the kernel steers connections here",
            self.steering.state().steers_here(),
        )?;
        let canary = !self.steering.canary().is_everyone();
        gauge(encoder, "mvproxy_steering_canary", "1 while only chosen clients are steered", canary)?;
        gauge(
            encoder,
            "mvproxy_skewed",
            "1 while a peer serves what the local server does not",
            snapshot.is_skewed(),
        )?;
        gauge(encoder, "mvproxy_local_known", "1 once the local server was asked", snapshot.local_is_known())
    }
}

fn counters(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    rows: &[(String, u64)],
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (peer, value) in rows {
        let labels = [("peer", peer.as_str())];
        ConstCounter::new(*value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, on: bool) -> fmt::Result {
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    ConstGauge::new(i64::from(on)).encode(metric)
}
