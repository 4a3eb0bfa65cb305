//! What became of one request: the answer, how long it took, who saw it, and how often it took effect.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::CONTENT_TYPE;
use mvproxy_tests::client::Answer;

/// A request that no other resembles, so that it can be told who saw it.
#[derive(Clone, Debug)]
pub struct Row {
    pub method: String,
    pub target: String,
    /// The object that it creates.
    pub name: String,
    pub body: String,
}

/// Which API servers saw a request how often, and how often the store did what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub local: usize,
    pub peers: Vec<usize>,
    pub stored: usize,
}

/// What became of a request.
#[derive(Debug)]
pub struct Outcome {
    pub row: Row,
    pub answer: Answer,
    pub took: Duration,
    pub seen: Seen,
}

impl Row {
    pub fn request(&self) -> Request<Bytes> {
        let request = Request::builder().method(self.method.as_str()).uri(&self.target);
        let request = request.header(CONTENT_TYPE, "application/json");
        request.body(Bytes::from(self.body.clone())).unwrap()
    }

    /// How often a request that one server has taken is stored.
    fn stores(&self) -> usize {
        usize::from(self.method == "POST")
    }
}

impl Seen {
    /// By any upstream.
    pub fn total(&self) -> usize {
        self.local + self.peers.iter().sum::<usize>()
    }
}

impl Outcome {
    /// It was served by one upstream, took effect once, and the answer has the right body.
    #[track_caller]
    pub fn is_served(&self) -> &Self {
        let body = self.answer.json().unwrap();
        if self.row.method == "POST" {
            assert_eq!(self.answer.status, 201, "{self}");
            assert_eq!(body["metadata"]["name"], self.row.name.as_str(), "{self}");
        } else {
            assert_eq!(self.answer.status, 200, "{self}");
            assert!(body["kind"].as_str().is_some_and(|kind| kind.ends_with("List")), "{self}");
        }
        assert_eq!((self.seen.total(), self.seen.stored), (1, self.row.stores()), "{self}");
        self
    }

    /// One server saw it and answered with a Status of its own, which the client got as it was; nothing took effect.
    #[track_caller]
    pub fn is_relayed(&self, code: u16, reason: &str, retry_after: &str) -> &Self {
        assert_eq!(self.answer.status, code, "{self}");
        assert_eq!(self.answer.header("retry-after"), retry_after, "{self}");
        let status = self.answer.json().unwrap();
        assert_eq!((&status["kind"], &status["status"]), (&"Status".into(), &"Failure".into()), "{self}");
        assert_eq!((&status["code"], &status["reason"]), (&code.into(), &reason.into()), "{self}");
        assert_eq!((self.seen.total(), self.seen.stored), (1, 0), "{self}");
        self
    }

    /// The local server saw it and answered as it answers without a proxy; nothing took effect.
    #[track_caller]
    pub fn is_like(&self, straight: &Answer) -> &Self {
        assert_eq!(self.answer.status, straight.status, "{self}");
        assert_eq!(self.answer.header("content-type"), straight.header("content-type"), "{self}");
        assert_eq!(self.answer.text(), straight.text(), "{self}");
        assert_eq!(self.seen.stored, 0, "{self}");
        self.is_from_local()
    }

    /// The local server, and no other, saw it once.
    #[track_caller]
    pub fn is_from_local(&self) -> &Self {
        assert_eq!((self.seen.local, self.seen.total()), (1, 1), "{self}");
        self
    }

    /// One peer, and no other server, saw it once.
    #[track_caller]
    pub fn is_from_a_peer(&self) -> &Self {
        assert_eq!((self.seen.local, self.seen.total()), (0, 1), "{self}");
        self
    }

    /// A 503 that says when to try again; nobody saw it.
    #[track_caller]
    pub fn is_unavailable(&self) -> &Self {
        assert_unavailable(&self.answer, &self.to_string());
        assert_eq!((self.seen.total(), self.seen.stored), (0, 0), "{self}");
        self
    }

    /// A 502 that does not say when to try again, since it may have taken effect, though never twice.
    #[track_caller]
    pub fn is_in_doubt(&self) -> &Self {
        assert_own_failure(&self.answer, 502, "InternalError", &self.to_string());
        assert_eq!(self.answer.header("retry-after"), "", "client-go would send it again: {self}");
        assert!(self.seen.total() <= 1 && self.seen.stored <= 1, "{self}");
        self
    }

    #[track_caller]
    pub fn took_less_than(&self, limit: Duration) -> &Self {
        assert!(self.took < limit, "{self}");
        self
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { row, answer, took, seen } = self;
        let text: String = answer.text().chars().take(300).collect();
        write!(f, "{} {}: {} after {took:?}, {seen:?}: {text}", row.method, row.target, answer.status)
    }
}

/// A 503 as kube-apiserver gives it, with nothing about the inside in it.
#[track_caller]
pub fn assert_unavailable(answer: &Answer, what: &str) {
    assert_own_failure(answer, 503, "ServiceUnavailable", what);
    assert_eq!(answer.header("retry-after"), "1", "{what}");
    assert_eq!(answer.json().unwrap()["details"]["retryAfterSeconds"], 1, "{what}");
}

/// A Status of the proxy's own.
#[track_caller]
pub fn assert_own_failure(answer: &Answer, code: u16, reason: &str, what: &str) {
    assert_eq!(answer.status, code, "{what}: {}", answer.text());
    assert_eq!(answer.header("content-type"), "application/json", "{what}");
    let status = answer.json().unwrap();
    assert_eq!((&status["kind"], &status["apiVersion"]), (&"Status".into(), &"v1".into()), "{what}");
    assert_eq!((&status["status"], &status["code"]), (&"Failure".into(), &code.into()), "{what}");
    assert_eq!(status["reason"], reason, "{what}");
    for secret in ["127.0.0.1", "127.64", "10.62", "os error", "refused", "kubernetes-admin"] {
        assert!(!answer.text().contains(secret), "{what} gives {secret:?} away: {}", answer.text());
    }
}
