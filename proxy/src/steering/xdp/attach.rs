//! Loads the XDP program, and puts it on interfaces by links that are pinned.

use std::fs;
use std::path::PathBuf;

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};

use super::device::Device;
use super::error::{XdpError, errno};
use crate::causes::chain;
use crate::steering::SteeringError;
use crate::steering::pins::{PinDir, map_names};

/// The object that `cargo xtask build-ebpf` made, empty when mvproxy was built without it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mvproxy-xdp.o"));

/// How names of pinned links begin; the interface's index follows, since bpffs refuses names with dots.
const LINK: &str = "xdp_link_";
const PROGRAM: &str = "peer_xdp";

/// The embedded XDP object; none when this binary was built without one.
pub fn object() -> Option<&'static [u8]> {
    (!OBJECT.is_empty()).then_some(OBJECT)
}

/// Creates the maps or takes those that are pinned, and loads the program.
pub(super) fn load(dir: &PinDir) -> Result<Ebpf, XdpError> {
    let object = object().ok_or(XdpError::NotBuilt)?;
    let mut loader = EbpfLoader::new();
    for name in map_names() {
        loader.map_pin_path(name, dir.pin(name));
    }
    let mut ebpf =
        loader.load(object).map_err(|error| XdpError::from_kernel("create the maps of XDP", error))?;
    dir.check_layouts()?;
    program(&mut ebpf)?.load().map_err(|error| XdpError::from_kernel("load the XDP program", error))?;
    Ok(ebpf)
}

fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp, XdpError> {
    let program = ebpf.program_mut(PROGRAM).and_then(|program| program.try_into().ok());
    program.ok_or(XdpError::Pinned(SteeringError::ObjectMismatch { part: PROGRAM }))
}

/// Puts the program on an interface: in place of an earlier proxy's, in one step; else in the driver, else before it.
pub(super) fn attach(ebpf: &mut Ebpf, dir: &PinDir, device: &Device) -> Result<(), XdpError> {
    if !device.is_ethernet {
        return Err(XdpError::NotEthernet { interface: device.name.clone() });
    }
    let program = program(ebpf)?;
    let name = link_name(device.index);
    if dir.pin(&name).exists() {
        match replace(program, dir, &name) {
            Ok(()) => return Ok(()),
            // Of an interface that went away and whose index another one got, or not a link at all.
            Err(error) => tracing::debug!(error = chain(&error), "a pinned link is of no use"),
        }
        dir.remove(&name)?;
    }
    let attached = match link(program, device, XdpMode::Driver) {
        Err(error) if !is_busy(&error) => {
            tracing::debug!(interface = device.name, error = chain(&error), "no native XDP");
            link(program, device, XdpMode::Skb)
        }
        attached => attached,
    };
    match attached {
        Ok(link) => Ok(dir.replace_link(&name, link)?),
        Err(error) if is_busy(&error) => Err(XdpError::Busy { interface: device.name.clone() }),
        Err(error) => Err(XdpError::from_kernel("attach the XDP program", error)),
    }
}

/// Has a pinned link run this program from now on; no packet passes unseen.
fn replace(program: &mut Xdp, dir: &PinDir, name: &str) -> Result<(), ProgramError> {
    let pinned = PinnedLink::from_pin(dir.pin(name)).map_err(link_error)?;
    let link = XdpLink::try_from(FdLink::from(pinned)).map_err(link_error)?;
    // Kept open by the program until that is dropped; the pin outlives it.
    program.attach_to_link(link).map(drop)
}

fn link(program: &mut Xdp, device: &Device, mode: XdpMode) -> Result<FdLink, ProgramError> {
    let id = program.attach_to_if_index(device.index, mode)?;
    FdLink::try_from(program.take_link(id)?).map_err(link_error)
}

fn link_error(error: aya::programs::links::LinkError) -> ProgramError {
    ProgramError::IOError(std::io::Error::other(error))
}

/// EBUSY: another program in this mode; EEXIST: one in the other mode.
fn is_busy(error: &ProgramError) -> bool {
    matches!(errno(error), Some(libc::EBUSY | libc::EEXIST))
}

/// The program that an earlier proxy or this one put on an interface.
pub(super) fn pinned_program(dir: &PinDir, index: u32) -> Option<u32> {
    let link = PinnedLink::from_pin(dir.pin(&link_name(index))).ok()?;
    Some(FdLink::from(link).info().ok()?.program_id())
}

/// Detaches from all interfaces but these; says which pins were removed.
pub(super) fn detach_others(dir: &PinDir, wanted: &[u32]) -> Result<Vec<PathBuf>, SteeringError> {
    let mut removed = Vec::new();
    let wanted: Vec<_> = wanted.iter().map(|index| link_name(*index)).collect();
    let error = |source| SteeringError::Pin { action: "list", path: dir.pin(""), source };
    for entry in fs::read_dir(dir.pin("")).map_err(error)? {
        let name = entry.map_err(error)?.file_name().to_string_lossy().into_owned();
        if name.starts_with(LINK) && !wanted.contains(&name) && dir.remove(&name)? {
            removed.push(dir.pin(&name));
        }
    }
    Ok(removed)
}

fn link_name(index: u32) -> String {
    format!("{LINK}{index}")
}
