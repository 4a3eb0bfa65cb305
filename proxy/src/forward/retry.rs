//! Decides whether a request may be sent again.

use std::error::Error;
use std::sync::Mutex;
use std::sync::PoisonError;

use http::{Method, Request, Response};

use super::body::ResponseBody;
use super::connect::ConnectError;
use super::replay::Replay;
use super::request::RequestBody;
use crate::account::TryFailure;

/// How one try ended without a response.
#[derive(Debug)]
pub enum Unanswered {
    /// Nothing was sent: the request is whole and may go elsewhere.
    Unsent {
        /// The request.
        request: Box<Request<RequestBody>>,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
        /// Whether the connection was one from the pool that had gone away.
        stale: bool,
    },
    /// It was sent and no response header came, or a small answer did not become whole.
    Broken {
        /// Why.
        source: hyper::Error,
        /// Whether the connection had carried requests before.
        stale: bool,
    },
    /// The server turned it away unprocessed, because it is about to end. What it said is for the client if nobody else
    /// answers.
    TurnedAway {
        /// The answer.
        response: Box<Response<ResponseBody>>,
    },
    /// It was sent over HTTP/1.1, where no PING tells a hung server from a busy one, and no response header came in time.
    Late,
}

/// How a connection ended on which a request got no answer, without that saying anything of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// It had been open and was gone before anything was sent.
    FoundGone,
    /// The server said that it did not process the request: a GOAWAY ends one connection, not the server.
    SentAway,
    /// It had served before and broke.
    Broke,
}

impl Unanswered {
    /// Nothing was sent because no connection came about.
    pub fn not_connected(request: Request<RequestBody>, source: ConnectError) -> Self {
        Unanswered::Unsent { request: Box::new(request), source: Box::new(source), stale: false }
    }

    /// How the connection ended, where another one to the same server may do better.
    pub fn connection_end(&self) -> Option<ConnectionEnd> {
        match self {
            Unanswered::Unsent { stale, .. } => stale.then_some(ConnectionEnd::FoundGone),
            Unanswered::Broken { source, .. } if is_unprocessed(source) => Some(ConnectionEnd::SentAway),
            Unanswered::Broken { stale, source } => {
                (*stale && !is_reset(source)).then_some(ConnectionEnd::Broke)
            }
            Unanswered::TurnedAway { .. } | Unanswered::Late => None,
        }
    }

    /// What it counts as.
    pub fn kind(&self) -> TryFailure {
        match self {
            Unanswered::Unsent { .. } | Unanswered::TurnedAway { .. } => TryFailure::NotReached,
            Unanswered::Broken { .. } => TryFailure::Broken,
            Unanswered::Late => TryFailure::Late,
        }
    }

    /// Whether it speaks against the server. One that resets a single stream is alive and has answered; a body that the
    /// client broke off, a response that makes no sense and a slow one may be a client's or a pod's doing.
    pub fn blames_server(&self) -> bool {
        match self {
            Unanswered::Unsent { .. } => true,
            Unanswered::Broken { source, .. } => !is_of_this_request(source),
            // A pod behind the proxy subresources, or an aggregated API server, may say the same: `/readyz` is asked.
            Unanswered::TurnedAway { .. } | Unanswered::Late => false,
        }
    }
}

/// Whether the server said that it did not process the request (RFC 9113 sections 6.8 and 8.7): its stream came after the
/// last one of a graceful GOAWAY, or was refused.
pub fn is_unprocessed(error: &hyper::Error) -> bool {
    let Some(error) = h2_error(error) else { return false };
    let graceful = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
    let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    error.is_remote() && (graceful || refused)
}

/// Whether an error comes from what is in this request or its answer, rather than from the connection or the server.
fn is_of_this_request(error: &hyper::Error) -> bool {
    is_reset(error) || error.is_user() || error.is_parse()
}

