//! Continues a watch on another server when its upstream dies, unseen by the client.
//!
//! Events are passed on whole, so that a new stream can begin after the last one. Nothing is parsed before that is
//! needed. A stream that the server ends in order is ended for the client too, and one that cannot be continued breaks
//! off for the client as it did for the proxy. When the process drains every stream is ended in order, after an event, as
//! kube-apiserver ends watches whose time is over.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame};
use hyper::body::Incoming;
use tracing::debug;

use super::pool::StreamGuard;
use crate::account::RequestRecord;

pub mod event;
mod splitter;

pub use event::Encoding;
use splitter::Splitter;

/// Times a stream is continued without an event in between.
const CONTINUATIONS: u32 = 3;

/// Opens a stream that begins after a resourceVersion.
pub type Resume = Arc<dyn Fn(String) -> Pin<Box<dyn Future<Output = Resumed> + Send>> + Send + Sync>;

/// When the proxy itself ends a stream.
pub type Farewell = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What came of continuing a watch.
#[derive(Debug)]
pub enum Resumed {
    /// A stream that begins where the last one broke off.
    Stream {
        /// The stream.
        body: Incoming,
        /// Its place on a pooled connection.
        guard: Option<StreamGuard>,
        /// Its own record: another server carries the watch now.
        record: Box<RequestRecord>,
    },
    /// The version is too old: the client has to list again, which it does when its stream ends.
    Expired,
    /// No server continues it.
    Failed,
}

/// A watch's body.
pub struct WatchBody {
    source: Incoming,
    guard: Option<StreamGuard>,
    splitter: Splitter,
    /// Where the client's own request began.
    from: Option<String>,
    resume: Resume,
    farewell: Farewell,
    /// Of the stream that continues the client's first one.
    record: Option<Box<RequestRecord>>,
    resuming: Option<Resuming>,
    continuations: u32,
    ended: bool,
}

struct Resuming {
    attempt: Pin<Box<dyn Future<Output = Resumed> + Send>>,
    /// What the client gets when the attempt fails.
    broken: hyper::Error,
}

impl WatchBody {
    /// Follows a stream that began after `from`, when the client named a version to begin after, until it ends or
    /// `farewell` does.
    pub fn new(
        source: Incoming,
        guard: Option<StreamGuard>,
        encoding: Encoding,
        from: Option<String>,
        resume: Resume,
        farewell: Farewell,
    ) -> Self {
        let splitter = Splitter::new(encoding, from.is_some());
        Self {
            source,
            guard,
            splitter,
            from,
            resume,
            farewell,
            record: None,
            resuming: None,
            continuations: 0,
            ended: false,
        }
    }

    /// The next piece for the client; `None` at the end of the stream.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        loop {
            if self.ended {
                return Poll::Ready(None);
            }
            if let Some(resuming) = &mut self.resuming {
                let resumed = ready!(resuming.attempt.as_mut().poll(cx));
                if let Some(error) = self.take_over(resumed) {
                    return Poll::Ready(Some(Err(error)));
                }
                continue;
            }
            let Poll::Ready(frame) = Pin::new(&mut self.source).poll_frame(cx) else {
                return self.poll_farewell(cx);
            };
            match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let events = self.splitter.push(data);
                        if !events.is_empty() {
                            self.continuations = 0;
                            return Poll::Ready(Some(Ok(Frame::data(events))));
                        }
                    }
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Some(Err(error)) => {
                    if let Some(error) = self.begin_resuming(error) {
                        return Poll::Ready(Some(Err(error)));
                    }
                }
                None => {
                    self.end();
                    let rest = self.splitter.rest();
                    if !rest.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(rest))));
                    }
                }
            }
        }
    }

    /// Ends the stream when it is time to, and nothing of an event is on its way.
    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if !self.splitter.is_between_events() {
            return Poll::Pending;
        }
        ready!(self.farewell.as_mut().poll(cx));
        // The upstream's stream goes on: its connection is no good for others.
        self.guard = None;
        self.end();
        Poll::Ready(None)
    }

    /// Whether the stream has ended; unlike for other bodies this is known only once it was polled to its end.
    pub fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn end(&mut self) {
        self.ended = true;
        if let Some(record) = &mut self.record {
            record.completed();
        }
    }

    /// Tries to go on after an error; gives it back when that is not possible.
    fn begin_resuming(&mut self, broken: hyper::Error) -> Option<hyper::Error> {
        let version = self.splitter.resume_after(self.from.as_deref());
        let Some(version) = version.filter(|_| self.continuations < CONTINUATIONS) else {
            return Some(broken);
        };
        self.continuations += 1;
        debug!(version, "a watch's upstream died; continuing it");
        self.resuming = Some(Resuming { attempt: (self.resume)(version), broken });
        None
    }

    /// Goes on with what came of the attempt; gives the error back when nothing did.
    fn take_over(&mut self, resumed: Resumed) -> Option<hyper::Error> {
        let resuming = self.resuming.take()?;
        match resumed {
            Resumed::Stream { body: source, guard, record } => {
                // What came of an event before the break comes again, whole.
                self.splitter.rest();
                self.source = source;
                self.guard = guard;
                self.record = Some(record);
                None
            }
            Resumed::Expired => {
                self.ended = true;
                None
            }
            Resumed::Failed => Some(resuming.broken),
        }
    }

    /// The place on the pooled connection, to be returned when the stream has ended.
    pub fn guard_mut(&mut self) -> Option<&mut StreamGuard> {
        self.guard.as_mut()
    }
}

impl fmt::Debug for WatchBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchBody")
            .field("from", &self.from)
            .field("continuations", &self.continuations)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
