//! Remembers the last writes so that a watch can resume from a revision.

use std::collections::VecDeque;

use super::{Event, Range, StoreError};

/// A bounded log of writes in the order of their revisions.
pub(super) struct History {
    log: VecDeque<Event>,
    limit: usize,
    /// The newest revision that was forgotten; a watch may resume from it, not from before it.
    forgotten: u64,
}

impl History {
    pub(super) fn new(limit: usize) -> Self {
        Self { log: VecDeque::new(), limit, forgotten: 0 }
    }

    pub(super) fn push(&mut self, event: Event) {
        self.log.push_back(event);
        while self.log.len() > self.limit {
            if let Some(event) = self.log.pop_front() {
                self.forgotten = event.revision;
            }
        }
    }

    /// The writes to `range` after `after`.
    pub(super) fn after(&self, range: &Range, after: u64, current: u64) -> Result<Vec<Event>, StoreError> {
        if after < self.forgotten {
            return Err(StoreError::Compacted { requested: after, oldest: self.forgotten, current });
        }
        let start = self.log.partition_point(|event| event.revision <= after);
        Ok(self.log.iter().skip(start).filter(|event| range.contains(&event.key)).cloned().collect())
    }
}
