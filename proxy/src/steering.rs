//! Hands connections on the API server's port to this proxy's listeners, in the kernel.
//!
//! Problem: the proxy must see connections to a port that kube-apiserver owns, and must never keep one from
//! it. Mechanism: an `sk_lookup` program picks a worker's listener for each new connection, if that worker's
//! heartbeat is fresh. Invariant: whenever the proxy is gone, hung or switched off, the program chooses
//! nobody and the kernel goes on to kube-apiserver as if nothing were installed.

mod canary;
mod cgroup;
mod counters;
mod error;
mod heartbeat;
mod kernel;
mod kernel_log;
mod lane;
mod maps;
mod page;
mod pins;
mod probe;
mod state;
mod uninstall;
pub mod xdp;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mvproxy_common::{MAX_WORKERS, PeerL4, SteerStats};
use socket2::SockRef;

pub use canary::Canary;
pub use cgroup::own_cgroup2;
pub use counters::{PeerCounters, PeerSlot};
pub use error::SteeringError;
pub use heartbeat::{Heartbeat, Pause};
pub use kernel::object;
pub use lane::LanePorts;
pub use probe::{foreign_programs, probe, probe_xdp};
pub use state::{Attachment, PeerOps, SteeringState, WorkerState};
pub use uninstall::uninstall;
pub use xdp::{Xdp, XdpOptions};

use crate::causes::chain;
use heartbeat::Heartbeats;
use maps::{Parameters, SteerMaps};
use pins::{PinDir, STEER_LINK, beside};

/// What steering needs to know.
#[derive(Clone, Debug)]
pub struct SteeringOptions {
    /// Folder of the pinned maps and links, on a BPF file system (`--bpffs-dir`).
    pub bpffs_dir: PathBuf,
    /// Port that is steered (`--secure-port`).
    pub secure_port: u16,
    /// Source whose connections are never steered (`--local-source-ip`).
    pub local_source_ip: IpAddr,
    /// cgroup2 folder whose connections to peers are counted; the own one when absent (`--cgroup`).
    pub cgroup: Option<PathBuf>,
    /// Age from which a heartbeat counts as that of a hung worker.
    pub stale_after: Duration,
    /// Clients whose connections are steered.
    pub canary: Canary,
    /// Source ports by which requests of peers' proxies are known; none if they are steered like any other.
    pub lane: Option<LanePorts>,
    /// Workers that will register listeners, at most [`MAX_WORKERS`].
    pub workers: usize,
    /// What is counted on the wire.
    pub xdp: XdpOptions,
}

/// The proxy's hold on the kernel; all methods may be called from any thread.
///
/// Dropping it changes nothing in the kernel: links and maps are pinned, and slots empty themselves when the
/// listeners close. Call [`Steering::release`] first for a clean shutdown.
#[derive(Debug)]
pub struct Steering {
    side: Side,
    heartbeats: Arc<Heartbeats>,
    counters: Arc<PeerCounters>,
    canary: Canary,
}

#[derive(Debug)]
enum Side {
    Off { reason: String },
    Kernel(Box<Kernel>),
}

#[derive(Debug)]
struct Kernel {
    dir: PinDir,
    parameters: Parameters,
    peer_ops: PeerOps,
    maps: Mutex<SteerMaps>,
    /// What is on interfaces, if any were given.
    xdp: Option<Xdp>,
    /// Slot and cookie of every listener that this process registered.
    own: Mutex<Vec<(u32, u64)>>,
    /// Whether the program of a release with other layouts still steers, to that release's proxy.
    is_beside: AtomicBool,
}

