//! Puts a program into a cgroup of its own: who is who among the sockets of a node is told by it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// Removed on drop, when whatever ran in it has ended.
pub(crate) struct Cgroup(PathBuf);

impl Cgroup {
    /// A new one on the cgroup2 hierarchy, wherever that is mounted.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let root =
            mounts.find(|fields| fields.get(2) == Some(&"cgroup2")).context("no cgroup2 is mounted")?;
        let path = PathBuf::from(root[1]).join(format!("mvp-e2e-{}-{name}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }

    /// Moves a process into it; sockets that it opens from now on belong there.
    pub(crate) fn take(&self, process: u32) -> Result<()> {
        let path = self.0.join("cgroup.procs");
        fs::write(&path, process.to_string()).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("left behind: {}: {error}", self.0.display());
        }
    }
}
