//! Keeps the objects that several stand-ins share, as API servers share etcd: one revision counter for all keys,
//! compare-and-swap writes, and a history that watches resume from.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

mod history;
mod memory;
mod remote;
mod serve;
mod wire;

pub use memory::HISTORY_LIMIT;
use memory::Memory;
use remote::Remote;
use wire::{Answer, Question};

/// Where one object lives; the API version is not part of it, as in etcd.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// API group, empty for core.
    pub group: String,
    /// Resource, plural and lower case.
    pub resource: String,
    /// Namespace, empty for cluster-scoped objects.
    pub namespace: String,
    /// Object name.
    pub name: String,
}

impl Key {
    /// A key from its four parts.
    pub fn new(group: &str, resource: &str, namespace: &str, name: &str) -> Self {
        Self {
            group: group.to_owned(),
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

/// Which keys a list or a watch is about; `None` means any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// API group and resource.
    pub resource: Option<(String, String)>,
    /// Namespace.
    pub namespace: Option<String>,
    /// Object name.
    pub name: Option<String>,
}

impl Range {
    /// Whether `key` lies in this range.
    pub fn contains(&self, key: &Key) -> bool {
        self.resource
            .as_ref()
            .is_none_or(|(group, resource)| *group == key.group && *resource == key.resource)
            && self.namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace)
            && self.name.as_ref().is_none_or(|name| *name == key.name)
    }
}

/// One stored object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it lives.
    pub key: Key,
    /// The object, without a resourceVersion of its own.
    #[serde(with = "wire::shared")]
    pub value: Arc<Value>,
    /// The revision of its last write.
    pub revision: u64,
}

/// The entries of a range at one revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listing {
    /// In the order of their keys.
    pub entries: Vec<Entry>,
    /// The store's revision that this listing shows.
    pub revision: u64,
}

/// One write as a watch sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Where the object lives or lived.
    pub key: Key,
    /// The object after the write; `None` when it was deleted.
    #[serde(with = "wire::shared_option")]
    pub value: Option<Arc<Value>>,
    /// The object before the write; `None` when it was created.
    #[serde(with = "wire::shared_option")]
    pub previous: Option<Arc<Value>>,
    /// The revision of the write.
    pub revision: u64,
}

/// What happened in a range after some revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Events {
    /// In the order of their revisions.
    pub events: Vec<Event>,
    /// The revision up to which `events` is complete.
    pub revision: u64,
}

/// What a write requires of the present state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expected {
    /// The key holds nothing.
    Absent,
    /// The key's last write was this revision.
    Revision(u64),
}

/// Why the store refused or failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum StoreError {
    /// The present state is not the expected one; `current` is the key's revision, if it holds anything.
    #[error("the key is at revision {current:?}, not at the expected one")]
    Conflict {
        /// Revision of the key.
        current: Option<u64>,
    },
    /// The history before `oldest` is gone.
    #[error(
        "revision {requested} is older than the kept history, which begins at {oldest}; now at {current}"
    )]
    Compacted {
        /// What was asked for.
        requested: u64,
        /// The oldest revision that can be resumed from.
        oldest: u64,
        /// The store's present revision.
        current: u64,
    },
    /// The store's process cannot be reached.
    #[error("the store at {address} cannot be reached: {reason}")]
    Unreachable {
        /// Path of the socket.
        address: String,
        /// What the socket said.
        reason: String,
    },
}

/// A handle to a store, in this process or behind a unix socket; clones share it.
#[derive(Clone)]
pub struct Store(Place);

#[derive(Clone)]
enum Place {
    Here(Arc<Memory>),
    There(Arc<Remote>),
}

impl Store {
    /// An empty store in this process.
    pub fn in_memory() -> Self {
        Self(Place::Here(Arc::new(Memory::new(HISTORY_LIMIT))))
    }

    /// An empty store that forgets all but the last `limit` writes, to provoke 410s.
    pub fn with_history_limit(limit: usize) -> Self {
        Self(Place::Here(Arc::new(Memory::new(limit))))
    }

    /// The store that listens at `path`; reconnects by itself when that process comes back.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn connect(path: &Path) -> Result<Self, StoreError> {
        let remote = Arc::new(Remote::new(path));
        remote.connect().await?;
        Ok(Self(Place::There(remote)))
    }

    /// The object at `key`.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`].
    pub async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let range = Range {
            resource: Some((key.group.clone(), key.resource.clone())),
            namespace: Some(key.namespace.clone()),
            name: Some(key.name.clone()),
        };
        Ok(self.list(&range).await?.entries.pop())
    }

    /// All objects of `range`.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`].
    pub async fn list(&self, range: &Range) -> Result<Listing, StoreError> {
        match self.ask(Question::List(range.clone())).await? {
            Answer::Listing(listing) => Ok(listing),
            other => Err(unexpected(&other)),
        }
    }

    /// Writes `value` to `key` if its present state is as `expected`.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if not.
    pub async fn put(&self, key: &Key, value: Value, expected: Expected) -> Result<Entry, StoreError> {
        match self.ask(Question::Put { key: key.clone(), value: Arc::new(value), expected }).await? {
            Answer::Entry(entry) => Ok(entry),
            other => Err(unexpected(&other)),
        }
    }

    /// Deletes `key` if its last write was `revision`; the answer holds the last value and the deletion's revision.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if not.
    pub async fn delete(&self, key: &Key, revision: u64) -> Result<Entry, StoreError> {
        match self.ask(Question::Delete { key: key.clone(), revision }).await? {
            Answer::Entry(entry) => Ok(entry),
            other => Err(unexpected(&other)),
        }
    }

    /// What happened in `range` after revision `after`; waits up to `patience` for something to happen.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when `after` is too old.
    pub async fn events(&self, range: &Range, after: u64, patience: Duration) -> Result<Events, StoreError> {
        let patience = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        match self.ask(Question::Events { range: range.clone(), after, patience }).await? {
            Answer::Events(events) => Ok(events),
            other => Err(unexpected(&other)),
        }
    }

    async fn ask(&self, question: Question) -> Result<Answer, StoreError> {
        match &self.0 {
            Place::Here(memory) => memory.answer(question).await,
            Place::There(remote) => remote.ask(question).await,
        }
    }
}

fn unexpected(answer: &Answer) -> StoreError {
    let reason = format!("answered another question: {answer:?}");
    StoreError::Unreachable { address: "store".to_owned(), reason }
}