impl Steering {
    /// Loads the programs, takes over pinned maps with their counts, and attaches to the network namespace of
    /// the calling thread. Nothing is steered to this process before [`Steering::register`] and
    /// [`Steering::set_steering`].
    ///
    /// Called within a tokio runtime (with its timer enabled), it also spawns a task that passes on the
    /// programs' log lines.
    ///
    /// # Errors
    ///
    /// Every variant of [`SteeringError`] but `Register`; each names its remedy.
    pub fn open(options: &SteeringOptions) -> Result<Self, SteeringError> {
        if options.workers > MAX_WORKERS as usize {
            return Err(SteeringError::TooManyWorkers { workers: options.workers });
        }
        if object().is_none() {
            return Err(SteeringError::NotBuilt);
        }
        let dir = PinDir::open(&options.bpffs_dir)?;
        let _lock = dir.lock()?;
        // A proxy of this release may have ended before it steered, and left its link beside.
        let is_left_beside = dir.pin(&beside(STEER_LINK)).exists();
        let is_beside = (dir.discard_other_layouts()? || is_left_beside) && dir.pin(STEER_LINK).exists();
        let mut loaded = kernel::load(&dir)?;
        kernel_log::follow(&mut loaded.ebpf);
        let heartbeats = Heartbeats::from_maps(&mut loaded.ebpf, options.stale_after)?;
        let mut maps = SteerMaps::take(&mut loaded.ebpf)?;
        let parameters = Parameters {
            stale_after: options.stale_after,
            canary: options.canary.clone(),
            lane: options.lane,
        };
        maps.prepare(options.secure_port, options.local_source_ip, &parameters)?;
        let counters = PeerCounters::from_maps(&mut loaded.ebpf, &dir)?;
        kernel::attach_steering(&mut loaded, &dir, is_beside)?;
        let peer_ops = kernel::attach_peer_ops(loaded, &dir, options.cgroup.as_deref());
        let xdp = Xdp::open(&dir, &options.xdp, options.secure_port);
        let side = Side::Kernel(Box::new(Kernel {
            dir,
            parameters,
            peer_ops,
            maps: Mutex::new(maps),
            xdp,
            own: Mutex::default(),
            is_beside: AtomicBool::new(is_beside),
        }));
        Ok(Self { side, heartbeats, counters: Arc::new(counters), canary: options.canary.clone() })
    }

    /// Steering that leaves the kernel alone: changes do nothing, counters live in this process.
    pub fn off(reason: impl Into<String>) -> Self {
        Self {
            side: Side::Off { reason: reason.into() },
            heartbeats: Heartbeats::without_kernel(),
            counters: Arc::new(PeerCounters::without_kernel()),
            canary: Canary::default(),
        }
    }

