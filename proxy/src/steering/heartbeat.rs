//! Shows the kernel that workers are alive.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{HashMap, Map, MapData};
use mvproxy_common::{HeartbeatCells, MAX_WORKERS};
use nix::time::{ClockId, clock_gettime};

use super::WorkerState;
use super::error::SteeringError;
use super::page::Page;

/// The heartbeats of all workers of this process.
#[derive(Debug)]
pub(super) struct Heartbeats {
    /// What the kernel reads: one cell for a slot, whichever process has it.
    cells: Page<HeartbeatCells>,
    /// Slots and the cookies of the listeners in them; none without a kernel side.
    slots: Option<HashMap<MapData, u32, u64>>,
    stale_after: Duration,
    workers: Box<[Pulse]>,
}

/// What this process knows of one of its workers.
#[derive(Debug, Default)]
struct Pulse {
    /// When it last beat; 0 while it pauses.
    boot_ns: AtomicU64,
    /// Why it pauses, as [`code`] has it.
    pause: AtomicU8,
    /// Cookie of its listener once that was registered.
    listener: AtomicU64,
}

/// A worker's proof of life.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    heartbeats: Arc<Heartbeats>,
    worker: usize,
}

/// Why a worker takes no more connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// It has as many as it may.
    AtLimit,
    /// It could not accept one, for want of descriptors or memory.
    CannotAccept,
}

impl Heartbeats {
    /// Heartbeats that the steering program reads.
    pub(super) fn from_maps(ebpf: &mut Ebpf, stale_after: Duration) -> Result<Arc<Self>, SteeringError> {
        const NAME: &str = "HEARTBEATS";
        let Some(Map::Array(data)) = ebpf.take_map(NAME) else {
            return Err(SteeringError::ObjectMismatch { part: NAME });
        };
        let cells = Page::map(data.fd().as_fd(), MAX_WORKERS as usize)
            .map_err(|error| SteeringError::from_map("mmap", NAME, error))?;
        let slots = Some(open_slots(ebpf)?);
        Ok(Arc::new(Self { cells, slots, stale_after, workers: pulses() }))
    }

    /// Heartbeats that nobody but this process reads.
    pub(super) fn without_kernel() -> Arc<Self> {
        let cells = Page::heap(MAX_WORKERS as usize);
        Arc::new(Self { cells, slots: None, stale_after: Duration::from_secs(1), workers: pulses() })
    }

    /// Takes note of the listeners in this process's slots, and has their workers' last beats count for them.
    pub(super) fn own(&self, listeners: &[(u32, u64)]) {
        for (slot, cookie) in listeners {
            let pulse = &self.workers[*slot as usize];
            pulse.listener.store(*cookie, Relaxed);
            self.publish(*slot, pulse);
        }
    }

    /// Leaves the cells alone for good.
    pub(super) fn release(&self) {
        self.workers.iter().for_each(|pulse| pulse.listener.store(0, Relaxed));
    }

    /// The heartbeat of a worker that is about to start; it counts as alive for the time in which a beat is due.
    pub(super) fn of(self: &Arc<Self>, worker: usize) -> Heartbeat {
        let worker = worker % MAX_WORKERS as usize;
        self.workers[worker].boot_ns.store(boot_ns(), Relaxed);
        Heartbeat { heartbeats: Arc::clone(self), worker }
    }

    /// How the first `count` workers do.
    pub(super) fn states(&self, count: usize) -> Vec<WorkerState> {
        let now = boot_ns();
        let stale_after = u64::try_from(self.stale_after.as_nanos()).unwrap_or(u64::MAX);
        let state = |pulse: &Pulse| match pulse.pause.load(Relaxed) {
            code::AT_LIMIT => WorkerState::AtLimit,
            code::CANNOT_ACCEPT => WorkerState::CannotAccept,
            _ if now.saturating_sub(pulse.boot_ns.load(Relaxed)) < stale_after => WorkerState::Serves,
            _ => WorkerState::Silent,
        };
        self.workers.iter().take(count).map(state).collect()
    }

    /// Writes a worker's last beat where the kernel reads it, if its listener is the one in the slot. A process that is
    /// about to take the slot over, or has lost it, would answer for somebody else, who may be hung.
    fn publish(&self, slot: u32, pulse: &Pulse) {
        let Some(slots) = &self.slots else { return };
        let listener = pulse.listener.load(Relaxed);
        // Where the map cannot be read nothing is written: the API server gets the connections.
        if listener != 0 && slots.get(&slot, 0).is_ok_and(|found| found == listener) {
            self.cells[slot as usize].boot_ns.store(pulse.boot_ns.load(Relaxed), Relaxed);
        }
    }
}

impl Heartbeat {
    /// Shows that the worker is alive.
    ///
    /// Call it in every turn of the accept loop, and at least four times within
    /// [`super::SteeringOptions::stale_after`]. Never call it from a timer thread, which lives on when
    /// workers hang. It costs a system call.
    pub fn beat(&self) {
        self.write(boot_ns(), code::NONE);
    }

    /// Shows at once that the worker takes no more connections; the next [`Heartbeat::beat`] takes it back.
    pub fn pause(&self, why: Pause) {
        let why = match why {
            Pause::AtLimit => code::AT_LIMIT,
            Pause::CannotAccept => code::CANNOT_ACCEPT,
        };
        self.write(0, why);
    }

    fn write(&self, boot_ns: u64, pause: u8) {
        let pulse = &self.heartbeats.workers[self.worker];
        pulse.boot_ns.store(boot_ns, Relaxed);
        pulse.pause.store(pause, Relaxed);
        let slot = u32::try_from(self.worker).expect("less than MAX_WORKERS");
        self.heartbeats.publish(slot, pulse);
    }
}

/// Values of [`Pulse::pause`].
mod code {
    pub(super) const NONE: u8 = 0;
    pub(super) const AT_LIMIT: u8 = 1;
    pub(super) const CANNOT_ACCEPT: u8 = 2;
}

fn pulses() -> Box<[Pulse]> {
    (0..MAX_WORKERS).map(|_| Pulse::default()).collect()
}

/// A second handle on the slots, so that beats wait for nobody who changes them.
fn open_slots(ebpf: &Ebpf) -> Result<HashMap<MapData, u32, u64>, SteeringError> {
    const NAME: &str = "STEER_SOCKETS";
    let Some(Map::SockMap(slots)) = ebpf.map(NAME) else {
        return Err(SteeringError::ObjectMismatch { part: NAME });
    };
    let cloned = slots.fd().as_fd().try_clone_to_owned();
    let cloned = cloned.map_err(|error| SteeringError::from_map("open", NAME, error))?;
    // A hash map to system calls, as in `SteerMaps::take`.
    MapData::from_fd(cloned)
        .and_then(|data| HashMap::try_from(Map::HashMap(data)))
        .map_err(|error| SteeringError::from_map("open", NAME, error))
}

/// The clock of `bpf_ktime_get_boot_ns`; read without a system call.
pub(super) fn boot_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has CLOCK_BOOTTIME since 2.6.39");
    u64::try_from(Duration::from(now).as_nanos()).expect("584 years after boot")
}
