//! Keeps the pinned maps and links in one folder of a BPF file system.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use aya::maps::{Array, Map, MapData, MapInfo};
use aya::programs::links::FdLink;
use mvproxy_common::{
    ABI_VERSION, Heartbeat, MAX_PEERS, MAX_STEER_RULES, MAX_STEER_SOURCES, MAX_SYN_SOURCES, MAX_WORKERS,
    MAX_XDP_ADDRESSES, PEER_L7_SHARDS, PeerKey, PeerL4, PeerL7, SourceKey, SteerConfig, SteerMode,
    SteerStats, SynBudget, XDP_CLASSES, XdpConfig, XdpStats,
};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::error::SteeringError;

/// Pin of the link between the network namespace and the steering program.
pub(super) const STEER_LINK: &str = "steer_link";
/// Pin of the link between the cgroup and the counting program.
pub(super) const PEER_OPS_LINK: &str = "peer_ops_link";

/// A pinned map as this release lays it out.
struct Layout {
    name: &'static str,
    key: usize,
    value: usize,
    entries: u32,
}

const fn layout<K, V>(name: &'static str, entries: u32) -> Layout {
    Layout { name, key: size_of::<K>(), value: size_of::<V>(), entries }
}

/// Every pinned map.
const LAYOUTS: [Layout; 18] = [
    layout::<u16, u32>("STEER_PORTS", MAX_STEER_RULES),
    layout::<u32, u64>("STEER_SOCKETS", MAX_WORKERS),
    layout::<u32, SteerMode>("STEER_MODE", 1),
    layout::<u32, SteerConfig>("STEER_CONFIG", 1),
    layout::<u32, Heartbeat>("HEARTBEATS", MAX_WORKERS),
    layout::<u32, SteerStats>("STEER_STATS", 1),
    layout::<SourceKey, u32>("EXEMPT", MAX_STEER_RULES),
    // An LPM key begins with the length of its prefix.
    Layout { name: "STEER_SOURCES", key: 4 + size_of::<SourceKey>(), value: 4, entries: MAX_STEER_SOURCES },
    layout::<SourceKey, u32>("LANE_PEERS", MAX_PEERS),
    layout::<PeerKey, u32>("PEER_SLOTS", MAX_PEERS),
    layout::<PeerKey, PeerL4>("PEER_L4", MAX_PEERS),
    layout::<u32, PeerL7>("PEER_L7", PEER_L7_SHARDS),
    // A program-private record: state and three totals.
    layout::<u32, [u64; 4]>("FLOWS", 0),
    layout::<u32, XdpConfig>("XDP_CONFIG", 1),
    layout::<SourceKey, u32>("XDP_ADDRESSES", MAX_XDP_ADDRESSES),
    layout::<u32, XdpStats>("XDP_STATS", XDP_CLASSES),
    layout::<SourceKey, XdpStats>("XDP_PEERS", MAX_PEERS),
    layout::<SourceKey, SynBudget>("SYN_BUDGETS", MAX_SYN_SOURCES),
];

/// Names of all pinned maps.
pub(super) fn map_names() -> impl Iterator<Item = &'static str> {
    LAYOUTS.iter().map(|layout| layout.name)
}

/// Pin of a link that is to replace another.
pub(super) fn beside(name: &str) -> String {
    format!("{name}_new")
}

/// The folder of pinned objects.
#[derive(Clone, Debug)]
pub(super) struct PinDir {
    path: PathBuf,
}

impl PinDir {
    /// Creates the folder, for root only.
    ///
    /// # Errors
    ///
    /// Fails where no BPF file system is mounted.
    pub(super) fn open(path: &Path) -> Result<Self, SteeringError> {
        let existing = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
        let pin = |action| move |source| SteeringError::Pin { action, path: path.to_owned(), source };
        let kind = statfs(existing).map_err(io::Error::from).map_err(pin("examine"))?.filesystem_type();
        if kind != BPF_FS_MAGIC {
            let default = Path::new("/sys/fs/bpf");
            let mount_point = if path.starts_with(default) { default } else { path }.to_owned();
            return Err(SteeringError::NoBpffs { dir: path.to_owned(), mount_point });
        }
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(pin("create"))?;
        Ok(Self { path: path.to_owned() })
    }

