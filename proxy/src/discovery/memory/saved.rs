//! Lays out the file: one line that says what follows, and its checksum; then the content as JSON.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use http::HeaderValue;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::super::document::GroupList;
use super::super::hex;
use super::super::shared::SharedApi;
use super::super::{Part, Served};
use super::{MemoryError, Remembered, RememberedPeer};

const FORMAT: &str = "mvproxy-peers";
/// Raised with every change that an older program would misread.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Head {
    format: String,
    version: u32,
    origin: String,
    sha256: String,
}

/// The content.
#[derive(Serialize, Deserialize)]
pub(super) struct Saved {
    /// Documents, each once: servers of one version have the same.
    documents: Vec<GroupList>,
    peers: Vec<SavedPeer>,
    apis: Vec<(SharedApi, i64)>,
}

#[derive(Serialize, Deserialize)]
struct SavedPeer {
    addresses: Vec<SocketAddr>,
    version: String,
    core: SavedPart,
    groups: SavedPart,
    /// Milliseconds since 1970.
    heard: u64,
}

#[derive(Serialize, Deserialize)]
struct SavedPart {
    document: usize,
    etag: Option<String>,
}

impl Saved {
    pub(super) fn of(remembered: &Remembered, clock: SystemTime) -> Self {
        let mut documents = Documents::default();
        let peers = remembered.peers.iter().map(|peer| SavedPeer {
            addresses: peer.addresses.clone(),
            version: peer.served.version.clone(),
            core: documents.add(&peer.served.core),
            groups: documents.add(&peer.served.groups),
            heard: milliseconds(clock.checked_sub(peer.heard.elapsed()).unwrap_or(UNIX_EPOCH)),
        });
        let peers = peers.collect();
        Self { documents: documents.all, peers, apis: remembered.apis.clone() }
    }

    pub(super) fn encode(&self, origin: &str) -> Vec<u8> {
        let content = serde_json::to_vec(self).expect("lists of texts and numbers serialise");
        let head = Head {
            format: FORMAT.to_owned(),
            version: VERSION,
            origin: origin.to_owned(),
            sha256: checksum(&content),
        };
        let mut bytes = serde_json::to_vec(&head).expect("texts and numbers serialise");
        bytes.push(b'\n');
        bytes.extend(content);
        bytes
    }

    pub(super) fn decode(bytes: &[u8], origin: &str) -> Result<Self, MemoryError> {
        let line = bytes.iter().take(HEAD_LIMIT).position(|byte| *byte == b'\n').unwrap_or_default();
        let (head, content) = bytes.split_at(line);
        let head: Option<Head> = serde_json::from_slice(head).ok();
        let Some(head) = head.filter(|head| head.format == FORMAT && head.version == VERSION) else {
            let found = String::from_utf8_lossy(&bytes[..bytes.len().min(64)]).into_owned();
            return Err(MemoryError::Format { found });
        };
        let content = content.get(1..).unwrap_or_default();
        if head.sha256 != checksum(content) {
            return Err(MemoryError::Damaged);
        }
        if head.origin != origin {
            return Err(MemoryError::Foreign);
        }
        serde_json::from_slice(content).map_err(MemoryError::Content)
    }

    pub(super) fn into_remembered(self, clock: SystemTime, stale_after: Duration) -> Remembered {
        let Self { documents, peers, apis } = self;
        let peers = peers.into_iter().filter_map(|peer| peer.into_remembered(&documents, clock, stale_after));
        Remembered { peers: peers.collect(), apis }
    }
}

/// Length of the first line, at most.
const HEAD_LIMIT: usize = 4096;

impl SavedPeer {
    fn into_remembered(
        self,
        documents: &[GroupList],
        clock: SystemTime,
        stale_after: Duration,
    ) -> Option<RememberedPeer> {
        // A time in the future comes from a clock that was wrong then or is wrong now.
        let heard = UNIX_EPOCH.checked_add(Duration::from_millis(self.heard))?;
        let age = clock.duration_since(heard).unwrap_or_default();
        if age >= stale_after || self.addresses.is_empty() {
            return None;
        }
        let part = |part: SavedPart| {
            let list = documents.get(part.document)?.clone();
            Some(Part { list, etag: part.etag.and_then(|etag| HeaderValue::try_from(etag).ok()) })
        };
        let served = Served { core: part(self.core)?, groups: part(self.groups)?, version: self.version };
        let now = Instant::now();
        let heard = now.checked_sub(age).unwrap_or(now);
        Some(RememberedPeer { addresses: self.addresses, served: Arc::new(served), heard })
    }
}

/// Documents by their content.
#[derive(Default)]
struct Documents {
    all: Vec<GroupList>,
    places: HashMap<HeaderValue, usize>,
}

impl Documents {
    fn add(&mut self, part: &Part) -> SavedPart {
        // The tag of the content, not what a server sent along with it.
        let place = *self.places.entry(part.list.etag()).or_insert_with(|| {
            self.all.push(part.list.clone());
            self.all.len() - 1
        });
        let etag = part.etag.as_ref().and_then(|etag| etag.to_str().ok());
        SavedPart { document: place, etag: etag.map(str::to_owned) }
    }
}

fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn checksum(bytes: &[u8]) -> String {
    hex::lower(digest::digest(&digest::SHA256, bytes).as_ref())
}
