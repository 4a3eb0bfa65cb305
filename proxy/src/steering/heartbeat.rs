//! Shows the kernel that workers are alive.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use aya::Ebpf;
use aya::maps::Map;
use mvproxy_common::{HeartbeatCells, MAX_WORKERS};
use nix::time::{ClockId, clock_gettime};

use super::error::SteeringError;
use super::page::Page;

/// The heartbeats of all workers.
#[derive(Debug)]
pub(super) struct Heartbeats {
    cells: Page<HeartbeatCells>,
    /// Set once the slots belong to a successor, whose workers share the cells.
    released: AtomicBool,
}

/// A worker's proof of life.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    heartbeats: Arc<Heartbeats>,
    worker: usize,
}

impl Heartbeats {
    /// Heartbeats that the steering program reads.
    pub(super) fn from_map(ebpf: &mut Ebpf) -> Result<Arc<Self>, SteeringError> {
        const NAME: &str = "HEARTBEATS";
        let Some(Map::Array(data)) = ebpf.take_map(NAME) else {
            return Err(SteeringError::ObjectMismatch { part: NAME });
        };
        let cells = Page::map(data.fd().as_fd(), MAX_WORKERS as usize)
            .map_err(|error| SteeringError::from_map("mmap", NAME, error))?;
        Ok(Arc::new(Self { cells, released: AtomicBool::new(false) }))
    }

    /// Heartbeats that nobody reads.
    pub(super) fn without_kernel() -> Arc<Self> {
        Arc::new(Self { cells: Page::heap(MAX_WORKERS as usize), released: AtomicBool::new(false) })
    }

    /// Stops all heartbeats for good.
    pub(super) fn release(&self) {
        self.released.store(true, Relaxed);
    }

    pub(super) fn of(self: &Arc<Self>, worker: usize) -> Heartbeat {
        Heartbeat { heartbeats: Arc::clone(self), worker: worker % MAX_WORKERS as usize }
    }
}

impl Heartbeat {
    /// Shows that the worker is alive.
    ///
    /// Call it in every turn of the accept loop, and at least four times within
    /// [`super::SteeringOptions::stale_after`]. Never call it from a timer thread, which lives on when
    /// workers hang.
    pub fn beat(&self) {
        if !self.heartbeats.released.load(Relaxed) {
            self.heartbeats.cells[self.worker].boot_ns.store(boot_ns(), Relaxed);
        }
    }

    /// Shows at once that the worker takes no more connections; the next [`Heartbeat::beat`] takes it back.
    pub fn pause(&self) {
        if !self.heartbeats.released.load(Relaxed) {
            self.heartbeats.cells[self.worker].boot_ns.store(0, Relaxed);
        }
    }
}

/// The clock of `bpf_ktime_get_boot_ns`; read without a system call.
fn boot_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has CLOCK_BOOTTIME since 2.6.39");
    u64::try_from(Duration::from(now).as_nanos()).expect("584 years after boot")
}
