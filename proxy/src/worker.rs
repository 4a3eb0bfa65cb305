//! Runs one worker: a thread, a runtime, a listener, and the heartbeat that tells the kernel the worker serves.

use std::net::TcpListener as StdTcpListener;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::accept::accept;
use crate::identity::TrustClass;
use crate::serve::{Worker, serve_connection};
use crate::steering::Heartbeat;
use crate::upstream::Role;

/// The kernel passes a worker over when its last beat is 1 s old; a loaded two-core node may stall for hundreds of ms.
const BEAT: Duration = Duration::from_millis(100);
/// Time that open requests get to end when the process drains.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(30);
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
/// At `limit` connections it neither accepts nor beats, so that the kernel leaves new connections to the API server.
async fn run(number: usize, limit: usize, listener: TcpListener, heartbeat: Heartbeat, worker: Arc<Worker>) {
    let drain = worker.shared.drain.clone();
    let mut changes = worker.shared.changes.clone();
    let connections = TaskTracker::new();
    let mut beats = interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut draining = false;
    loop {
        tokio::select! {
            _ = beats.tick() => if connections.len() < limit {
                heartbeat.beat();
            },
            Ok(()) = changes.changed() => follow_upstreams(&worker),
            accepted = accept(&listener), if connections.len() < limit => match accepted {
                Ok(accepted) => {
                    connections.spawn(serve_connection(Arc::clone(&worker), accepted));
                }
                Err(error) => {
                    warn!(%error, "connection not accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            () = drain.cancelled(), if !draining => {
                // The kernel steers no new connection here; those already in the queue are still served.
                draining = true;
            }
            () = sleep(QUEUE_GRACE), if draining => break,
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