/// Whether an answer came that cannot be read, such as one with headers beyond the limit.
fn is_unreadable(error: &hyper::Error) -> bool {
    error.is_parse() || h2_error(error).is_some_and(|error| error.is_reset() && error.is_library())
}

fn is_reset(error: &hyper::Error) -> bool {
    h2_error(error).is_some_and(h2::Error::is_reset)
}

fn h2_error(error: &hyper::Error) -> Option<&h2::Error> {
    error.source().and_then(|source| source.downcast_ref())
}

/// What a request can be made of once more.
#[derive(Debug)]
pub struct Spare {
    head: Request<()>,
    body: Option<Replay>,
    safe: bool,
}

impl Spare {
    /// Keeps the head of a request; `body` replays its body.
    pub fn of(request: &Request<RequestBody>, body: Option<Replay>) -> Self {
        let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        Self { head: head_of(request), body, safe }
    }

    /// Whether the client may send the request again: that cannot have an effect twice, because the server did not process it
    /// or it is safe, and it can help.
    pub fn is_repeatable(&self, error: &hyper::Error) -> bool {
        is_unprocessed(error) || (self.safe && !is_unreadable(error))
    }

    /// The request once more, where it is repeatable and the budget allows.
    pub fn again(&self, error: &hyper::Error, budget: &Budget) -> Option<Request<RequestBody>> {
        // It would happen again: anybody could otherwise make one request many.
        let is_safe = self.safe && !is_of_this_request(error);
        let request = if is_safe || is_unprocessed(error) { self.unprocessed() } else { None };
        request.filter(|_| is_unprocessed(error) || budget.withdraw())
    }

    /// The request once more, after a server turned it away, if the budget allows: what says so may be a client's own pod.
    pub fn after_turned_away(&self, budget: &Budget) -> Option<Request<RequestBody>> {
        self.unprocessed().filter(|_| budget.withdraw())
    }

    /// The request once more, after a server did not process it.
    fn unprocessed(&self) -> Option<Request<RequestBody>> {
        let body = match &self.body {
            Some(replay) => RequestBody::Client(replay.again()?),
            None => RequestBody::Empty,
        };
        Some(self.head.clone().map(|()| body))
    }
}

/// A copy of a request's head.
pub(super) fn head_of<B>(request: &Request<B>) -> Request<()> {
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = request.uri().clone();
    *head.headers_mut() = request.headers().clone();
    head
}

/// Bounds how much of the traffic may be second tries, so that a failing server is not hit twice as hard.
#[derive(Debug)]
pub struct Budget(Mutex<u32>);

/// What a first try adds.
const EARNED: u32 = 1;
/// What a second try costs: a fifth of the traffic may be second tries.
const COST: u32 = 5;
/// The most that can be saved up, for 100 second tries at once.
const MOST: u32 = 500;

impl Default for Budget {
    fn default() -> Self {
        Self(Mutex::new(MOST))
    }
}

impl Budget {
    /// A first try.
    pub fn deposit(&self) {
        let mut balance = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *balance = (*balance + EARNED).min(MOST);
    }

    /// Asks for a second try.
    pub fn withdraw(&self) -> bool {
        let mut balance = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let enough = *balance >= COST;
        if enough {
            *balance -= COST;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_turned_away_goes_on_as_long_as_the_budget_lasts() {
        let (spare, budget) = (Spare::of(&Request::new(RequestBody::Empty), None), Budget::default());
        let sent = (0..MOST).filter(|_| spare.after_turned_away(&budget).is_some()).count();
        assert_eq!(sent, (MOST / COST) as usize);
    }

    #[test]
    fn a_fifth_of_the_traffic_may_be_second_tries_after_the_reserve_is_spent() {
        let budget = Budget::default();
        let reserve = (0..MOST).filter(|_| budget.withdraw()).count();
        assert_eq!(reserve, (MOST / COST) as usize);
        let granted = (0..100)
            .filter(|_| {
                budget.deposit();
                budget.withdraw()
            })
            .count();
        assert_eq!(granted, 20);
    }
}
