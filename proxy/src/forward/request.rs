//! Carries requests' bodies through.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::replay::ReplayBody;

/// A request's body on its way to an upstream.
#[derive(Debug)]
pub enum RequestBody {
    /// The client's, streamed.
    Client(ReplayBody),
    /// None.
    Empty,
}

/// Ends a body before its trailers (RFC 9110 section 6.5.1 leaves that to us): no API server reads any, and nobody has
/// looked whether one speaks for somebody.
fn without_trailers<E>(frame: Option<Result<Frame<Bytes>, E>>) -> Option<Result<Frame<Bytes>, E>> {
    frame.filter(|frame| !frame.as_ref().is_ok_and(Frame::is_trailers))
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            RequestBody::Client(body) => Pin::new(body).poll_frame(cx).map(without_trailers),
            RequestBody::Empty => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Client(body) => body.is_end_stream(),
            RequestBody::Empty => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Client(body) => body.size_hint(),
            RequestBody::Empty => SizeHint::with_exact(0),
        }
    }
}
