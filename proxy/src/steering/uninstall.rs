//! Takes everything out of the kernel that a proxy pinned there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::SteeringError;
use super::pins::{PEER_OPS_LINK, PinDir, STEER_LINK, beside, map_names};
use super::xdp;

/// Removes links, then maps, then the folder; says what was there, in this order.
///
/// A moment after the first link is gone every new connection goes to the API server. A proxy that still runs goes on serving what it has,
/// and reports its pin as removed.
///
/// # Errors
/// When a pin cannot be removed, or the folder holds something else.
pub fn uninstall(bpffs_dir: &Path) -> Result<Vec<PathBuf>, SteeringError> {
    if !bpffs_dir.exists() {
        return Ok(Vec::new());
    }
    let dir = PinDir::open(bpffs_dir)?;
    let mut removed = Vec::new();
    {
        // A proxy that is starting must not pin anew what was just removed.
        let _lock = dir.lock()?;
        // A proxy that was killed in the middle of a replacement leaves the new link under a name of its own.
        let links = [STEER_LINK, PEER_OPS_LINK].map(|name| [name.to_owned(), beside(name)]);
        for name in links.into_iter().flatten() {
            if dir.remove(&name)? {
                removed.push(dir.pin(&name));
            }
        }
        removed.extend(xdp::detach_all(&dir)?);
        for name in map_names() {
            if dir.remove(name)? {
                removed.push(dir.pin(name));
            }
        }
    }
    remove_folder(bpffs_dir)?;
    removed.push(bpffs_dir.to_owned());
    Ok(removed)
}

fn remove_folder(path: &Path) -> Result<(), SteeringError> {
    match fs::remove_dir(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(SteeringError::Pin { action: "remove", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}
