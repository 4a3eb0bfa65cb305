//! Switches steering on and off with what the API servers serve.

mod aftercare;

use std::net::{IpAddr, TcpListener};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use self::aftercare::Aftercare;
use crate::causes::chain;
use crate::config::SteeringMode;
use crate::cut::Cutter;
use crate::discovery::Snapshot;
use crate::dismissal::Dismissal;
use crate::steering::{Steering, SteeringError, WorkerState};
use crate::upstream::{Role, Upstream};
use crate::vitals::Vitals;

/// Pause before a switch that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How often the local API server's condition is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Time for which steering goes on after the local API server failed last: one that starts may fail again.
const RECOVERY: Duration = Duration::from_secs(5);

/// How often it is looked whether steering does what it should.
const CARE: Duration = Duration::from_secs(1);
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
    /// The workers' listeners, in their order. A worker that ends must leave its slot empty, so they are not kept open.
    pub listeners: Vec<Weak<TcpListener>>,
    /// This node's API server, if peers answer while it cannot (`--local-failover`).
    pub local: Option<Upstream>,
    /// How every API server does.
    pub vitals: Arc<Vitals>,
    /// What cuts connections made before the skew, and says how many clients may be moved each second.
    pub cutter: Option<Arc<Cutter>>,
    /// What tells steered clients to leave.
    pub dismissal: Arc<Dismissal>,
    /// When the process began.
    pub begun: Instant,
}

/// What was done so far.
#[derive(Debug)]
struct Follower {
    given: SkewFollower,
    /// What was done last.
    aim: Aim,
    /// Whether the listeners were put into the slots.
    is_registered: bool,
    /// Moves clients, to the proxy or back.
    at_work: Option<AbortOnDropHandle<()>>,
    /// Peers whose proxies' requests pass by source port.
    lane_peers: Vec<IpAddr>,
    aftercare: Aftercare,
    /// When the local API server was last seen to fail.
    local_failed: Option<Instant>,
}

impl SkewFollower {
    /// Runs until the snapshot's writer is gone.
    pub async fn run(self, changes: watch::Receiver<()>) {
        let aftercare = Aftercare::new(0, Instant::now());
        let follower = Follower {
            given: self,
            aim: Aim::default(),
            is_registered: false,
            at_work: None,
            lane_peers: Vec::new(),
            aftercare,
            local_failed: None,
        };
        follower.run(changes).await;
    }
}

