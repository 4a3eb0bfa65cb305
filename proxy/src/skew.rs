//! Switches steering on and off with what the API servers serve.

use std::net::{IpAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info};

use crate::causes::chain;
use crate::config::SteeringMode;
use crate::cut::Cutter;
use crate::discovery::Snapshot;
use crate::dismissal::Dismissal;
use crate::steering::{Steering, SteeringError};
use crate::upstream::{Role, Upstream};
use crate::vitals::Vitals;

/// Pause before a switch that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How often the local API server's condition is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Time for which steering goes on after the local API server failed last: one that starts may fail again.
const RECOVERY: Duration = Duration::from_secs(5);

/// How often it is looked whether connections have passed by since clients were moved.
const AFTERCARE: Duration = Duration::from_secs(5);

/// Longest time for which a proxy that is being replaced goes on serving while this one does not know every server.
const HANDOVER: Duration = Duration::from_secs(5);

/// Takes the kernel's slots and switches its mode word; an operator may do the latter too.
#[derive(Debug)]
pub struct SkewFollower {
    /// When to steer.
    pub mode: SteeringMode,
    /// Where to switch.
    pub steering: Arc<Steering>,
    /// What the API servers serve.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// The workers' listeners, in their order; empty once they are in the slots.
    pub listeners: Vec<TcpListener>,
    /// What was done last.
    pub aim: Aim,
    /// This node's API server, if peers answer while it cannot (`--local-failover`).
    pub local: Option<Upstream>,
    /// How every API server does.
    pub vitals: Arc<Vitals>,
    /// What cuts connections made before the skew, and says how many clients may be moved each second.
    pub cutter: Option<Arc<Cutter>>,
    /// What tells steered clients to leave.
    pub dismissal: Arc<Dismissal>,
    /// Moves clients, to the proxy or back.
    pub at_work: Option<AbortOnDropHandle<()>>,
    /// Peers whose proxies' requests pass by source port.
    pub lane_peers: Vec<IpAddr>,
    /// Connections that went to the API server for want of a live worker.
    pub passed: Passed,
    /// When the process began.
    pub begun: Instant,
    /// When the local API server was last seen to fail.
    pub local_failed: Option<Instant>,
}

impl SkewFollower {
    /// Runs until the snapshot's writer is gone.
    pub async fn run(mut self, mut changes: watch::Receiver<()>) {
        loop {
            let alive = match self.follow() {
                Ok(()) if self.follows_local() || self.is_expected() => {
                    timeout(LOOK, changes.changed()).await.map_or(true, |changed| changed.is_ok())
                }
                Ok(()) if self.aim.moves_in() => {
                    timeout(AFTERCARE, changes.changed()).await.map_or(true, |changed| changed.is_ok())
                }
                Ok(()) => changes.changed().await.is_ok(),
                Err(source) => {
                    error!(error = chain(&source), "steering not switched");
                    // An error is tried again, whether or not anything changes.
                    sleep(RETRY).await;
                    changes.has_changed().is_ok()
                }
            };
            if !alive {
                return;
            }
        }
    }

    /// Brings the kernel in line with the snapshot. The slots are taken only when there is something to steer for: a
    /// process that is being replaced serves until this one can.
    fn follow(&mut self) -> Result<(), SteeringError> {
        self.note_peers()?;
        let aim = self.wanted();
        if aim.steers != self.aim.steers {
            self.switch(aim.steers)?;
        }
        if aim != self.aim {
            self.aim = aim;
            let now = self.steering.stats().map_or(0, |stats| stats.failed_open());
            self.passed = Passed { seen: now, moved: now };
            self.move_clients();
        } else if aim.moves_in() && self.has_been_passed_by() {
            self.move_clients();
        }
        Ok(())
    }

    /// Whether connections have failed open since clients were moved, and no more do: a proxy that hung, or was not there,
    /// would else be without these clients for as long as their connections live.
    fn has_been_passed_by(&mut self) -> bool {
        let Some(stats) = self.steering.stats() else { return false };
        let is_at_work = self.at_work.as_ref().is_some_and(|task| !task.is_finished());
        let has_settled = std::mem::replace(&mut self.passed.seen, stats.failed_open()) == self.passed.seen;
        let is_news = self.passed.seen != self.passed.moved;
        if has_settled && is_news && !is_at_work {
            self.passed.moved = self.passed.seen;
            return true;
        }
        false
    }

