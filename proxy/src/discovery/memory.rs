//! Keeps what is known of peers on disk, so that a proxy that starts while they are down has not forgotten them.
//!
//! A file is only believed when it is whole, of this version, this node's, and nobody else may write it. Anything else is
//! left out with a warning: without it the proxy knows as much as one that starts for the first time.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use super::Served;
use super::shared::SharedApi;
use crate::causes::chain;

mod file;
mod saved;

pub use file::MemoryError;
use saved::Saved;

/// What outlives the process.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    /// Peers of which something is known.
    pub peers: Vec<RememberedPeer>,
    /// Objects that APIs are made of, with their generations.
    pub apis: Vec<(SharedApi, i64)>,
}

/// One peer.
#[derive(Clone, Debug)]
pub struct RememberedPeer {
    /// Where it may be dialled; never empty.
    pub addresses: Vec<SocketAddr>,
    /// What it served.
    pub served: Arc<Served>,
    /// When it was asked for that.
    pub heard: Instant,
}

/// The file, and whose it is.
#[derive(Clone, Debug)]
pub struct Memory {
    folder: PathBuf,
    /// Stands for the node.
    origin: String,
}

/// Changes that come together are written once.
const GATHER: Duration = Duration::from_secs(1);
/// Time between two writes: documents can be large.
const PAUSE: Duration = Duration::from_secs(10);

impl Memory {
    /// In `folder`, of the node that `origin` describes.
    pub fn new(folder: PathBuf, origin: &[&str]) -> Self {
        let hash = digest::digest(&digest::SHA256, origin.join("\n").as_bytes());
        Self { folder, origin: super::hex::lower(hash.as_ref()) }
    }

    /// What was known when it was written last; nothing when there is no such file or it cannot be believed. Peers that were
    /// silent for longer than `stale_after` are left out.
    pub fn load(&self, stale_after: Duration) -> Remembered {
        match self.try_load(stale_after) {
            Ok(Some(remembered)) => {
                info!(folder = %self.folder.display(), peers = remembered.peers.len(), "peers remembered");
                remembered
            }
            Ok(None) => Remembered::default(),
            Err(error) => {
                warn!(error = %chain(&error), "--state-dir: what was known of peers is not used");
                Remembered::default()
            }
        }
    }

    fn try_load(&self, stale_after: Duration) -> Result<Option<Remembered>, MemoryError> {
        let Some(bytes) = file::read(&self.folder)? else { return Ok(None) };
        let saved = Saved::decode(&bytes, &self.origin)?;
        Ok(Some(saved.into_remembered(SystemTime::now(), stale_after)))
    }

    /// Writes what it is told until nobody tells anything any more.
    pub async fn keep(self, mut news: watch::Receiver<Option<Arc<Remembered>>>) {
        let mut is_failing = false;
        let mut earliest = Instant::now();
        while news.changed().await.is_ok() {
            sleep(GATHER).await;
            sleep_until(earliest).await;
            let Some(remembered) = news.borrow_and_update().clone() else { continue };
            let memory = self.clone();
            let written = spawn_blocking(move || memory.write(&remembered)).await;
            match written {
                Ok(Ok(())) if std::mem::take(&mut is_failing) => info!("--state-dir: written again"),
                Ok(Err(error)) if !std::mem::replace(&mut is_failing, true) => warn!(
                    error = %chain(&error),
                    "--state-dir: what is known of peers cannot be kept; a restart while they are down forgets it"
                ),
                // As before; or the process ends.
                _ => {}
            }
            earliest = Instant::now() + PAUSE;
        }
    }

    fn write(&self, remembered: &Remembered) -> Result<(), MemoryError> {
        let saved = Saved::of(remembered, SystemTime::now());
        file::replace(&self.folder, &saved.encode(&self.origin))
    }
}

#[cfg(test)]
mod tests;
