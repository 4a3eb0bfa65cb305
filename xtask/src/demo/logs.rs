//! Owns the folder of the demo's logs while it runs; the logs themselves stay.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// The folder, locked: two demos would write into each other's logs.
pub(crate) struct Logs {
    folder: PathBuf,
    _lock: File,
}

impl Logs {
    /// Takes the folder and removes the logs of an earlier demo.
    pub(crate) fn take(folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join("lock");
        let lock = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!("another demo runs in this checkout ({})", path.display()),
            Err(TryLockError::Error(error)) => return Err(error).context("cannot lock the folder of logs"),
        }
        for entry in fs::read_dir(&folder)?.flatten() {
            if entry.path().extension() == Some(OsStr::new("log")) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(Self { folder, _lock: lock })
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}