    fn note_peers(&mut self) -> Result<(), SteeringError> {
        let snapshot = self.snapshot.load();
        let peers = snapshot.upstreams().iter().filter(|upstream| upstream.role == Role::Peer);
        let peers: Vec<_> = peers.map(|peer| peer.address.ip()).collect();
        if peers != self.lane_peers {
            self.steering.set_lane_peers(&peers)?;
            self.lane_peers = peers;
        }
        Ok(())
    }

    fn switch(&mut self, steers: bool) -> Result<(), SteeringError> {
        if steers && !self.listeners.is_empty() {
            let sockets: Vec<_> = self.listeners.iter().map(AsFd::as_fd).collect();
            self.steering.register(&sockets)?;
            drop(sockets);
            // A worker that ends must leave its slot empty.
            self.listeners.clear();
        }
        self.steering.set_steering(steers)?;
        info!(steers, "steering");
        Ok(())
    }

    /// Has clients that are connected already follow.
    fn move_clients(&mut self) {
        let Some(cutter) = &self.cutter else { return };
        // Whoever was on the way in the other direction is not any more.
        self.at_work = match self.aim {
            Aim { steers: true, is_skewed: true } => {
                Some(tokio::spawn(Arc::clone(cutter).run(self.lane_peers.clone())))
            }
            // An API server that fails lets go of its clients itself.
            Aim { steers: true, is_skewed: false } => None,
            Aim { steers: false, .. } => {
                let (dismissal, per_second) = (Arc::clone(&self.dismissal), cutter.per_second());
                Some(tokio::spawn(async move { dismissal.all(per_second).await }))
            }
        }
        .map(AbortOnDropHandle::new);
    }

    /// Whether the local API server's condition has a say.
    fn follows_local(&self) -> bool {
        self.mode == SteeringMode::OnSkew && self.local.is_some()
    }

    /// Whether a peer has to stand in for the local API server, or had to a moment ago.
    fn local_fails(&mut self, peers: usize) -> bool {
        let Some(local) = self.local.filter(|_| peers > 0) else { return false };
        if !self.vitals.is_healthy(&local) {
            self.local_failed = Some(Instant::now());
        }
        self.local_failed.is_some_and(|failed| failed.elapsed() < RECOVERY)
    }

    /// Whether the slots were not taken yet, and a process that has them may be left in charge for a while.
    fn is_expected(&self) -> bool {
        !self.aim.steers && !self.listeners.is_empty() && self.begun.elapsed() < HANDOVER
    }

    /// Whether another process has slots. It knows every server, while this one would have to say that it does not know yet
    /// who serves a resource.
    fn predecessor_serves(&self) -> bool {
        let state = self.steering.state();
        state.steering && state.foreign_listeners > 0
    }

    fn wanted(&mut self) -> Aim {
        let snapshot = self.snapshot.load_full();
        let is_skewed = snapshot.is_skewed();
        let steers = snapshot.is_synced()
            && !(self.is_expected() && self.predecessor_serves() && !snapshot.unknown().is_empty())
            && match self.mode {
                SteeringMode::Auto | SteeringMode::Always => true,
                SteeringMode::OnSkew => is_skewed || self.local_fails(snapshot.peers()),
                SteeringMode::Off => false,
            };
        Aim { steers, is_skewed }
    }
}

/// What is to be done about steering.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Aim {
    /// Whether new connections are steered.
    steers: bool,
    /// Whether some peer serves what the local server does not.
    is_skewed: bool,
}

impl Aim {
    /// Whether clients that go straight to the API server miss something there.
    fn moves_in(self) -> bool {
        self.steers && self.is_skewed
    }
}

/// Counts of [`mvproxy_common::SteerStats::failed_open`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Passed {
    /// At the latest look.
    seen: u64,
    /// When clients were moved last.
    moved: u64,
}
