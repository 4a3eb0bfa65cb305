//! Remembers what requests arrived, for tests to look at.

use std::collections::VecDeque;
use std::sync::Mutex;

use http::{HeaderMap, Method, Version};

use super::user::User;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct RecordedRequest {
    /// Method.
    pub method: Method,
    /// Path and query, byte for byte.
    pub target: String,
    /// All headers, X-Remote-* and Authorization included.
    pub headers: HeaderMap,
    /// The effective user; `None` when authentication failed.
    pub user: Option<User>,
    /// HTTP version.
    pub version: Version,
    /// Which connection it came on, counted from 1 per stand-in.
    pub connection: u64,
    /// Whether it came over TLS with a client certificate.
    pub client_certificate: bool,
    /// Whether the first `x-kubernetes-peer-proxied` is exactly `true`.
    pub peer_proxied: bool,
}

/// The newest requests.
#[derive(Debug, Default)]
pub(super) struct Recorder(Mutex<VecDeque<RecordedRequest>>);

/// How many requests are remembered.
const LIMIT: usize = 65_536;

impl Recorder {
    pub(super) fn push(&self, request: RecordedRequest) {
        let mut requests = self.0.lock().expect("no holder of this lock panics");
        if requests.len() == LIMIT {
            requests.pop_front();
        }
        requests.push_back(request);
    }

    pub(super) fn all(&self) -> Vec<RecordedRequest> {
        self.0.lock().expect("no holder of this lock panics").iter().cloned().collect()
    }

    pub(super) fn clear(&self) {
        self.0.lock().expect("no holder of this lock panics").clear();
    }
}

/// kube-apiserver's test of the header: only the first value, only the exact word.
pub(super) fn is_peer_proxied(headers: &HeaderMap) -> bool {
    headers.get("x-kubernetes-peer-proxied").is_some_and(|value| value == "true")
}
