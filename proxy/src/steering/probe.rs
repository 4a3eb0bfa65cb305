//! Finds out whether this node can steer, and leaves nothing behind.

use std::fs;
use std::path::{Path, PathBuf};

use aya::programs::loaded_programs;

use super::error::SteeringError;
use super::kernel;
use super::pins::{PinDir, map_names};
use super::xdp::{self, XdpError};

/// Name of the steering program.
const OWN_PROGRAM: &str = "steer_listener";
/// `BPF_PROG_TYPE_SK_LOOKUP` of linux/bpf.h.
const SK_LOOKUP: u32 = 30;

/// Loads maps and programs in a folder of its own beside `bpffs_dir` and takes them away again.
///
/// # Errors
/// What [`super::Steering::open`] would fail with, but for the attachment.
pub fn probe(bpffs_dir: &Path) -> Result<(), SteeringError> {
    let scratch = Scratch::beside(bpffs_dir);
    let dir = PinDir::open(&scratch.0)?;
    kernel::load(&dir).map(drop)
}

/// Does the same with the program for interfaces.
///
/// # Errors
/// What keeps packets from being counted on the wire, but for the attachment.
pub fn probe_xdp(bpffs_dir: &Path) -> Result<(), XdpError> {
    let scratch = Scratch::beside(bpffs_dir);
    xdp::probe(&PinDir::open(&scratch.0)?)
}

/// Names of `sk_lookup` programs in the kernel that are not the proxy's; `None` where listing them is not permitted.
///
/// They may belong to other network namespaces: the kernel does not say.
pub fn foreign_programs() -> Option<Vec<String>> {
    let mut foreign = Vec::new();
    for program in loaded_programs() {
        let program = program.ok()?;
        let is_lookup = program.program_type() as u32 == SK_LOOKUP;
        let name = program.name_as_str().unwrap_or("without a name");
        if is_lookup && name != OWN_PROGRAM {
            foreign.push(name.to_owned());
        }
    }
    Some(foreign)
}

/// A folder of pins that goes with its owner.
struct Scratch(PathBuf);

impl Scratch {
    fn beside(dir: &Path) -> Self {
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        Self(dir.with_file_name(format!("{name}-check-{}", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for name in map_names() {
            // Not there when loading failed before it.
            let _ = fs::remove_file(self.0.join(name));
        }
        let _ = fs::remove_dir(&self.0);
    }
}
