//! Notices that clients went straight to the API server although they should have been steered.

use std::time::{Duration, Instant};

/// Connections that pass by must have ceased for so long before anybody is moved.
const SETTLED: Duration = Duration::from_secs(5);
/// Least time between two moves; it doubles with each, up to [`MOST`].
const LEAST: Duration = Duration::from_secs(10);
/// Longest time between two moves.
const MOST: Duration = Duration::from_mins(10);

/// What passed by, and when clients were moved for it.
///
/// A proxy that hung, or was not there, would else be without these clients for as long as their connections live. One that
/// fails again and again must not have them cut each time.
#[derive(Debug)]
pub(super) struct Aftercare {
    /// How many had passed by when clients were moved last.
    moved_at: u64,
    /// How many at the latest look, and since when it has been so many.
    seen: u64,
    seen_since: Instant,
    last_move: Instant,
    pause: Duration,
}

impl Aftercare {
    /// Nobody has to be moved for what passed by until now.
    pub(super) fn new(passed_by: u64, now: Instant) -> Self {
        Self { moved_at: passed_by, seen: passed_by, seen_since: now, last_move: now, pause: LEAST }
    }

    /// Clients are moved for another reason.
    pub(super) fn moved(&mut self, passed_by: u64, now: Instant) {
        (self.moved_at, self.seen, self.seen_since, self.last_move) = (passed_by, passed_by, now, now);
    }

    /// Whether clients are to be moved for those that passed by; asked every now and then, it says so once.
    pub(super) fn is_due(&mut self, passed_by: u64, may_move: bool, now: Instant) -> bool {
        if passed_by != self.seen {
            (self.seen, self.seen_since) = (passed_by, now);
        }
        let since_move = now.saturating_duration_since(self.last_move);
        let has_settled = now.saturating_duration_since(self.seen_since) >= SETTLED;
        if self.seen == self.moved_at || !may_move || !has_settled || since_move < self.pause {
            return false;
        }
        // Long without a reason to move anybody: the next fault is one by itself.
        self.pause = if since_move > MOST * 2 { LEAST } else { (self.pause * 2).min(MOST) };
        self.moved(passed_by, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks every 100 ms for `seconds`, while connections pass by or not; returns when clients were moved, in seconds.
    fn watch(
        aftercare: &mut Aftercare,
        begun: Instant,
        seconds: u64,
        passes: impl Fn(u64) -> bool,
    ) -> Vec<u64> {
        let mut passed_by = 0;
        let look = |tenth: u64| {
            passed_by += u64::from(passes(tenth / 10));
            let is_due = aftercare.is_due(passed_by, true, begun + Duration::from_millis(tenth * 100));
            is_due.then_some(tenth / 10)
        };
        (0..seconds * 10).filter_map(look).collect()
    }

    #[test]
    fn who_passed_by_is_moved_once_and_when_it_is_over() {
        let begun = Instant::now();
        let mut aftercare = Aftercare::new(0, begun);
        assert_eq!(watch(&mut aftercare, begun, 300, |second| (20..23).contains(&second)), [27]);
    }

    #[test]
    fn while_connections_pass_by_nobody_is_moved() {
        let begun = Instant::now();
        assert_eq!(
            watch(&mut Aftercare::new(0, begun), begun, 300, |second| second % 4 == 0),
            Vec::<u64>::new()
        );
    }

    #[test]
    fn faults_that_come_again_and_again_move_clients_ever_more_seldom() {
        let begun = Instant::now();
        let mut aftercare = Aftercare::new(0, begun);
        let moves = watch(&mut aftercare, begun, 3600, |second| second % 20 == 0);
        let pauses: Vec<_> = moves.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(pauses.is_sorted(), "{pauses:?}");
        assert!(moves.len() < 14, "{moves:?}");
    }

    #[test]
    fn a_fault_after_a_long_time_is_mended_soon() {
        let begun = Instant::now();
        let mut aftercare = Aftercare::new(0, begun);
        let passes = |second| second % 20 == 0 && !(600..2600).contains(&second);
        let moves = watch(&mut aftercare, begun, 2700, passes);
        let late = moves.iter().filter(|second| **second >= 2600).count();
        assert!(late >= 2, "{moves:?}");
    }

    #[test]
    fn nobody_is_moved_to_a_proxy_that_takes_nobody() {
        let begun = Instant::now();
        let mut aftercare = Aftercare::new(0, begun);
        assert!(!aftercare.is_due(3, false, begun + Duration::from_secs(1)));
        assert!(!aftercare.is_due(3, false, begun + Duration::from_mins(1)));
        assert!(aftercare.is_due(3, true, begun + Duration::from_secs(61)));
    }
}
