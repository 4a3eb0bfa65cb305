//! Switches steering on and off with what the API servers serve.

use std::net::TcpListener;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{error, info};

use crate::causes::chain;
use crate::config::SteeringMode;
use crate::discovery::Snapshot;
use crate::steering::{Steering, SteeringError};

/// Pause before a switch that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

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
    /// Whether the mode word says so.
    pub steers: bool,
}

impl SkewFollower {
    /// Runs until the snapshot's writer is gone.
    pub async fn run(mut self, mut changes: watch::Receiver<()>) {
        loop {
            let alive = match self.follow() {
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
        let wanted = self.is_wanted();
        if wanted == self.steers {
            return Ok(());
        }
        if wanted && !self.listeners.is_empty() {
            let sockets: Vec<_> = self.listeners.iter().map(AsFd::as_fd).collect();
            self.steering.register(&sockets)?;
            drop(sockets);
            // A worker that ends must leave its slot empty.
            self.listeners.clear();
        }
        self.steering.set_steering(wanted)?;
        self.steers = wanted;
        info!(steers = wanted, "steering");
        Ok(())
    }

    fn is_wanted(&self) -> bool {
        let snapshot = self.snapshot.load();
        match self.mode {
            SteeringMode::Auto | SteeringMode::Always => snapshot.is_synced(),
            SteeringMode::OnSkew => snapshot.is_synced() && snapshot.is_skewed(),
            SteeringMode::Off => false,
        }
    }
}
