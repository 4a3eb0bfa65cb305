//! Gathers what an HTTP/2 connection writes, so that one turn of it costs one TLS record and one system call.
//!
//! h2 flushes after each DATA frame; with TLS below it, that is a record and a `writev` for each answer. Here a flush is
//! only noted. Whoever drives the connection lets everything go after each of its turns, before it waits for anything.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use hyper::rt::Executor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is gathered at most: a TLS record. More goes on without being copied.
const MOST: usize = 16 * 1024;
/// Pieces that are written at once; h2 has two.
const PIECES: usize = 8;

/// What HTTP reads from and writes to.
#[derive(Debug)]
pub struct Corked<T>(Arc<Mutex<State<T>>>);

/// Lets go what was written.
///
/// One task drives a connection and waits for its socket, so no other may use this.
#[derive(Debug)]
pub struct Cork<T>(Arc<Mutex<State<T>>>);

#[derive(Debug)]
struct State<T> {
    io: T,
    /// Written by HTTP and not yet to `io`: what is behind `begin`.
    gathered: Vec<u8>,
    begin: usize,
    /// Whether `io` may hold something back.
    unflushed: bool,
    /// Why nothing can be written any more; HTTP hears of it when it writes or flushes next.
    broken: Option<io::ErrorKind>,
}

/// Both ends of a corked connection.
pub fn cork<T>(io: T) -> (Corked<T>, Cork<T>) {
    let state = State { io, gathered: Vec::new(), begin: 0, unflushed: false, broken: None };
    let state = Arc::new(Mutex::new(state));
    (Corked(Arc::clone(&state)), Cork(state))
}

impl<T: AsyncWrite + Unpin> Cork<T> {
    /// Lets go what was gathered, as far as the socket takes it; the task is woken when it takes more.
    pub fn let_go(&self, cx: &mut Context<'_>) {
        let mut state = lock(&self.0);
        if state.unflushed
            && let Poll::Ready(Err(error)) = state.poll_flush(cx)
        {
            state.broken = Some(error.kind());
            state.unflushed = false;
            // HTTP is waiting for something else.
            cx.waker().wake_by_ref();
        }
    }
}

/// A connection that lets go what it has written after each of its turns.
#[derive(Debug)]
pub struct Driven<C, T> {
    /// The connection.
    pub connection: Pin<Box<C>>,
    cork: Cork<T>,
}

impl<C, T> Driven<C, T> {
    /// Drives a connection that writes to the other end of `cork`.
    pub fn new(connection: C, cork: Cork<T>) -> Self {
        Self { connection: Box::pin(connection), cork }
    }
}

impl<C: Future, T: AsyncWrite + Unpin> Future for Driven<C, T> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        let polled = self.connection.as_mut().poll(cx);
        self.cork.let_go(cx);
        polled
    }
}

impl<T: AsyncWrite + Unpin> State<T> {
    fn held(&self) -> usize {
        self.gathered.len() - self.begin
    }

    fn release(&mut self) {
        // An idle connection holds no memory for this.
        (self.gathered, self.begin) = (Vec::new(), 0);
    }

    fn gather(&mut self, bytes: &[u8]) {
        if self.gathered.capacity() == 0 {
            self.gathered.reserve_exact(MOST);
        }
        self.gathered.extend_from_slice(bytes);
    }

    /// Writes what was gathered and `more`; says how much of `more` was taken.
    fn poll_write(&mut self, cx: &mut Context<'_>, more: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if let Some(kind) = self.broken {
            return Poll::Ready(Err(kind.into()));
        }
        self.unflushed = true;
        let length = more.iter().map(|piece| piece.len()).sum::<usize>();
        if self.gathered.len() + length <= MOST {
            for piece in more {
                self.gather(piece);
            }
            return Poll::Ready(Ok(length));
        }
        while self.held() > 0 {
            let mut pieces = [IoSlice::new(&[]); PIECES];
            pieces[0] = IoSlice::new(&self.gathered[self.begin..]);
            for (piece, more) in pieces[1..].iter_mut().zip(more) {
                *piece = *more;
            }
            let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &pieces))?;
            let taken = written.saturating_sub(self.held());
            self.written(written)?;
            if taken > 0 {
                return Poll::Ready(Ok(taken));
            }
        }
        Pin::new(&mut self.io).poll_write_vectored(cx, more)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(kind) = self.broken {
            return Poll::Ready(Err(kind.into()));
        }
        while self.held() > 0 {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.gathered[self.begin..]))?;
            self.written(written)?;
        }
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    fn written(&mut self, count: usize) -> io::Result<()> {
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.begin = (self.begin + count).min(self.gathered.len());
        if self.held() == 0 {
            self.release();
        }
        Ok(())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Corked<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).io).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Corked<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        lock(&self.0).poll_write(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        lock(&self.0).poll_write(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.0).broken.map_or(Poll::Ready(Ok(())), |kind| Poll::Ready(Err(kind.into())))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.0);
        ready!(state.poll_flush(cx))?;
        Pin::new(&mut state.io).poll_shutdown(cx)
    }
}

/// Spawns what hyper has to run for one HTTP/2 connection to a server.
#[derive(Debug)]
pub struct CorkExecutor<T> {
    /// For the first future, which is the connection itself; the others only hand it requests and bodies.
    cork: Arc<Mutex<Option<Cork<T>>>>,
}

impl<T> CorkExecutor<T> {
    /// For one connection.
    pub fn new(cork: Cork<T>) -> Self {
        Self { cork: Arc::new(Mutex::new(Some(cork))) }
    }
}

impl<T> Clone for CorkExecutor<T> {
    fn clone(&self) -> Self {
        Self { cork: Arc::clone(&self.cork) }
    }
}

impl<T, F> Executor<F> for CorkExecutor<T>
where
    T: AsyncWrite + Unpin + Send + 'static,
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        match lock(&self.cork).take() {
            Some(cork) => drop(tokio::spawn(Driven::new(future, cork))),
            None => drop(tokio::spawn(future)),
        }
    }
}

/// Locks what one thread uses at a time.
fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
