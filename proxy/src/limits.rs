//! Bounds how long clients may take, and how many connections one source may have open.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Time that open requests get to end when the process drains.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// Time limits of clients' connections. kube-apiserver has the same and no flags for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLimits {
    /// For the whole TLS handshake, first byte included: net/http takes `ReadHeaderTimeout` for it.
    pub handshake: Duration,
    /// For the head of a request, from its first byte, and for the first request, from the end of the handshake
    /// (`ReadHeaderTimeout`).
    pub header: Duration,
    /// For a connection without open requests (`IdleTimeout`); client-go counts on a connection to live that long.
    pub idle: Duration,
}

impl Default for TimeLimits {
    fn default() -> Self {
        let header = Duration::from_secs(32);
        Self { handshake: header, header, idle: Duration::from_secs(90) }
    }
}

/// Open connections by source, of all workers.
#[derive(Debug)]
pub struct Sources {
    limit: Option<NonZeroU32>,
    open: Mutex<HashMap<IpAddr, u32>>,
    total: AtomicUsize,
}

/// One open connection; ends when dropped.
#[derive(Debug)]
pub struct SourceGuard {
    sources: Arc<Sources>,
    address: Option<IpAddr>,
}

impl Sources {
    /// With `None` any number may be open, and only their sum is counted.
    pub fn new(limit: Option<NonZeroU32>) -> Self {
        Self { limit, open: Mutex::default(), total: AtomicUsize::new(0) }
    }

    /// How many are open, of all sources.
    pub fn open_connections(&self) -> usize {
        self.total.load(Relaxed)
    }

    /// Counts a connection; `None` when its source has too many. A source without address is not bounded.
    pub fn enter(self: &Arc<Self>, address: Option<IpAddr>) -> Option<SourceGuard> {
        if let (Some(limit), Some(address)) = (self.limit, address) {
            let mut open = self.lock();
            let count = open.entry(address).or_default();
            if *count >= limit.get() {
                return None;
            }
            *count += 1;
        }
        self.total.fetch_add(1, Relaxed);
        Some(SourceGuard { sources: Arc::clone(self), address })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SourceGuard {
    fn drop(&mut self) {
        self.sources.total.fetch_sub(1, Relaxed);
        let (Some(_), Some(address)) = (self.sources.limit, self.address) else { return };
        let mut open = self.sources.lock();
        if let Some(count) = open.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&address);
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
        let [one, other] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(|ip| Some(IpAddr::from(ip)));
        let first = sources.enter(one);
        let _second = sources.enter(one);
        assert!(first.is_some() && sources.enter(one).is_none());
        assert!(sources.enter(other).is_some());
        let unbounded: Vec<_> = (0..3).map(|_| sources.enter(None)).collect();
        assert!(unbounded.iter().all(Option::is_some));
        assert_eq!(sources.open_connections(), 5);
        drop(unbounded);
        drop(first);
        assert!(sources.enter(one).is_some());
        assert_eq!(sources.lock().len(), 1, "sources without connections are forgotten");
        assert_eq!(sources.open_connections(), 1);
    }
}
