use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Wake, Waker};

use super::*;

/// Takes so many bytes each second time, and nothing in between; counts the writes that took some.
#[derive(Debug, Default)]
struct Narrow {
    takes: usize,
    is_full: bool,
    broken: bool,
    writes: usize,
    flushes: usize,
    taken: Vec<u8>,
}

impl AsyncWrite for Narrow {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.is_full = !self.is_full && self.takes < usize::MAX;
        if self.is_full {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let count = bytes.len().min(self.takes);
        self.taken.extend_from_slice(&bytes[..count]);
        self.writes += 1;
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = pieces.iter().flat_map(|piece| piece.iter().copied());
        let all: Vec<u8> = all.take(self.takes).collect();
        self.as_mut().poll_write(cx, &all)
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flushes += 1;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

/// Counts how often a task is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

fn narrow(takes: usize) -> (Corked<Narrow>, Cork<Narrow>) {
    cork(Narrow { takes, ..Narrow::default() })
}

fn write(corked: &mut Corked<Narrow>, cx: &mut Context<'_>, pieces: &[&[u8]]) -> Poll<io::Result<usize>> {
    let pieces: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    Pin::new(corked).poll_write_vectored(cx, &pieces)
}

#[test]
fn what_is_written_in_one_turn_leaves_at_its_end_in_one_piece() {
    let (mut corked, cork) = narrow(usize::MAX);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..10 {
        assert!(matches!(write(&mut corked, &mut cx, &[b"head", &[7; 1000]]), Poll::Ready(Ok(1004))));
        assert!(Pin::new(&mut corked).poll_flush(&mut cx).is_ready());
    }
    assert_eq!(lock(&cork.0).io.writes, 0);
    cork.let_go(&mut cx);
    cork.let_go(&mut cx);
    let state = lock(&cork.0);
    assert_eq!((state.io.taken.len(), state.io.writes, state.io.flushes), (10_040, 1, 1));
    assert_eq!(state.gathered.capacity(), 0, "an idle connection holds no memory");
}

#[test]
fn large_pieces_go_on_at_once_behind_what_was_gathered() {
    let (mut corked, cork) = narrow(usize::MAX);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(write(&mut corked, &mut cx, &[b"small"]).is_ready());
    assert!(
        matches!(write(&mut corked, &mut cx, &[b"head", &[7; MOST]]), Poll::Ready(Ok(length)) if length == MOST + 4)
    );
    let state = lock(&cork.0);
    assert_eq!((state.io.taken.len(), state.io.writes), (MOST + 9, 1));
    assert!(state.io.taken.starts_with(b"smallhead"));
}

#[test]
fn every_byte_arrives_in_order_however_little_is_taken() {
    for takes in [1, 7, 1000, MOST - 1, MOST, 5 * MOST] {
        for size in [1, 100, 4000, MOST - 1, MOST, MOST + 1, 3 * MOST] {
            if size / takes > 1000 {
                continue;
            }
            let (mut corked, cork) = narrow(takes);
            let mut cx = Context::from_waker(Waker::noop());
            let mut expected = Vec::new();
            for number in 0..4_u8 {
                let (head, body) = ([number; 9], vec![number + 100; size]);
                let frame: Vec<u8> = head.iter().copied().chain(body).collect();
                expected.extend_from_slice(&frame);
                let mut rest = &frame[..];
                while !rest.is_empty() {
                    let (head, body) = rest.split_at(rest.len().min(9));
                    match write(&mut corked, &mut cx, &[head, body]) {
                        Poll::Ready(written) => rest = &rest[written.unwrap()..],
                        // The turn of the connection ends here.
                        Poll::Pending => cork.let_go(&mut cx),
                    }
                }
            }
            let mut turns = 0;
            while lock(&cork.0).unflushed {
                cork.let_go(&mut cx);
                turns += 1;
                assert!(turns <= 2 * expected.len() + 2, "{takes} of {size}: nothing moves");
            }
            assert_eq!(lock(&cork.0).io.taken, expected, "{takes} of {size}");
        }
    }
}

#[test]
fn http_hears_of_a_broken_connection_and_gets_a_turn_for_it() {
    let (mut corked, cork) = narrow(usize::MAX);
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    assert!(write(&mut corked, &mut cx, &[b"lost"]).is_ready());
    lock(&cork.0).io.broken = true;
    cork.let_go(&mut cx);
    assert_eq!(woken.0.load(Relaxed), 1);
    for polled in [
        write(&mut corked, &mut cx, &[b"more"]).map_ok(drop),
        Pin::new(&mut corked).poll_flush(&mut cx),
        Pin::new(&mut corked).poll_shutdown(&mut cx),
    ] {
        assert!(matches!(polled, Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe));
    }
}

#[test]
fn a_shutdown_takes_along_what_was_gathered() {
    let (mut corked, cork) = narrow(3);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(write(&mut corked, &mut cx, &[b"goodbye"]).is_ready());
    while Pin::new(&mut corked).poll_shutdown(&mut cx).is_pending() {}
    assert_eq!(lock(&cork.0).io.taken, b"goodbye");
}

#[tokio::test]
async fn a_driven_connection_lets_go_before_it_waits_and_when_it_has_ended() {
    let (mut corked, cork) = narrow(4);
    let state = Arc::clone(&cork.0);
    let seen = Arc::clone(&state);
    let connection = std::future::poll_fn(move |cx| {
        let taken = lock(&seen).io.taken.len();
        if taken == 0 {
            assert!(write(&mut corked, cx, &[b"ping"]).is_ready());
            return Poll::Pending;
        }
        assert!(write(&mut corked, cx, &[b"pong"]).is_ready());
        Poll::Ready(())
    });
    // The narrow socket wakes the task when it takes more.
    Driven::new(connection, cork).await;
    let taken = lock(&state).io.taken.clone();
    assert!(taken.starts_with(b"ping"), "{taken:?}");
}
