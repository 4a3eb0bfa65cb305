//! Decides where a request goes that drew no answer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::pool::Wanted;
use super::retry::{ConnectionEnd, Unanswered};
use crate::upstream::Upstream;
use crate::vitals::Vitals;

/// The way of one request from upstream to upstream.
///
/// Connections that were open when a server went away fail one by one, which says nothing about the server now. So a
/// healthy server is tried on another connection at once; one that is not comes after the others, but is never given up
/// before a fresh connection to it was tried.
#[derive(Debug)]
pub struct Course<I> {
    upstreams: I,
    upstream: Upstream,
    wanted: Wanted,
    tries: Tries,
    /// Servers that were left because of nothing but how connections to them ended.
    doubtful: VecDeque<(Upstream, ConnectionEnd)>,
    begun: Instant,
}

/// Tries at one server, by how the connection ended.
#[derive(Debug, Default)]
struct Tries {
    found_gone: u32,
    sent_away: u32,
    broke: u32,
}

/// As many connections as a worker could have open to one server.
const FOUND_GONE_LIMIT: u32 = 64;
/// Requests that share a connection are sent away together, and again from the next one.
const SENT_AWAY_LIMIT: u32 = 16;
/// Connections that break before the server itself is taken to be failing.
const BROKE_LIMIT: u32 = 4;
/// A client that has waited for this long is not made to wait for another connection to a server that seems to be dead: one
/// that hangs takes three seconds more, and five are what a dead server may cost.
const LONG: Duration = Duration::from_secs(2);

impl<I: Iterator<Item = Upstream>> Course<I> {
    /// Begins at the first upstream; `None` without any.
    pub fn new(mut upstreams: I) -> Option<Self> {
        let upstream = upstreams.next()?;
        let (tries, doubtful, begun) = (Tries::default(), VecDeque::new(), Instant::now());
        Some(Self { upstreams, upstream, wanted: Wanted::Any, tries, doubtful, begun })
    }

    /// The upstream to try.
    pub fn upstream(&self) -> Upstream {
        self.upstream
    }

    /// Which connections to it will do.
    pub fn wanted(&self) -> Wanted {
        self.wanted
    }

    /// Takes the next step after a try without an answer; `false` when there is nowhere to go.
    pub fn goes_on_after(&mut self, failed: &Unanswered, vitals: &Vitals) -> bool {
        if let Some(end) = failed.connection_end() {
            let has_tries_left = self.tries.count(end);
            let is_last_resort = self.wanted != Wanted::Any;
            if has_tries_left && (is_last_resort || vitals.is_healthy(&self.upstream)) {
                return true;
            }
            if !has_tries_left {
                vitals.failed(&self.upstream);
            }
            if !is_last_resort {
                self.doubtful.push_back((self.upstream, end));
            }
        }
        let next = self.upstreams.next().map(|next| (next, Wanted::Any));
        let Some((upstream, wanted)) = next.or_else(|| self.doubtful_one()) else { return false };
        (self.upstream, self.wanted, self.tries) = (upstream, wanted, Tries::default());
        true
    }

    fn doubtful_one(&mut self) -> Option<(Upstream, Wanted)> {
        let (upstream, end) = self.doubtful.pop_front()?;
        let seems_dead = end != ConnectionEnd::SentAway && self.begun.elapsed() >= LONG;
        (!seems_dead).then_some((upstream, Wanted::OpenedSince(self.begun)))
    }
}

impl Tries {
    /// Counts one; whether there may be another.
    fn count(&mut self, end: ConnectionEnd) -> bool {
        let (tries, limit) = match end {
            ConnectionEnd::FoundGone => (&mut self.found_gone, FOUND_GONE_LIMIT),
            ConnectionEnd::SentAway => (&mut self.sent_away, SENT_AWAY_LIMIT),
            ConnectionEnd::Broke => (&mut self.broke, BROKE_LIMIT),
        };
        *tries += 1;
        *tries <= limit
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::super::connect::ConnectError;
    use super::super::request::RequestBody;
    use super::*;
    use crate::steering::Steering;
    use crate::upstream::Role;

    /// Two servers, on ports 0 and 1.
    fn servers() -> [Upstream; 2] {
        let counters = Steering::off("a test").counters();
        [0, 1].map(|port| {
            let address = ([127, 0, 0, 1], port).into();
            Upstream { address, role: Role::Peer, slot: counters.slot(address) }
        })
    }

    /// A connection that had been open was found gone.
    fn gone() -> Unanswered {
        let request = Box::new(Request::new(RequestBody::Empty));
        Unanswered::Unsent { request, source: "gone".into(), stale: true }
    }

    fn refused(upstream: Upstream) -> Unanswered {
        let error = ConnectError::TimedOut { address: upstream.address };
        Unanswered::not_connected(Request::new(RequestBody::Empty), error)
    }

    /// Where it goes: a port, and whether any connection will do.
    fn place<I: Iterator<Item = Upstream>>(course: &Course<I>) -> (u16, bool) {
        (course.upstream().address.port(), course.wanted() == Wanted::Any)
    }

    #[test]
    fn a_server_that_is_not_healthy_comes_after_the_others_but_is_dialled_afresh() {
        let (servers, vitals) = (servers(), Vitals::default());
        vitals.set_ready(&servers[0], false);
        let mut course = Course::new(servers.into_iter()).expect("there are servers");
        assert_eq!(place(&course), (0, true));
        assert!(course.goes_on_after(&gone(), &vitals));
        assert_eq!(place(&course), (1, true));
        assert!(course.goes_on_after(&refused(servers[1]), &vitals));
        assert_eq!(place(&course), (0, false));
        assert!(!course.goes_on_after(&refused(servers[0]), &vitals), "it was tried on a fresh connection");
    }

    #[test]
    fn a_healthy_server_is_tried_on_each_of_its_connections_and_then_on_a_fresh_one() {
        let (servers, vitals) = (servers(), Vitals::default());
        let mut course = Course::new(servers.into_iter().take(1)).expect("there is a server");
        for _ in 0..FOUND_GONE_LIMIT {
            assert!(course.goes_on_after(&gone(), &vitals));
            assert_eq!(place(&course), (0, true));
        }
        assert!(course.goes_on_after(&gone(), &vitals));
        assert_eq!(place(&course), (0, false));
        assert!(!vitals.is_healthy(&servers[0]), "so many cannot have been open");
        assert!(course.goes_on_after(&gone(), &vitals));
        assert_eq!(place(&course), (0, false));
        assert!(!course.goes_on_after(&refused(servers[0]), &vitals));
    }

    #[test]
    fn a_server_that_refuses_is_not_asked_twice() {
        let (servers, vitals) = (servers(), Vitals::default());
        let mut course = Course::new(servers.into_iter()).expect("there are servers");
        assert!(course.goes_on_after(&refused(servers[0]), &vitals));
        assert_eq!(place(&course), (1, true));
        assert!(!course.goes_on_after(&refused(servers[1]), &vitals));
        assert!(Course::new(std::iter::empty()).is_none());
    }
}