    /// Makes listener `i` the one of worker `i`, in place of any earlier one, and empties the slots above.
    ///
    /// # Errors
    ///
    /// Fails when a descriptor is not a listening TCP socket, or there are more than [`MAX_WORKERS`].
    pub fn register(&self, listeners: &[BorrowedFd<'_>]) -> Result<(), SteeringError> {
        let Side::Kernel(kernel) = &self.side else { return Ok(()) };
        if listeners.len() > MAX_WORKERS as usize {
            return Err(SteeringError::TooManyWorkers { workers: listeners.len() });
        }
        let mut own = Vec::with_capacity(listeners.len());
        for (slot, listener) in (0_u32..).zip(listeners) {
            let cookie = listener_cookie(*listener).map_err(|error| SteeringError::Register {
                worker: slot as usize,
                source: Box::new(error),
            })?;
            own.push((slot, cookie));
        }
        // Noted first, so that a release clears whatever a failure below left behind.
        lock(&kernel.own).clone_from(&own);
        lock(&kernel.maps).register(listeners, &kernel.parameters)?;
        self.heartbeats.own(&own);
        Ok(())
    }

    /// Whether no process has a listener in any slot, as far as that can be read.
    pub fn is_vacant(&self) -> bool {
        match &self.side {
            Side::Kernel(kernel) => {
                let listeners = logged(lock(&kernel.maps).listeners());
                kernel.is_attached() && listeners.is_some_and(|listeners| listeners.is_empty())
            }
            Side::Off { .. } => false,
        }
    }

    /// Turns steering on or off for new connections; those that exist stay where they are.
    ///
    /// # Errors
    ///
    /// Fails when the mode word cannot be written.
    pub fn set_steering(&self, on: bool) -> Result<(), SteeringError> {
        match &self.side {
            Side::Kernel(kernel) => kernel.set_steering(on),
            Side::Off { .. } => Ok(()),
        }
    }

    /// Has requests of these peers' proxies, known by source port, go straight to the API server.
    ///
    /// # Errors
    ///
    /// Fails when the map cannot be written.
    pub fn set_lane_peers(&self, peers: &[IpAddr]) -> Result<(), SteeringError> {
        match &self.side {
            Side::Kernel(kernel) => lock(&kernel.maps).set_lane_peers(peers),
            Side::Off { .. } => Ok(()),
        }
    }

    /// The heartbeat of a worker, for its accept loop to beat. The kernel sees it once the worker is registered.
    pub fn heartbeat(&self, worker: usize) -> Heartbeat {
        self.heartbeats.of(worker)
    }

    /// How the first `count` workers do, with a kernel side or without.
    pub fn workers(&self, count: usize) -> Vec<WorkerState> {
        self.heartbeats.states(count)
    }

    /// Whose connections are steered.
    pub fn canary(&self) -> &Canary {
        &self.canary
    }

    /// The counters of requests to peers.
    pub fn counters(&self) -> Arc<PeerCounters> {
        Arc::clone(&self.counters)
    }

    /// How things stand; asks the kernel.
    pub fn state(&self) -> SteeringState {
        match &self.side {
            Side::Kernel(kernel) => kernel.state(),
            Side::Off { reason } => SteeringState {
                attachment: Attachment::Off { reason: reason.clone() },
                steering: false,
                listeners: 0,
                foreign_listeners: 0,
                peer_ops: PeerOps::NotAttached { reason: reason.clone() },
            },
        }
    }

    /// What the steering program decided so far; none without a kernel side.
    pub fn stats(&self) -> Option<SteerStats> {
        let Side::Kernel(kernel) = &self.side else { return None };
        logged(lock(&kernel.maps).stats())
    }

    /// What is counted on the wire; none where no interface was given.
    pub fn xdp(&self) -> Option<&Xdp> {
        match &self.side {
            Side::Kernel(kernel) => kernel.xdp.as_ref(),
            Side::Off { .. } => None,
        }
    }

    /// What the kernel counted of connections to each peer.
    pub fn peer_l4(&self) -> Vec<(SocketAddr, PeerL4)> {
        self.counters.peer_l4()
    }

    /// Gives up steering: new connections go to the API server at once, and workers' heartbeats stop.
    ///
    /// Listeners of a successor stay. Accept until the queue is empty before closing the own listeners: a
    /// connection that nobody accepted is reset then.
    pub fn release(&self) {
        self.heartbeats.release();
        if let Side::Kernel(kernel) = &self.side {
            let own = std::mem::take(&mut *lock(&kernel.own));
            logged(lock(&kernel.maps).release(&own));
            kernel.xdp.iter().for_each(Xdp::release);
        }
    }
}

impl Kernel {
    fn is_attached(&self) -> bool {
        self.dir.pin(STEER_LINK).exists()
    }

    fn set_steering(&self, on: bool) -> Result<(), SteeringError> {
        lock(&self.maps).set_steering(on)?;
        // Until this program steers the older one does: there is no gap.
        if on && self.is_beside.load(Relaxed) {
            self.dir.promote_link(STEER_LINK)?;
            self.is_beside.store(false, Relaxed);
        }
        Ok(())
    }

    fn state(&self) -> SteeringState {
        let maps = lock(&self.maps);
        let registered = logged(maps.listeners()).unwrap_or_default();
        let own = lock(&self.own);
        let listeners = registered.iter().filter(|listener| own.contains(listener)).count();
        SteeringState {
            attachment: if self.is_attached() { Attachment::Attached } else { Attachment::Removed },
            steering: logged(maps.is_steering()).unwrap_or_default(),
            listeners,
            foreign_listeners: registered.len() - listeners,
            peer_ops: self.peer_ops.clone(),
        }
    }
}

/// What the kernel calls the listener; fails for other sockets, which a SOCKMAP would take and no lookup use.
fn listener_cookie(listener: BorrowedFd<'_>) -> io::Result<u64> {
    let socket = SockRef::from(&listener);
    if !socket.is_listener()? {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the socket does not listen"));
    }
    socket.cookie()
}

/// Locks although a thread panicked: what the lock guards is in the kernel and valid after every step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reports what only costs a number on a page, or a slot that empties itself.
fn logged<T>(result: Result<T, SteeringError>) -> Option<T> {
    result.inspect_err(|error| tracing::warn!(error = chain(error), "steering")).ok()
}
