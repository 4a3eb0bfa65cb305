//! Runs one worker: a thread, a runtime, a listener, and the heartbeat that tells the kernel the worker serves.

use std::net::TcpListener as StdTcpListener;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::accept::{Accepted, accept};
use crate::forward::splice::splice;
use crate::serve::{Worker, serve_connection};
use crate::steering::Heartbeat;
use crate::upstream::{Role, TrustClass};

/// The kernel passes a worker over when its last beat is 1 s old; a loaded two-core node may stall for hundreds of ms.
const BEAT: Duration = Duration::from_millis(100);
/// Time that open requests get to end when the process drains.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(30);
/// Longest time a draining worker takes connections off its queue; with steering off new ones may come without end.
const QUEUE_LIMIT: Duration = Duration::from_secs(1);
/// Connections beyond its limit that a worker hands on to the API server; further ones it closes.
const PASSED_ON: usize = 64;
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
    listener: StdTcpListener,
    heartbeat: Heartbeat,
    worker: Worker,
) -> std::io::Result<JoinHandle<std::io::Result<()>>> {
    thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
        // However this thread ends, the process does not go on with a worker less.
        let _ends_the_process = worker.shared.drain.clone().drop_guard();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            run(number, limit, TcpListener::from_std(listener)?, heartbeat, Arc::new(worker)).await;
            Ok(())
        })
    })
}

/// Accepts and serves. The heartbeat comes from this very loop: a worker that does not get to it does not serve.
///
/// At `limit` connections, or without descriptors for another, it stops the heartbeat at once, so that the kernel leaves
/// new connections to the API server; those that were steered already are handed on to it untouched.
async fn run(number: usize, limit: usize, listener: TcpListener, heartbeat: Heartbeat, worker: Arc<Worker>) {
    let drain = worker.shared.drain.clone();
    let mut changes = worker.shared.changes.clone();
    let connections = TaskTracker::new();
    let passed = TaskTracker::new();
    let mut beats = interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut queue_end: Option<Instant> = None;
    let mut failed_at: Option<Instant> = None;
    loop {
        let overloaded = connections.len() + worker.pool.upgraded().len() >= limit;
        let recovering = failed_at.is_some_and(|at| at.elapsed() < RECOVERY);
        if overloaded || recovering {
            heartbeat.pause();
        }
        tokio::select! {
            _ = beats.tick() => if !overloaded && !recovering {
                heartbeat.beat();
            },
            Ok(()) = changes.changed() => follow_upstreams(&worker),
            accepted = accept(&listener) => match accepted {
                // Those that the kernel had steered already; on the own listener there may be any number of others.
                Ok(accepted) if overloaded => {
                    if passed.len() < PASSED_ON {
                        passed.spawn(pass_on(Arc::clone(&worker), accepted));
                    }
                }
                Ok(accepted) => drop(connections.spawn(serve_connection(Arc::clone(&worker), accepted))),
                Err(error) => {
                    warn!(%error, "connection not accepted; new ones are left to the API server");
                    failed_at = Some(Instant::now());
                    heartbeat.pause();
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            // The kernel steers no new connection here; those already in the queue are still served.
            () = drain.cancelled(), if queue_end.is_none() => queue_end = Some(Instant::now() + QUEUE_LIMIT),
            () = sleep(QUEUE_GRACE), if queue_end.is_some() => break,
        }
        if queue_end.is_some_and(|end| end <= Instant::now()) {
            break;
        }
    }
    drop(listener);
    connections.close();
    let upgraded = worker.pool.upgraded();
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

/// Hands a connection on to the API server as if it had never been steered.
async fn pass_on(worker: Arc<Worker>, accepted: Accepted) {
    let Some(_place) = worker.shared.sources.enter(accepted.client.ip()) else { return };
    splice(worker.pool.dialer(), &worker.shared.local, accepted.io, &[]).await;
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