    /// The folder, if it is there.
    pub(super) fn existing(path: &Path) -> Option<Self> {
        path.is_dir().then(|| Self { path: path.to_owned() })
    }

    /// Where an object of this name is pinned.
    pub(super) fn pin(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Keeps other proxies from changing the folder and from assigning peer slots until dropped.
    pub(super) fn lock(&self) -> Result<Flock<File>, SteeringError> {
        let error = |source| SteeringError::Pin { action: "lock", path: self.path.clone(), source };
        let dir = File::open(&self.path).map_err(error)?;
        Flock::lock(dir, FlockArg::LockExclusive).map_err(|(_, errno)| error(errno.into()))
    }

    /// Removes maps that a release with other layouts left, so that new ones are created beside those its
    /// programs still use; says whether there were any.
    ///
    /// The old steering link stays: its program goes on with its own maps until [`PinDir::promote_link`].
    pub(super) fn discard_other_layouts(&self) -> Result<bool, SteeringError> {
        let Some(reason) = self.other_layout()? else { return Ok(false) };
        let dir = self.path.display();
        tracing::warn!(%dir, reason, "replacing maps of another release; counters restart");
        for name in map_names().chain([PEER_OPS_LINK]) {
            self.remove(name)?;
        }
        Ok(true)
    }

    /// Compares the maps that exist with what this release was built for.
    pub(super) fn check_layouts(&self) -> Result<(), SteeringError> {
        match self.first_misfit()? {
            Some(part) => Err(SteeringError::ObjectMismatch { part }),
            None => Ok(()),
        }
    }

    /// Pins a link in place of an older one of that name, which goes last, so that one is always attached.
    pub(super) fn replace_link(&self, name: &str, link: FdLink) -> Result<(), SteeringError> {
        self.pin_link_beside(name, link)?;
        self.promote_link(name)
    }

    /// Pins a link beside an older one of that name; both programs run.
    pub(super) fn pin_link_beside(&self, name: &str, link: FdLink) -> Result<(), SteeringError> {
        let new = beside(name);
        self.remove(&new)?;
        link.pin(self.pin(&new)).map_err(|error| SteeringError::from_load("pin a link", error))?;
        Ok(())
    }

    /// Puts the link that is pinned beside an older one in its place, unless another process has done so with its own.
    pub(super) fn promote_link(&self, name: &str) -> Result<(), SteeringError> {
        let (path, new) = (self.pin(name), self.pin(&beside(name)));
        match fs::rename(&new, &path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(SteeringError::Pin { action: "replace", path, source })
            }
            _ => Ok(()),
        }
    }

    /// Removes a pin; says whether it was there.
    pub(super) fn remove(&self, name: &str) -> Result<bool, SteeringError> {
        let path = self.pin(name);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(SteeringError::Pin { action: "remove", path, source }),
        }
    }

    fn other_layout(&self) -> Result<Option<String>, SteeringError> {
        if let Some(map) = self.first_misfit()? {
            return Ok(Some(format!("map {map} has another size")));
        }
        let config = self.pin("STEER_CONFIG");
        if !config.exists() {
            return Ok(None);
        }
        let read = || {
            let map = Map::Array(MapData::from_pin(&config)?);
            Array::<_, SteerConfig>::try_from(map)?.get(&0, 0)
        };
        let found =
            read().map_err(|error| SteeringError::from_map("read", "STEER_CONFIG", error))?.abi_version;
        // Zero: created, and the proxy that did it ended before it wrote the version.
        let same = found == ABI_VERSION || found == 0;
        Ok((!same).then(|| format!("layout version {found} instead of {ABI_VERSION}")))
    }

    fn first_misfit(&self) -> Result<Option<&'static str>, SteeringError> {
        for layout in LAYOUTS {
            let path = self.pin(layout.name);
            if !path.exists() {
                continue;
            }
            let info = MapInfo::from_pin(&path)
                .map_err(|error| SteeringError::from_map("examine", layout.name, error))?;
            let found = (info.key_size() as usize, info.value_size() as usize, info.max_entries());
            if found != (layout.key, layout.value, layout.entries) {
                return Ok(Some(layout.name));
            }
        }
        Ok(None)
    }
}
