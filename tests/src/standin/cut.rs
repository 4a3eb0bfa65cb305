//! Ends a response body early, or never.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::respond::Body;

/// Long enough for what came before to be flushed; hyper forgets unsent bytes when a body fails.
const FLUSH: Duration = Duration::from_millis(50);

/// A body that fails or stops after its first bytes but announces its whole length.
pub(super) struct Cut {
    body: Body,
    left: usize,
    announced: SizeHint,
    then: Then,
    breaking: Option<Pin<Box<Sleep>>>,
}

/// What comes after the first bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// An error.
    Break,
    /// Nothing, for ever.
    Stall,
}

impl Cut {
    pub(super) fn new(body: Body, after: usize, then: Then) -> Self {
        let announced = body.size_hint();
        Self { body, left: after, announced, then, breaking: None }
    }
}

impl http_body::Body for Cut {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left > 0 && self.breaking.is_none() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let mut data = frame.into_data().unwrap_or_default();
                    data.truncate(self.left);
                    self.left -= data.len();
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {}
            }
        }
        if self.then == Then::Stall {
            return Poll::Pending;
        }
        let breaking = self.breaking.get_or_insert_with(|| Box::pin(sleep(FLUSH)));
        ready!(breaking.as_mut().poll(cx));
        Poll::Ready(Some(Err(io::Error::other("an injected fault cut the body"))))
    }

    fn size_hint(&self) -> SizeHint {
        self.announced
    }
}
