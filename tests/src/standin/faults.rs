//! Makes following requests go wrong on purpose.

use std::collections::VecDeque;
use std::sync::Mutex;
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
    /// The body breaks off: a stream reset in HTTP/2, a closed connection in HTTP/1.1.
    CutBody {
        /// Bytes of the body that still arrive.
        after: usize,
    },
    /// The request is answered, and its connection takes no more after it: GOAWAY in HTTP/2, as with kube-apiserver's
    /// `--goaway-chance`, a close in HTTP/1.1.
    GoAway,
}

/// The faults to come; shared with the running stand-in.
#[derive(Debug, Default)]
pub struct Faults(Mutex<VecDeque<Rule>>);

#[derive(Debug)]
struct Rule {
    fault: Fault,
    path_part: String,
    left: usize,
}

impl Faults {
    /// The next `times` requests whose path contains `path_part` (empty: all) suffer `fault`; `usize::MAX` is for ever.
    /// Of several rules that apply the oldest acts. [`Fault::Refuse`] counts connections and ignores the path.
    pub fn inject(&self, fault: Fault, path_part: &str, times: usize) {
        let rule = Rule { fault, path_part: path_part.to_owned(), left: times };
        self.0.lock().expect("no holder of this lock panics").push_back(rule);
    }

    /// Nothing goes wrong any more.
    pub fn clear(&self) {
        self.0.lock().expect("no holder of this lock panics").clear();
    }

    /// The fault of a request for `path`.
    pub(super) fn of_request(&self, path: &str) -> Option<Fault> {
        self.take(|rule| rule.fault != Fault::Refuse && path.contains(&rule.path_part))
    }

    /// Whether a new connection is refused.
    pub(super) fn refuses_connection(&self) -> bool {
        self.take(|rule| rule.fault == Fault::Refuse).is_some()
    }

    /// Whether connections are being refused, without using the rule up.
    pub(super) fn is_refusing(&self) -> bool {
        self.0.lock().expect("no holder of this lock panics").iter().any(|rule| rule.fault == Fault::Refuse)
    }

    fn take(&self, applies: impl Fn(&Rule) -> bool) -> Option<Fault> {
        let mut rules = self.0.lock().expect("no holder of this lock panics");
        let rule = rules.iter_mut().find(|rule| rule.left > 0 && applies(rule))?;
        if rule.left != usize::MAX {
            rule.left -= 1;
        }
        let fault = rule.fault.clone();
        rules.retain(|rule| rule.left > 0);
        Some(fault)
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
}
