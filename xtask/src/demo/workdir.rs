//! Owns what the demo leaves in the file system while it runs: a private folder, a bpffs, cgroups.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Start of every name that the demo gives to something outside its folder; the process id follows.
pub(crate) const NAME_PREFIX: &str = "mvproxy-demo-";

/// A folder in the temporary folder, readable by its owner only and removed at the end.
pub(crate) struct WorkDir {
    path: PathBuf,
}

impl WorkDir {
    /// Makes the folder.
    pub(crate) fn create() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("{NAME_PREFIX}{}", std::process::id()));
        let made = fs::DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path })
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        complain("remove", &self.path, fs::remove_dir_all(&self.path));
    }
}

/// A BPF file system of the demo's own, so that nothing stays pinned when it is gone.
pub(crate) struct BpfMount {
    path: PathBuf,
}

impl BpfMount {
    /// Mounts one in `folder`.
    pub(crate) fn create(folder: &Path) -> Result<Self> {
        let path = folder.join("bpf");
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        mount(Some("bpf"), &path, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
            .with_context(|| format!("cannot mount a BPF file system on {}", path.display()))?;
        Ok(Self { path })
    }

    /// The mount point.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for BpfMount {
    fn drop(&mut self) {
        let unmounted = umount2(&self.path, MntFlags::MNT_DETACH).map_err(std::io::Error::from);
        complain("unmount", &self.path, unmounted);
    }
}

/// A cgroup2 folder, so that the sockets of one proxy are counted apart from everything else.
pub(crate) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes one below the cgroup2 mount; `None` where there is none that can be written.
    pub(crate) fn create(node: &str) -> Option<Self> {
        let path = cgroup2_mount()?.join(format!("{NAME_PREFIX}{}-{node}", std::process::id()));
        fs::create_dir(&path).ok()?;
        Some(Self { path })
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        complain("remove", &self.path, fs::remove_dir(&self.path));
    }
}

/// Where cgroup2 is mounted: /sys/fs/cgroup, or below it on hybrid machines.
pub(crate) fn cgroup2_mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let fields: Vec<_> = line.split(' ').collect();
        (fields.get(2) == Some(&"cgroup2")).then(|| PathBuf::from(fields[1]))
    })
}

/// Says what could not be cleaned up: the user has to know, and the rest is cleaned up all the same.
pub(crate) fn complain(verb: &str, path: &Path, result: std::io::Result<()>) {
    if let Err(error) = result {
        eprintln!("xtask: cannot {verb} {}: {error}", path.display());
    }
}
