//! Bounds how many connections one source may have open.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Open connections by source, of all workers.
#[derive(Debug)]
pub struct Sources {
    limit: Option<NonZeroU32>,
    open: Mutex<HashMap<IpAddr, u32>>,
}

/// One open connection; ends when dropped.
#[derive(Debug)]
pub struct SourceGuard {
    sources: Arc<Sources>,
    address: IpAddr,
}

impl Sources {
    /// With `None` nothing is bounded or even counted.
    pub fn new(limit: Option<NonZeroU32>) -> Self {
        Self { limit, open: Mutex::default() }
    }

    /// Counts a connection; `None` when its source has too many.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Option<SourceGuard> {
        if let Some(limit) = self.limit {
            let mut open = self.lock();
            let count = open.entry(address).or_default();
            if *count >= limit.get() {
                return None;
            }
            *count += 1;
        }
        Some(SourceGuard { sources: Arc::clone(self), address })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SourceGuard {
    fn drop(&mut self) {
        if self.sources.limit.is_none() {
            return;
        }
        let mut open = self.sources.lock();
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_gets_its_places_back_and_no_other_is_affected() {
        let sources = Arc::new(Sources::new(NonZeroU32::new(2)));
        let [one, other] = [[127, 0, 0, 1], [127, 0, 0, 2]].map(IpAddr::from);
        let first = sources.enter(one);
        let _second = sources.enter(one);
        assert!(first.is_some() && sources.enter(one).is_none());
        assert!(sources.enter(other).is_some());
        drop(first);
        assert!(sources.enter(one).is_some());
        assert_eq!(sources.lock().len(), 1, "sources without connections are forgotten");
    }
}
