//! Says when to look again after an object changed that all servers share.

use std::time::Duration;

use tokio::time::Instant;

/// The times that are still to come.
#[derive(Debug, Default)]
pub(super) struct Settling {
    times: Vec<Instant>,
    /// Whether the change has yet to show in the snapshot.
    is_owed: bool,
}

/// Changes that come together make one snapshot.
const GATHER: Duration = Duration::from_millis(100);
/// Servers are asked then and after these times: each takes its own to hear of the change.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];

impl Settling {
    /// Something was defined, changed or deleted; perhaps a thousand things one after the other.
    pub(super) fn changed(&mut self, now: Instant) {
        let is_owed = std::mem::replace(&mut self.is_owed, true);
        let first = self.next().filter(|_| is_owed).unwrap_or(now + GATHER);
        self.times = [first].into_iter().chain(PAUSES.map(|pause| now + pause)).collect();
    }

    /// When to look next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.times.first().copied()
    }

    /// That time has come. Whether a snapshot is owed.
    pub(super) fn passed(&mut self) -> bool {
        self.times.remove(0);
        std::mem::take(&mut self.is_owed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_each_moment_puts_off_no_snapshot() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let mut settling = Settling::default();
        assert_eq!(settling.next(), None);
        for millis in 0..50 {
            settling.changed(at(millis));
        }
        assert_eq!(settling.next(), Some(at(100)));
        assert!(settling.passed());
        assert_eq!(settling.next(), Some(at(549)), "from the last change");
        assert!(!settling.passed());
        settling.changed(at(600));
        assert_eq!(settling.next(), Some(at(700)));
        assert!(settling.passed() && !settling.passed() && !settling.passed());
        assert_eq!(settling.next(), None);
    }
}
