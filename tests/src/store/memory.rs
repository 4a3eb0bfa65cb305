//! Answers questions from a map in this process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::history::History;
use super::wire::{Answer, Question};
use super::{Entry, Event, Events, Expected, Key, Listing, Range, StoreError};

/// How many writes a store remembers for watches.
pub const HISTORY_LIMIT: usize = 100_000;

/// The objects and their history.
pub(super) struct Memory {
    state: Mutex<State>,
    /// The newest revision; waiting watches wake when it changes.
    revision: watch::Sender<u64>,
}

struct State {
    objects: BTreeMap<Key, (Arc<Value>, u64)>,
    history: History,
    revision: u64,
}

impl Memory {
    pub(super) fn new(history_limit: usize) -> Self {
        // etcd starts at revision 1 as well; 0 means "any" in the Kubernetes API.
        let state = State { objects: BTreeMap::new(), history: History::new(history_limit), revision: 1 };
        Self { state: Mutex::new(state), revision: watch::Sender::new(1) }
    }

    pub(super) async fn answer(&self, question: Question) -> Result<Answer, StoreError> {
        match question {
            Question::List(range) => Ok(Answer::Listing(self.lock().list(&range))),
            Question::Put { key, value, expected } => self.write(|state| state.put(key, value, expected)),
            Question::Delete { key, revision } => self.write(|state| state.delete(&key, revision)),
            Question::Events { range, after, patience } => {
                self.events(&range, after, Duration::from_millis(patience)).await.map(Answer::Events)
            }
        }
    }

    fn write(
        &self,
        change: impl FnOnce(&mut State) -> Result<Entry, StoreError>,
    ) -> Result<Answer, StoreError> {
        let mut state = self.lock();
        let entry = change(&mut state)?;
        self.revision.send_replace(state.revision);
        Ok(Answer::Entry(entry))
    }

    async fn events(&self, range: &Range, after: u64, patience: Duration) -> Result<Events, StoreError> {
        // Far enough to mean "for ever" without overflowing the clock.
        let deadline = Instant::now() + patience.min(Duration::from_hours(24));
        let mut changes = self.revision.subscribe();
        loop {
            changes.mark_unchanged();
            let found = self.lock().events(range, after)?;
            if !found.events.is_empty() {
                return Ok(found);
            }
            if !matches!(timeout_at(deadline, changes.changed()).await, Ok(Ok(()))) {
                return self.lock().events(range, after);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the store's lock panics")
    }
}

impl State {
    fn list(&self, range: &Range) -> Listing {
        let entries = match &range.resource {
            Some((group, resource)) => {
                let first = Key::new(
                    group,
                    resource,
                    range.namespace.as_deref().unwrap_or_default(),
                    range.name.as_deref().filter(|_| range.namespace.is_some()).unwrap_or_default(),
                );
                self.objects
                    .range(first..)
                    .take_while(|(key, _)| key.group == *group && key.resource == *resource)
                    .take_while(|(key, _)| range.namespace.as_ref().is_none_or(|only| *only == key.namespace))
                    .filter(|(key, _)| range.contains(key))
                    .map(entry)
                    .collect()
            }
            None => self.objects.iter().filter(|(key, _)| range.contains(key)).map(entry).collect(),
        };
        Listing { entries, revision: self.revision }
    }

    fn put(&mut self, key: Key, value: Arc<Value>, expected: Expected) -> Result<Entry, StoreError> {
        let current = self.objects.get(&key).map(|(_, revision)| *revision);
        let wanted = match expected {
            Expected::Absent => None,
            Expected::Revision(revision) => Some(revision),
        };
        if current != wanted {
            return Err(StoreError::Conflict { current });
        }
        self.revision += 1;
        let revision = self.revision;
        let previous = self.objects.insert(key.clone(), (value.clone(), revision)).map(|(value, _)| value);
        self.history.push(Event { key: key.clone(), value: Some(value.clone()), previous, revision });
        Ok(Entry { key, value, revision })
    }

    fn delete(&mut self, key: &Key, revision: u64) -> Result<Entry, StoreError> {
        let current = self.objects.get(key).map(|(_, revision)| *revision);
        if current != Some(revision) {
            return Err(StoreError::Conflict { current });
        }
        let (value, _) = self.objects.remove(key).expect("the key was found under the same lock");
        self.revision += 1;
        let revision = self.revision;
        self.history.push(Event { key: key.clone(), value: None, previous: Some(value.clone()), revision });
        Ok(Entry { key: key.clone(), value, revision })
    }

    fn events(&self, range: &Range, after: u64) -> Result<Events, StoreError> {
        let events = self.history.after(range, after, self.revision)?;
        Ok(Events { events, revision: self.revision.max(after) })
    }
}

fn entry((key, (value, revision)): (&Key, &(Arc<Value>, u64))) -> Entry {
    Entry { key: key.clone(), value: value.clone(), revision: *revision }
}
