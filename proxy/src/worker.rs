//! Runs one worker: a thread, a runtime, a listener, and the heartbeat that tells the kernel the worker serves.

use std::io;
use std::net::TcpListener as StdTcpListener;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::accept::{Accepted, accept};
use crate::forward::splice::splice;
use crate::limits::{DRAIN_LIMIT, Sources};
use crate::metrics::Ended;
use crate::serve::{Worker, serve_connection};
use crate::steering::{Heartbeat, Pause};
use crate::upstream::{Role, TrustClass};

/// The kernel passes a worker over when its last beat is 1 s old; a loaded two-core node may stall for hundreds of ms.
const BEAT: Duration = Duration::from_millis(100);
/// Longest time a draining worker takes connections off its queue; with steering off new ones may come without end.
const QUEUE_LIMIT: Duration = Duration::from_secs(1);
/// Connections beyond its limit that a worker hands on to the API server; further ones it closes.
const PASSED_ON: usize = 64;
/// How many of them may come from one source.
const PASSED_ON_PER_SOURCE: NonZeroU32 = NonZeroU32::new(16).expect("not zero");
/// Time without a heartbeat after `accept` failed.
const RECOVERY: Duration = Duration::from_secs(1);
/// Pause after `accept` failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Starts a worker's thread, which ends once the process has drained.
///
/// # Errors
/// When no thread can be started.
pub fn start(
    number: usize,
    limit: usize,
    listener: Arc<StdTcpListener>,
    heartbeat: Heartbeat,
    worker: Worker,
) -> io::Result<JoinHandle<io::Result<()>>> {
    thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
        // However this thread ends, the process does not go on with a worker less.
        let _ends_the_process = worker.shared.drain.clone().drop_guard();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let listener = Listener::new(listener)?;
            run(number, limit, listener, heartbeat, Arc::new(worker)).await;
            Ok(())
        })
    })
}

