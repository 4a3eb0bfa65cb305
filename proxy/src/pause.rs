//! Spreads pauses between attempts, and lengthens them after failures.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

/// The pause, a tenth longer or shorter at random: what started together does not go on in step.
pub fn jittered(pause: Duration) -> Duration {
    // Each RandomState has keys of its own, so this is a random number without a generator to carry around.
    let random = RandomState::new().build_hasher().finish();
    let percent = u32::try_from(random % 21).unwrap_or_default() + 90;
    pause * percent / 100
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
    fn jitter_is_not_always_the_same() {
        let pauses: std::collections::BTreeSet<Duration> =
            (0..100).map(|_| jittered(Duration::from_secs(1))).collect();
        assert!(pauses.len() > 5, "{pauses:?}");
    }
}
