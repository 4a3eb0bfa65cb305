//! Makes following requests go wrong on purpose.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The answer comes this much later.
    Delay(Duration),
    /// New connections are reset before TLS.
    Refuse,
    /// The answer is 500 with a Status.
    InternalError,
    /// The answer is 403, as for somebody who lacks the right.
    Forbidden,
    /// The answer is 429 with `Retry-After`.
    TooManyRequests {
        /// Value of `Retry-After`, in seconds.
        retry_after: u16,
    },
    /// The answer is that of a server that is about to end: 503 before anybody looked at the request (k8s.io/apiserver
    /// `filters.WithWaitGroup`).
    ShuttingDown,
    /// The body breaks off: a stream reset in HTTP/2, a closed connection in HTTP/1.1.
    CutBody {
        /// Bytes of the body that still arrive.
        after: usize,
    },
    /// The body stops, and nothing more comes of it.
    StallBody {
        /// Bytes of the body that still arrive.
        after: usize,
    },
    /// The request is answered, and its connection takes no more after it: GOAWAY in HTTP/2, as with kube-apiserver's
    /// `--goaway-chance`, a close in HTTP/1.1.
    GoAway,
    /// The first request on a new HTTP/2 connection is not processed, and a GOAWAY says so.
    TurnAway {
        /// Whether that goes on until a request with a body has met it.
        until_body: bool,
    },
}

/// The faults to come; shared with the running stand-in.
#[derive(Debug, Default)]
pub struct Faults(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    rules: VecDeque<Rule>,
    turned_away: TurnedAway,
}

#[derive(Debug)]
struct Rule {
    fault: Fault,
    paths: Paths,
    left: usize,
}

#[derive(Debug)]
enum Paths {
    With(String),
    Only(String),
}

/// Requests that were turned away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TurnedAway {
    /// With a body.
    pub with_body: usize,
    /// Without.
    pub without: usize,
}

impl Faults {
    /// The next `times` requests whose path contains `path_part` (empty: all) suffer `fault`; `usize::MAX` is for ever.
    /// Of several rules that apply the oldest acts. [`Fault::Refuse`] and [`Fault::TurnAway`] count connections and ignore
    /// the path.
    pub fn inject(&self, fault: Fault, path_part: &str, times: usize) {
        self.push(Rule { fault, paths: Paths::With(path_part.to_owned()), left: times });
    }

    /// The same for requests with exactly this path.
    pub fn inject_at(&self, fault: Fault, path: &str, times: usize) {
        self.push(Rule { fault, paths: Paths::Only(path.to_owned()), left: times });
    }

    /// Nothing goes wrong any more.
    pub fn clear(&self) {
        self.lock().rules.clear();
    }

    /// Requests that met [`Fault::TurnAway`].
    pub fn turned_away(&self) -> TurnedAway {
        self.lock().turned_away
    }

    /// The fault of a request for `path`.
    pub(super) fn of_request(&self, path: &str) -> Option<Fault> {
        self.take(|rule| {
            !rule.is_of_connections() && rule.fault != Fault::ShuttingDown && rule.paths.contain(path)
        })
    }

    /// Whether a request for `path` is turned away unseen.
    pub(super) fn is_shutting_down(&self, path: &str) -> bool {
        self.take(|rule| rule.fault == Fault::ShuttingDown && rule.paths.contain(path)).is_some()
    }

    /// Whether a new connection is refused.
    pub(super) fn refuses_connection(&self) -> bool {
        self.take(|rule| rule.fault == Fault::Refuse).is_some()
    }

    /// Whether connections are being refused, without using the rule up.
    pub(super) fn is_refusing(&self) -> bool {
        self.lock().rules.iter().any(|rule| rule.fault == Fault::Refuse)
    }

    /// Whether the first request of a new connection is turned away, without using the rule up.
    pub fn turns_away(&self) -> bool {
        self.lock().rules.iter().any(|rule| matches!(rule.fault, Fault::TurnAway { .. }))
    }

    /// A request was turned away.
    pub(super) fn has_turned_away(&self, with_body: bool) {
        self.take(|rule| matches!(rule.fault, Fault::TurnAway { until_body } if with_body || !until_body));
        let turned_away = &mut self.lock().turned_away;
        *(if with_body { &mut turned_away.with_body } else { &mut turned_away.without }) += 1;
    }

    fn push(&self, rule: Rule) {
        self.lock().rules.push_back(rule);
    }

    fn take(&self, applies: impl Fn(&Rule) -> bool) -> Option<Fault> {
        let rules = &mut self.lock().rules;
        let rule = rules.iter_mut().find(|rule| rule.left > 0 && applies(rule))?;
        if rule.left != usize::MAX {
            rule.left -= 1;
        }
        let fault = rule.fault.clone();
        rules.retain(|rule| rule.left > 0);
        Some(fault)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

impl Rule {
    fn is_of_connections(&self) -> bool {
        matches!(self.fault, Fault::Refuse | Fault::TurnAway { .. })
    }
}

impl Paths {
    fn contain(&self, path: &str) -> bool {
        match self {
            Paths::With(part) => path.contains(part),
            Paths::Only(whole) => path == whole,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_used_up_in_order() {
        let faults = Faults::default();
        faults.inject(Fault::InternalError, "/pods", 1);
        faults.inject(Fault::Delay(Duration::ZERO), "", usize::MAX);
        faults.inject(Fault::Refuse, "", 1);
        assert_eq!(faults.of_request("/api/v1/pods"), Some(Fault::InternalError));
        assert_eq!(faults.of_request("/api/v1/pods"), Some(Fault::Delay(Duration::ZERO)));
        assert!(faults.refuses_connection() && !faults.refuses_connection());
        faults.clear();
        assert_eq!(faults.of_request("/"), None);
    }
    #[test]
    fn a_rule_for_one_path_is_for_no_other() {
        let faults = Faults::default();
        faults.inject_at(Fault::GoAway, "/api", 1);
        assert_eq!(faults.of_request("/api/v1/pods"), None);
        assert_eq!(faults.of_request("/api"), Some(Fault::GoAway));
    }

    #[test]
    fn connections_are_turned_away_until_the_request_that_counts() {
        let faults = Faults::default();
        faults.inject(Fault::TurnAway { until_body: true }, "", 1);
        faults.has_turned_away(false);
        assert!(faults.turns_away());
        assert_eq!(faults.of_request("/"), None);
        faults.has_turned_away(true);
        assert!(!faults.turns_away());
        assert_eq!(faults.turned_away(), TurnedAway { with_body: 1, without: 1 });
    }
}
