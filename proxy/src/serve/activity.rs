//! Knows what a client's connection is doing, as far as time limits depend on it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Duration, Instant, sleep_until};

use crate::forward::ResponseBody;
use crate::limits::TimeLimits;

/// One client's connection.
#[derive(Debug)]
pub(super) struct Activity {
    limits: TimeLimits,
    state: Mutex<State>,
    too_many_given_up: Notify,
}

#[derive(Debug)]
struct State {
    waits_for: Awaited,
    since: Instant,
    open_requests: usize,
    /// Each request that was given up adds [`GIVEN_UP_COST`]; time pays it off.
    debt_until: Instant,
}

/// What a connection without open requests waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    FirstRequest,
    NextRequest,
    /// The rest of a request's head, over HTTP/1.1.
    RestOfHead,
}

/// Why a connection has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// No whole head of a request came in time.
    Header,
    /// There was no request for long.
    Idle,
    /// Its client opened requests only to give them up.
    GivenUp,
}

/// A request of a client, until the last byte of its response was handed over.
#[derive(Debug)]
pub(super) struct OpenRequest {
    activity: Arc<Activity>,
    answered: bool,
}

/// Requests that a client may give up, without having seen the head of an answer, are 400 at once, where kube-apiserver
/// ends the connection as well (four times its 100 streams), and 100 a second: as many as it may have open.
///
/// A reset of a stream frees its place at once, but an API server may be at work for it for a while longer. Requests of
/// many clients share a connection to it, which it would end for all of them.
const GIVEN_UP_COST: Duration = Duration::from_millis(10);
const MOST_DEBT: Duration = Duration::from_secs(4);

impl Activity {
    /// A connection whose handshake is over.
    pub(super) fn new(limits: TimeLimits) -> Arc<Self> {
        let now = Instant::now();
        let state = State { waits_for: Awaited::FirstRequest, since: now, open_requests: 0, debt_until: now };
        Arc::new(Self { limits, state: Mutex::new(state), too_many_given_up: Notify::new() })
    }

    /// Whether no request has come yet.
    pub(super) fn is_new(&self) -> bool {
        self.lock().waits_for == Awaited::FirstRequest
    }

    /// A request's head was read.
    pub(super) fn open_request(self: &Arc<Self>) -> OpenRequest {
        let mut state = self.lock();
        state.open_requests += 1;
        state.waits_for = Awaited::NextRequest;
        OpenRequest { activity: Arc::clone(self), answered: false }
    }

    /// Waits until the connection has to end.
    pub(super) async fn over(&self) -> Over {
        loop {
            if let Some(over) = self.is_over() {
                return over;
            }
            // What the connection waits for may change meanwhile, but no limit that begins now ends before this.
            let soonest = Instant::now() + self.limits.header.min(self.limits.idle);
            let next = self.deadline().map_or(soonest, |(deadline, _)| deadline.min(soonest));
            tokio::select! {
                () = sleep_until(next) => {}
                () = self.too_many_given_up.notified() => return Over::GivenUp,
            }
        }
    }

    fn is_over(&self) -> Option<Over> {
        self.deadline().filter(|(deadline, _)| *deadline <= Instant::now()).map(|(_, over)| over)
    }

    fn deadline(&self) -> Option<(Instant, Over)> {
        let state = self.lock();
        let (limit, over) = match state.waits_for {
            Awaited::FirstRequest | Awaited::RestOfHead => (self.limits.header, Over::Header),
            Awaited::NextRequest => (self.limits.idle, Over::Idle),
        };
        (state.open_requests == 0).then_some((state.since + limit, over))
    }

    /// Bytes of the next request came, over HTTP/1.1.
    fn head_begins(&self) {
        let mut state = self.lock();
        if state.open_requests == 0 && state.waits_for == Awaited::NextRequest {
            state.waits_for = Awaited::RestOfHead;
            state.since = Instant::now();
        }
    }

    fn request_ended(&self, answered: bool) {
        let mut state = self.lock();
        let now = Instant::now();
        state.open_requests -= 1;
        if state.open_requests == 0 {
            state.since = now;
        }
        if !answered {
            state.debt_until = state.debt_until.max(now) + GIVEN_UP_COST;
            if state.debt_until - now > MOST_DEBT {
                self.too_many_given_up.notify_one();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenRequest {
    /// The head of the answer is there; the request is open until its body has ended.
    pub(super) fn answered(mut self, body: ResponseBody) -> OpenBody {
        self.answered = true;
        OpenBody { body, _request: self }
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.activity.request_ended(self.answered);
    }
}

/// The body of an open request's answer.
#[derive(Debug)]
pub(super) struct OpenBody {
    body: ResponseBody,
    _request: OpenRequest,
}

impl Body for OpenBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An HTTP/1.1 connection that notices when a request begins. hyper has one limit for the wait before a request and for
/// its head, and the former has to be longer.
#[derive(Debug)]
pub(super) struct Watched<T> {
    pub(super) io: T,
    pub(super) activity: Arc<Activity>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.activity.head_begins();
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
