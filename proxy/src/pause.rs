//! Spreads pauses between attempts, and lengthens them after failures.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

/// The pause, a tenth longer or shorter at random: what started together does not go on in step.
pub fn jittered(pause: Duration) -> Duration {
    let percent = u32::try_from(random() % 21).unwrap_or_default() + 90;
    pause * percent / 100
}

/// Any time from the first to the last.
pub fn between(first: Duration, last: Duration) -> Duration {
    let share = u32::try_from(random() % 1001).unwrap_or_default();
    first + last.saturating_sub(first) * share / 1000
}

/// Each `RandomState` has keys of its own, so this is a random number without a generator to carry around.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Pauses that double with each failure.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// From `first` to `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// The pause after one more failure, jittered.
    pub fn failed(&mut self) -> Duration {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.failures = (self.failures + 1).min(31);
        jittered(self.first.saturating_mul(factor).min(self.longest))
    }

    /// The next failure counts as the first again.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        let mut near = |expected: u64| {
            let (pause, expected) = (backoff.failed(), Duration::from_secs(expected));
            assert!(pause >= expected * 9 / 10 && pause <= expected * 11 / 10, "{pause:?} for {expected:?}");
        };
        for expected in [1, 2, 4, 5, 5] {
            near(expected);
        }
        (0..100).for_each(|_| near(5));
        backoff.succeeded();
        assert!(backoff.failed() < Duration::from_millis(1101));
    }

    #[test]
    fn times_between_two_are_spread_over_all_of_it() {
        let (first, last) = (Duration::from_secs(3), Duration::from_secs(13));
        let times: Vec<Duration> = (0..1000).map(|_| between(first, last)).collect();
        for second in 3..13 {
            let within = times.iter().filter(|time| time.as_secs() == second).count();
            assert!((50..200).contains(&within), "{within} of 1000 within second {second}");
        }
        assert!(times.iter().all(|time| (first..=last).contains(time)));
    }

    #[test]
    fn jitter_is_not_always_the_same() {
        let pauses: std::collections::BTreeSet<Duration> =
            (0..100).map(|_| jittered(Duration::from_secs(1))).collect();
        assert!(pauses.len() > 5, "{pauses:?}");
    }
}