impl Follower {
    async fn run(mut self, mut changes: watch::Receiver<()>) {
        loop {
            let alive = match self.follow() {
                Ok(()) => {
                    let pause = if self.follows_local() || self.is_expected() { LOOK } else { CARE };
                    timeout(pause, changes.changed()).await.map_or(true, |changed| changed.is_ok())
                }
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
        } else if aim.steers && self.given.steering.is_vacant() {
            // Of two that want the slots the last one gets them, and it may be the first one to end.
            warn!("another process took the slots and left them empty; taking them again");
            self.switch(true)?;
            self.given.steering.set_lane_peers(&self.lane_peers)?;
        }
        if aim != self.aim {
            self.aim = aim;
            if let Some(passed_by) = self.passed_by() {
                self.aftercare.moved(passed_by, Instant::now());
            }
            self.move_clients();
        } else if aim.moves_in() && self.has_been_passed_by() {
            self.move_clients();
        }
        Ok(())
    }

    /// Connections that went to the API server although they are to be steered, because the proxy was not there for them.
    fn passed_by(&self) -> Option<u64> {
        let stats = self.given.steering.stats()?;
        // Those of the mode word: an operator may write it.
        Some(stats.stale + stats.no_listener + stats.other_abi + stats.mode_pass)
    }

    fn has_been_passed_by(&mut self) -> bool {
        let Some(passed_by) = self.passed_by() else { return false };
        let is_at_work = self.at_work.as_ref().is_some_and(|task| !task.is_finished());
        let may_move = !is_at_work && takes_clients(&self.given.steering, self.given.listeners.len());
        self.aftercare.is_due(passed_by, may_move, Instant::now())
    }

    fn note_peers(&mut self) -> Result<(), SteeringError> {
        let snapshot = self.given.snapshot.load();
        let peers = snapshot.upstreams().iter().filter(|upstream| upstream.role == Role::Peer);
        let peers: Vec<_> = peers.map(|peer| peer.address.ip()).collect();
        if peers != self.lane_peers {
            self.given.steering.set_lane_peers(&peers)?;
            self.lane_peers = peers;
        }
        Ok(())
    }

    fn switch(&mut self, steers: bool) -> Result<(), SteeringError> {
        let steering = &self.given.steering;
        let is_first = !self.is_registered;
        if steers && (is_first || steering.is_vacant()) {
            let listeners: Option<Vec<_>> = self.given.listeners.iter().map(Weak::upgrade).collect();
            // A worker has ended, and with it the process is about to.
            let Some(listeners) = listeners else { return Ok(()) };
            let sockets: Vec<_> = listeners.iter().map(|listener| listener.as_fd()).collect();
            steering.register(&sockets)?;
            self.is_registered = true;
        }
        // Whether others are steered is for the process to say that has the slots.
        let state = steering.state();
        if steers || state.listeners > 0 || state.foreign_listeners == 0 {
            steering.set_steering(steers)?;
        }
        info!(steers, "steering");
        Ok(())
    }

    /// Has clients that are connected already follow.
    fn move_clients(&mut self) {
        let Some(cutter) = &self.given.cutter else { return };
        // Whoever was on the way in the other direction is not any more.
        self.at_work = match self.aim {
            Aim { steers: true, is_skewed: true } => {
                let (steering, workers) = (Arc::clone(&self.given.steering), self.given.listeners.len());
                let may_cut = move || takes_clients(&steering, workers);
                Some(tokio::spawn(Arc::clone(cutter).run(self.lane_peers.clone(), may_cut)))
            }
            // An API server that fails lets go of its clients itself.
            Aim { steers: true, is_skewed: false } => None,
            Aim { steers: false, .. } => {
                let (dismissal, per_second) = (Arc::clone(&self.given.dismissal), cutter.per_second());
                Some(tokio::spawn(async move { dismissal.all(per_second).await }))
            }
        }
        .map(AbortOnDropHandle::new);
    }

    /// Whether the local API server's condition has a say.
    fn follows_local(&self) -> bool {
        self.given.mode == SteeringMode::OnSkew && self.given.local.is_some()
    }

    /// Whether a peer has to stand in for the local API server, or had to a moment ago.
    fn local_fails(&mut self, peers: usize) -> bool {
        let Some(local) = self.given.local.filter(|_| peers > 0) else { return false };
        if !self.given.vitals.is_healthy(&local) {
            self.local_failed = Some(Instant::now());
        }
        self.local_failed.is_some_and(|failed| failed.elapsed() < RECOVERY)
    }

    /// Whether the slots were not taken yet, and a process that has them may be left in charge for a while.
    fn is_expected(&self) -> bool {
        !self.aim.steers && !self.is_registered && self.given.begun.elapsed() < HANDOVER
    }

    /// Whether another process has slots. It knows every server, while this one would have to say that it does not know yet
    /// who serves a resource.
    fn predecessor_serves(&self) -> bool {
        let state = self.given.steering.state();
        state.steering && state.foreign_listeners > 0
    }

    fn wanted(&mut self) -> Aim {
        let snapshot = self.given.snapshot.load_full();
        let is_skewed = snapshot.is_skewed();
        let steers = snapshot.is_synced()
            && !(self.is_expected() && self.predecessor_serves() && !snapshot.unknown().is_empty())
            && match self.given.mode {
                SteeringMode::Auto | SteeringMode::Always => true,
                SteeringMode::OnSkew => is_skewed || self.local_fails(snapshot.peers()),
                SteeringMode::Off => false,
            };
        Aim { steers, is_skewed }
    }
}

/// What is to be done about steering.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Aim {
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

/// Whether clients that are cut now come to this process: they are back at once.
fn takes_clients(steering: &Steering, workers: usize) -> bool {
    steering.state().steers_here()
        && steering.workers(workers).iter().all(|state| *state == WorkerState::Serves)
}