/// Accepts and serves. The heartbeat comes from this very loop: a worker that does not get to it does not serve.
///
/// At `limit` connections, or without descriptors for another, it stops the heartbeat at once, so that the kernel leaves
/// new connections to the API server; those that were steered already are handed on to it untouched.
async fn run(number: usize, limit: usize, listener: Listener, heartbeat: Heartbeat, worker: Arc<Worker>) {
    let drain = worker.shared.drain.clone();
    let mut changes = worker.shared.changes.clone();
    let connections = TaskTracker::new();
    let overflow = Overflow::new(Arc::clone(&worker));
    let mut beats = interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut queue_end: Option<Instant> = None;
    let mut failed_at: Option<Instant> = None;
    let mut paused: Option<Pause> = None;
    let open = || connections.len() + worker.pool.upgraded().len();
    loop {
        let pause = pause_for(open(), limit, failed_at, paused);
        if let Some(why) = pause {
            heartbeat.pause(why);
        }
        report(number, paused, pause);
        paused = pause;
        tokio::select! {
            biased;
            // The kernel steers no new connection here; those already in the queue are still served.
            () = drain.cancelled(), if queue_end.is_none() => queue_end = Some(Instant::now() + QUEUE_LIMIT),
            Ok(()) = changes.changed() => follow_upstreams(&worker),
            turn = next_turn(&listener.accepting, &mut beats) => match turn {
                Turn::Beat if pause.is_none() => heartbeat.beat(),
                Turn::Beat => {}
                Turn::Accepted(Ok(accepted)) if open() >= limit => overflow.take(accepted),
                Turn::Accepted(Ok(accepted)) => {
                    connections.spawn(serve_connection(Arc::clone(&worker), accepted));
                }
                Turn::Accepted(Err(error)) => {
                    warn!(%error, "connection not accepted; new ones are left to the API server");
                    failed_at = Some(Instant::now());
                    heartbeat.pause(Pause::CannotAccept);
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            () = sleep(QUEUE_GRACE), if queue_end.is_some() => break,
        }
        if queue_end.is_some_and(|end| end <= Instant::now()) {
            break;
        }
    }
    drop(listener);
    drained(number, &connections, worker.pool.upgraded()).await;
}

/// A listener that is open for as long as this lives, and no longer.
struct Listener {
    accepting: TcpListener,
    /// By which it can be put into its slot again.
    _shared: Arc<StdTcpListener>,
}

impl Listener {
    fn new(listener: Arc<StdTcpListener>) -> io::Result<Self> {
        Ok(Self { accepting: TcpListener::from_std(listener.try_clone()?)?, _shared: listener })
    }
}

/// One turn of a worker's loop.
#[derive(Debug)]
enum Turn {
    Accepted(io::Result<Accepted>),
    Beat,
}

/// Waits for the next connection or beat. Connections go first: a worker that never gets to the end of its queue does not
/// keep up, and must not look as if it did. A full queue drops clients' SYNs.
async fn next_turn(listener: &TcpListener, beats: &mut Interval) -> Turn {
    tokio::select! {
        biased;
        accepted = accept(listener) => Turn::Accepted(accepted),
        _ = beats.tick() => Turn::Beat,
    }
}

/// Why a worker takes no new connections, if it does not. Once at its limit it waits for a sixteenth of its places to be
/// free.
fn pause_for(open: usize, limit: usize, failed_at: Option<Instant>, paused: Option<Pause>) -> Option<Pause> {
    let most = if paused == Some(Pause::AtLimit) { limit - limit / 16 } else { limit };
    if open >= most {
        return Some(Pause::AtLimit);
    }
    failed_at.filter(|at| at.elapsed() < RECOVERY).map(|_| Pause::CannotAccept)
}

/// Logs when a worker begins or ends to leave new connections to others.
fn report(worker: usize, before: Option<Pause>, now: Option<Pause>) {
    match now {
        _ if before == now => {}
        Some(why) => warn!(worker, ?why, "takes no new connections"),
        None => info!(worker, "takes new connections again"),
    }
}

/// Waits for open connections to end.
async fn drained(number: usize, connections: &TaskTracker, upgraded: &TaskTracker) {
    connections.close();
    upgraded.close();
    let open = || connections.len() + upgraded.len();
    info!(worker = number, open = open(), "draining");
    // In this order: a connection hands what it was upgraded to over before it ends.
    let drained = async {
        connections.wait().await;
        upgraded.wait().await;
    };
    if timeout(DRAIN_LIMIT, drained).await.is_err() {
        warn!(worker = number, open = open(), "connections cut at the end of the drain");
    }
}

/// Connections beyond a worker's limit: those that the kernel had steered already. On the own listener there may be any
/// number of them.
struct Overflow {
    worker: Arc<Worker>,
    passed: TaskTracker,
    /// Of the own node a few as well: nobody takes all places.
    sources: Arc<Sources>,
}

impl Overflow {
    fn new(worker: Arc<Worker>) -> Self {
        Self {
            worker,
            passed: TaskTracker::new(),
            sources: Arc::new(Sources::new(Some(PASSED_ON_PER_SOURCE))),
        }
    }

    /// Hands a connection on to the API server as if it had never been steered, or closes it.
    fn take(&self, accepted: Accepted) {
        let shared = &self.worker.shared;
        let Some(place) = shared.sources.enter(accepted.source()) else {
            return shared.metrics.connection_ended(Ended::SourceLimit);
        };
        let share = self.sources.enter(Some(accepted.client.ip()));
        if share.is_none() || self.passed.len() >= PASSED_ON {
            return shared.metrics.connection_ended(Ended::Limit);
        }
        shared.metrics.connection_ended(Ended::PassedOn);
        let worker = Arc::clone(&self.worker);
        self.passed.spawn(async move {
            let _places = (place, share);
            splice(worker.pool.dialer(), &worker.shared.local, accepted.io, &[]).await;
        });
    }
}

/// Opens connections to new peers before the first request needs them, and forgets those to peers that left.
fn follow_upstreams(worker: &Worker) {
    let upstreams = worker.shared.snapshot.load().upstreams().to_vec();
    worker.pool.keep_only(&upstreams);
    for upstream in upstreams.iter().filter(|upstream| upstream.role == Role::Peer) {
        worker.pool.warm_up(upstream, TrustClass::Asserted);
    }
}

/// A drained listener is closed when no connection came for this long: closing it earlier would reset those in its queue.
const QUEUE_GRACE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpStream};

    use super::*;
    use crate::accept::listen;

    #[tokio::test]
    async fn a_worker_does_not_beat_before_the_end_of_its_queue() {
        // More than one poll may take: tokio ends it after 128 of anything.
        const QUEUED: usize = 300;
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into(), false).unwrap();
        let address = listener.local_addr().unwrap();
        let _clients: Vec<_> = (0..QUEUED).map(|_| TcpStream::connect(address).unwrap()).collect();
        let listener = TcpListener::from_std(listener).unwrap();
        let mut beats = interval(Duration::from_millis(1));
        for taken in 0..QUEUED {
            let turn = next_turn(&listener, &mut beats).await;
            assert!(matches!(turn, Turn::Accepted(Ok(_))), "after {taken}: {turn:?}");
        }
        assert!(matches!(next_turn(&listener, &mut beats).await, Turn::Beat));
    }

    #[test]
    fn a_worker_at_its_limit_waits_for_some_places_to_be_free() {
        let at_limit = Some(Pause::AtLimit);
        assert_eq!(pause_for(31, 32, None, None), None);
        assert_eq!(pause_for(32, 32, None, None), at_limit);
        assert_eq!(pause_for(31, 32, None, at_limit), at_limit);
        assert_eq!(pause_for(29, 32, None, at_limit), None);
        assert_eq!(pause_for(1, 1, None, at_limit), at_limit);
        assert_eq!(pause_for(0, 1, None, at_limit), None);
        assert_eq!(pause_for(0, 32, Some(Instant::now()), None), Some(Pause::CannotAccept));
    }
}
