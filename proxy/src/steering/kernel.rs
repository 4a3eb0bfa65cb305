//! Loads the BPF object, pins its maps and attaches its programs.

use std::fs::File;
use std::path::{Path, PathBuf};

use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, Program, SkLookup, SockOps};
use aya::{Ebpf, EbpfLoader};

use super::PeerOps;
use super::error::SteeringError;
use super::pins::{PEER_OPS_LINK, PinDir, STEER_LINK, map_names};
use crate::causes::chain;

/// The object that `cargo xtask build-ebpf` made, empty when mvproxy was built without it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mvproxy-bpf.o"));

/// The embedded BPF object; none when this binary was built without one.
pub fn object() -> Option<&'static [u8]> {
    (!OBJECT.is_empty()).then_some(OBJECT)
}

/// Maps and programs in the kernel, not yet attached.
pub(super) struct Loaded {
    pub(super) ebpf: Ebpf,
    /// Whether the counting program was accepted; steering works without it.
    counting: Result<(), SteeringError>,
}

/// Creates the maps or takes those that are pinned, and loads the programs.
///
/// Programs must be loaded before any map is taken out of the object: they refer to maps by open descriptors.
pub(super) fn load(dir: &PinDir) -> Result<Loaded, SteeringError> {
    let object = object().ok_or(SteeringError::NotBuilt)?;
    let mut loader = EbpfLoader::new();
    for name in map_names() {
        loader.map_pin_path(name, dir.pin(name));
    }
    let mut ebpf =
        loader.load(object).map_err(|error| SteeringError::from_load("create the steering maps", error))?;
    dir.check_layouts()?;
    let steering: &mut SkLookup = program(&mut ebpf, "steer_listener")?;
    steering.load().map_err(|error| SteeringError::from_load("load the steering program", error))?;
    let counting = program(&mut ebpf, "count_sock_ops").and_then(|counting: &mut SockOps| {
        counting.load().map_err(|error| SteeringError::from_load("load the counting program", error))
    });
    Ok(Loaded { ebpf, counting })
}

/// Attaches the steering program to the network namespace of the calling thread: in place of an older one, or beside it
/// (the kernel runs both, and what the newer one does not choose stays the older one's choice).
pub(super) fn attach_steering(
    loaded: &mut Loaded,
    dir: &PinDir,
    is_beside: bool,
) -> Result<(), SteeringError> {
    // Not /proc/self: a thread may live in a namespace of its own.
    let path = Path::new("/proc/thread-self/ns/net");
    let netns = File::open(path).map_err(|source| SteeringError::Pin {
        action: "open",
        path: path.to_owned(),
        source,
    })?;
    let program: &mut SkLookup = program(&mut loaded.ebpf, "steer_listener")?;
    let link = program
        .attach(netns)
        .and_then(|id| program.take_link(id))
        .map_err(|error| SteeringError::from_load("attach the steering program", error))?;
    if is_beside {
        dir.pin_link_beside(STEER_LINK, link.into())
    } else {
        dir.replace_link(STEER_LINK, link.into())
    }
}

/// Attaches the counting program to a cgroup; steering works without it.
pub(super) fn attach_peer_ops(loaded: Loaded, dir: &PinDir, cgroup: Option<&Path>) -> PeerOps {
    let attached = match cgroup {
        Some(cgroup) => Ok(cgroup.to_owned()),
        None => super::cgroup::own_cgroup2(),
    }
    .and_then(|cgroup| {
        let done = try_attach_peer_ops(loaded, dir, &cgroup);
        done.map_err(|error| format!("{}: {}", cgroup.display(), chain(&error)))?;
        Ok(cgroup)
    });
    match attached {
        Ok(cgroup) => PeerOps::Attached { cgroup },
        Err(reason) => {
            tracing::warn!(reason, "connections to peers are not counted in the kernel");
            PeerOps::NotAttached { reason }
        }
    }
}

fn try_attach_peer_ops(loaded: Loaded, dir: &PinDir, cgroup: &PathBuf) -> Result<(), SteeringError> {
    let Loaded { mut ebpf, counting } = loaded;
    counting?;
    let folder = File::open(cgroup).map_err(|source| SteeringError::Pin {
        action: "open",
        path: cgroup.clone(),
        source,
    })?;
    let program: &mut SockOps = program(&mut ebpf, "count_sock_ops")?;
    // Links share a cgroup by themselves; the kernel refuses the flag that older attachments need for it.
    let link = program
        .attach(folder, CgroupAttachMode::Single)
        .and_then(|id| program.take_link(id))
        .map_err(|error| SteeringError::from_load("attach the counting program", error))?;
    let link = FdLink::try_from(link)
        .map_err(|error| SteeringError::from_load("keep the counting program attached", error))?;
    dir.replace_link(PEER_OPS_LINK, link)
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, SteeringError>
where
    &'a mut P: TryFrom<&'a mut Program>,
{
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or(SteeringError::ObjectMismatch { part: name })
}
