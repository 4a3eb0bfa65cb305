//! Waits until a small answer is whole: one that breaks off before is no answer, so that the request can go elsewhere or the
//! client be told what became of it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::connect::STREAM_WINDOW;

/// The largest answer that is waited for; of one that its client does not read as much is held anyway.
const LARGEST: u64 = STREAM_WINDOW as u64;
/// Time for the body after the header; what is not whole by then is passed on as it comes.
const PATIENCE: Duration = Duration::from_secs(1);

/// An upstream's body, of which some may have been read.
#[derive(Debug)]
pub struct BegunBody {
    read: VecDeque<Frame<Bytes>>,
    rest: Incoming,
}

impl BegunBody {
    /// Waits for all of it where its length is known and small. A stream has no known length.
    ///
    /// # Errors
    /// When it breaks off.
    pub async fn whole_if_small(body: Incoming) -> Result<Self, hyper::Error> {
        let is_small = body.size_hint().exact().is_some_and(|length| length <= LARGEST);
        let mut this = Self::from(body);
        if is_small && let Ok(read) = timeout(PATIENCE, this.read()).await {
            read?;
        }
        Ok(this)
    }

    async fn read(&mut self) -> Result<(), hyper::Error> {
        while !self.rest.is_end_stream()
            && let Some(frame) = self.rest.frame().await
        {
            self.read.push_back(frame?);
        }
        Ok(())
    }

    /// All of it, if all of it was read and it is not longer than `limit`.
    pub fn if_whole(&self, limit: usize) -> Option<Vec<u8>> {
        let pieces = || self.read.iter().filter_map(Frame::data_ref);
        let fits = pieces().map(Bytes::len).sum::<usize>() <= limit;
        (fits && self.rest.is_end_stream()).then(|| pieces().flatten().copied().collect())
    }

    /// The upstream's own body.
    ///
    /// # Errors
    /// Gives itself back when some of it was read.
    pub fn untouched(self) -> Result<Incoming, Self> {
        if self.read.is_empty() { Ok(self.rest) } else { Err(self) }
    }
}

impl From<Incoming> for BegunBody {
    fn from(rest: Incoming) -> Self {
        Self { read: VecDeque::new(), rest }
    }
}

impl Body for BegunBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.read.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let read: usize = self.read.iter().filter_map(Frame::data_ref).map(Bytes::len).sum();
        let (read, rest) = (read as u64, self.rest.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + read);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + read);
        }
        hint
    }
}
