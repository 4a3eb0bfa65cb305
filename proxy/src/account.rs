//! Accounts for every request once: in the kernel-readable counters and in the access log.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use http::{Method, StatusCode, Uri};
use tracing::debug;

use crate::steering::PeerCounters;
use crate::upstream::{Role, Upstream};
use crate::vitals::{InFlight, Vitals};

/// Where one worker's requests are counted.
#[derive(Clone, Debug)]
pub struct Accounts {
    counters: Arc<PeerCounters>,
    vitals: Arc<Vitals>,
    worker: usize,
}

/// One request, from classification to the last byte of its response. Closes when dropped.
#[derive(Debug)]
pub struct RequestRecord {
    accounts: Accounts,
    started: Instant,
    method: Method,
    uri: Uri,
    upstream: Option<Upstream>,
    in_flight: Option<InFlight>,
    status: Option<StatusCode>,
    end: End,
}

/// How a try at one upstream ended without a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryFailure {
    /// Nothing was sent.
    NotReached,
    /// No response header came in time.
    Late,
    /// The upstream broke off.
    Broken,
}

/// How a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The client left before the end.
    Abandoned,
    /// The upstream's leg died in the middle.
    BrokenOff,
    /// In order.
    Completed,
}

impl Accounts {
    /// Accounts of worker number `worker`.
    pub fn new(counters: Arc<PeerCounters>, vitals: Arc<Vitals>, worker: usize) -> Self {
        Self { counters, vitals, worker }
    }

    /// Opens the record of one request.
    pub fn open(&self, method: Method, uri: Uri) -> RequestRecord {
        RequestRecord {
            accounts: self.clone(),
            started: Instant::now(),
            method,
            uri,
            upstream: None,
            in_flight: None,
            status: None,
            end: End::Abandoned,
        }
    }
}

impl RequestRecord {
    /// A connection to this upstream takes the request.
    pub fn sent_to(&mut self, upstream: &Upstream) {
        let tried_before = self.upstream.replace(*upstream).is_some();
        self.in_flight = Some(self.accounts.vitals.begin(upstream));
        let cells = self.accounts.counters.shard(self.accounts.worker, upstream.slot);
        cells.requests.fetch_add(1, Relaxed);
        if tried_before {
            cells.retried.fetch_add(1, Relaxed);
        }
        if upstream.role == Role::Peer {
            cells.rerouted.fetch_add(1, Relaxed);
        }
    }

    /// This upstream did not answer.
    pub fn failed_at(&mut self, upstream: &Upstream, how: TryFailure) {
        let cells = self.accounts.counters.shard(self.accounts.worker, upstream.slot);
        cells.errors.fetch_add(1, Relaxed);
        match how {
            TryFailure::NotReached => cells.errors_connect.fetch_add(1, Relaxed),
            TryFailure::Late => cells.errors_timeout.fetch_add(1, Relaxed),
            TryFailure::Broken => return,
        };
    }

    /// The connection became an upgraded one.
    pub fn upgraded(&mut self) {
        if let Some(upstream) = &self.upstream {
            self.accounts.counters.shard(self.accounts.worker, upstream.slot).upgrades.fetch_add(1, Relaxed);
        }
    }

    /// Whether the last server that took the request has this role.
    pub fn was_answered_by(&self, role: Role) -> bool {
        self.upstream.is_some_and(|upstream| upstream.role == role)
    }

    /// The last server that took the request.
    pub fn upstream(&self) -> Option<&Upstream> {
        self.upstream.as_ref()
    }

    /// Response headers are on their way to the client.
    pub fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
        if let Some(upstream) = &self.upstream {
            let cells = self.accounts.counters.shard(self.accounts.worker, upstream.slot);
            cells.add_response(status.as_u16(), nanoseconds(self.started.elapsed()));
        }
    }

    /// The upstream's leg died in the middle of the body.
    pub fn broke_off(&mut self) {
        self.end = End::BrokenOff;
        if let Some(upstream) = &self.upstream {
            self.accounts.counters.shard(self.accounts.worker, upstream.slot).errors.fetch_add(1, Relaxed);
        }
    }

    /// The body ended in order.
    pub fn completed(&mut self) {
        self.end = End::Completed;
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        debug!(
            target: "mvproxy::access",
            method = %self.method,
            path = self.uri.path(),
            upstream = self.upstream.map(|upstream| tracing::field::display(upstream.address)),
            status = self.status.map(|status| status.as_u16()),
            end = ?self.end,
            duration_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX),
            "request",
        );
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
