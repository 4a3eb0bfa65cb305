//! Lets a request's body be sent a second time, as long as it is small.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// Bytes that are kept for a second try. Nearly all API writes are smaller; a larger one is sent once.
const TAPE_LIMIT: usize = 128 * 1024;

/// A client's body, streamed, of which the beginning is kept.
#[derive(Debug)]
pub struct ReplayBody {
    tape: Arc<Mutex<Tape>>,
    /// Which try this is; only the newest may take from the client.
    take: usize,
    /// Next piece of the tape to play.
    position: usize,
    hint: SizeHint,
}

/// What remains of the ability to start again.
#[derive(Clone, Debug)]
pub struct Replay(Arc<Mutex<Tape>>);

#[derive(Debug)]
struct Tape {
    source: Incoming,
    pieces: Vec<Bytes>,
    length: usize,
    /// Set when something went by that is not on the tape.
    torn: bool,
    take: usize,
    hint: SizeHint,
}

impl ReplayBody {
    /// Puts a client's body on tape.
    pub fn new(source: Incoming) -> (Self, Replay) {
        let hint = source.size_hint();
        let tape = Tape { source, pieces: Vec::new(), length: 0, torn: false, take: 0, hint };
        let tape = Arc::new(Mutex::new(tape));
        (Self { tape: Arc::clone(&tape), take: 0, position: 0, hint }, Replay(tape))
    }
}

impl Replay {
    /// The body from its beginning, unless too much of it has gone by. Bodies handed out before never end.
    pub fn again(&self) -> Option<ReplayBody> {
        let mut tape = lock(&self.0);
        if tape.torn {
            return None;
        }
        tape.take += 1;
        let hint = tape.hint;
        Some(ReplayBody { tape: Arc::clone(&self.0), take: tape.take, position: 0, hint })
    }
}

impl Body for ReplayBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let mut tape = lock(&this.tape);
        if tape.take != this.take {
            // A later try took over. Whoever still reads this one must not take its end for the end of the body.
            return Poll::Pending;
        }
        if let Some(piece) = tape.pieces.get(this.position) {
            this.position += 1;
            return Poll::Ready(Some(Ok(Frame::data(piece.clone()))));
        }
        let polled = Pin::new(&mut tape.source).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            match frame.data_ref() {
                Some(piece) if !tape.torn && tape.length + cost(piece) <= TAPE_LIMIT => {
                    tape.length += cost(piece);
                    let piece = piece.clone();
                    tape.pieces.push(piece);
                    this.position += 1;
                }
                _ => tape.tear(),
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let tape = lock(&self.tape);
        self.position >= tape.pieces.len() && tape.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.position == 0 { self.hint } else { SizeHint::default() }
    }
}

impl Tape {
    /// Gives up starting again and the memory it takes; only the current try reads on.
    fn tear(&mut self) {
        self.torn = true;
        self.pieces = Vec::new();
    }
}

/// What a piece takes: many small ones must not take many times the limit.
fn cost(piece: &Bytes) -> usize {
    piece.len() + 4 * size_of::<Bytes>()
}

fn lock(tape: &Mutex<Tape>) -> MutexGuard<'_, Tape> {
    tape.lock().unwrap_or_else(PoisonError::into_inner)
}
