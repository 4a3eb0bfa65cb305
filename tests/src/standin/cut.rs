//! Breaks a response body off after some bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use super::respond::Body;

/// A body that fails after its first bytes but announces its whole length.
pub(super) struct Cut {
    body: Body,
    left: usize,
    announced: SizeHint,
}

impl Cut {
    pub(super) fn new(body: Body, after: usize) -> Self {
        let announced = body.size_hint();
        Self { body, left: after, announced }
    }
}

impl http_body::Body for Cut {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let broken = || Poll::Ready(Some(Err(io::Error::other("an injected fault cut the body"))));
        if self.left == 0 {
            return broken();
        }
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                let mut data = frame.into_data().unwrap_or_default();
                data.truncate(self.left);
                self.left -= data.len();
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None => broken(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.announced
    }
}
