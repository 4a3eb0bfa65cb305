//! Carries responses through, and accounts for them when they end.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;

use super::pool::StreamGuard;
use super::watch::{Encoding, Farewell, Resume, WatchBody};
use super::whole::BegunBody;
use crate::account::RequestRecord;

/// A response's body on its way to a client.
#[derive(Debug)]
pub struct ResponseBody {
    source: Source,
    /// Closed when the body is dropped, whether it ended or was cut off.
    record: Option<RequestRecord>,
}

#[derive(Debug)]
enum Source {
    Own(Full<Bytes>),
    Upstream { body: BegunBody, guard: Option<StreamGuard> },
    Watch(Box<WatchBody>),
}

impl ResponseBody {
    /// A body the proxy made itself.
    pub fn full(bytes: Bytes) -> Self {
        Self::own(Full::new(bytes))
    }

    /// The body of an answer that is whole in memory.
    pub fn own(body: Full<Bytes>) -> Self {
        Self { source: Source::Own(body), record: None }
    }

    /// A body without content.
    pub fn empty() -> Self {
        Self::full(Bytes::new())
    }

    /// An upstream's body; `guard` holds its place on a pooled connection.
    pub fn upstream(body: impl Into<BegunBody>, guard: Option<StreamGuard>) -> Self {
        let mut this = Self { source: Source::Upstream { body: body.into(), guard }, record: None };
        this.note_end();
        this
    }

    /// The same body as a watch that goes on elsewhere when its upstream dies; see [`WatchBody::new`].
    #[must_use]
    pub fn followed(
        self,
        encoding: Encoding,
        from: Option<String>,
        resume: Resume,
        farewell: Farewell,
    ) -> Self {
        let source = match self.source {
            Source::Upstream { body, guard } => match body.untouched() {
                Ok(body) => {
                    Source::Watch(Box::new(WatchBody::new(body, guard, encoding, from, resume, farewell)))
                }
                Err(body) => Source::Upstream { body, guard },
            },
            source => source,
        };
        Self { source, record: self.record }
    }

    /// Takes an upstream's stream out again, with its place on the pooled connection.
    pub fn into_upstream(self) -> Option<(Incoming, Option<StreamGuard>)> {
        match self.source {
            Source::Upstream { body, guard } => Some((body.untouched().ok()?, guard)),
            Source::Own(_) | Source::Watch(_) => None,
        }
    }

    /// Ties the request's record to the end of this body.
    #[must_use]
    pub fn with_record(mut self, record: RequestRecord) -> Self {
        self.record = Some(record);
        self.note_end();
        self
    }

    /// A body that says it has ended is not polled again, so its end is noted as soon as it can be known.
    fn note_end(&mut self) {
        if self.is_end_stream() {
            self.ended();
        }
    }

    fn ended(&mut self) {
        let guard = match &mut self.source {
            Source::Upstream { guard, .. } => guard.as_mut(),
            Source::Watch(watch) => watch.guard_mut(),
            Source::Own(_) => None,
        };
        if let Some(guard) = guard {
            guard.finished();
        }
        if let Some(record) = &mut self.record {
            record.completed();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let polled = match &mut this.source {
            Source::Own(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Source::Upstream { body, .. } => Pin::new(body).poll_frame(cx),
            Source::Watch(watch) => watch.poll_frame(cx),
        };
        match &polled {
            Poll::Ready(Some(Ok(_))) => this.note_end(),
            Poll::Ready(Some(Err(_))) => {
                if let Some(record) = &mut this.record {
                    record.broke_off();
                }
            }
            Poll::Ready(None) => this.ended(),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(body) => body.is_end_stream(),
            Source::Upstream { body, .. } => body.is_end_stream(),
            Source::Watch(watch) => watch.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(body) => body.size_hint(),
            Source::Upstream { body, .. } => body.size_hint(),
            Source::Watch(_) => SizeHint::default(),
        }
    }
}
