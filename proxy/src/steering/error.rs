//! Names what can go wrong with steering, each with its remedy.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use mvproxy_common::MAX_WORKERS;

/// Why connections cannot be steered.
#[derive(Debug, thiserror::Error)]
pub enum SteeringError {
    /// The binary embeds no BPF object.
    #[error(
        "mvproxy was built without BPF object; run `cargo xtask build-ebpf`, build again, or run with \
         --steering=off"
    )]
    NotBuilt,
    /// The embedded BPF object is older or newer than the code around it.
    #[error(
        "the embedded BPF object does not fit this mvproxy ({part}); run `cargo xtask build-ebpf` and build \
         again"
    )]
    ObjectMismatch {
        /// The map or program that is missing or differs.
        part: &'static str,
    },
    /// The folder for pinned objects is not on a BPF file system.
    #[error(
        "--bpffs-dir {} is not on a BPF file system; run `mount -t bpf bpf {}`, or in a pod mount the host's \
         /sys/fs/bpf as a hostPath volume",
        dir.display(), mount_point.display()
    )]
    NoBpffs {
        /// The folder that was asked for.
        dir: PathBuf,
        /// Where a BPF file system would help.
        mount_point: PathBuf,
    },
    /// The folder for pinned objects, or a pin in it, cannot be used.
    #[error("cannot {action} {}; is --bpffs-dir writable?", path.display())]
    Pin {
        /// What was tried.
        action: &'static str,
        /// The folder or pin.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel denied a BPF operation.
    #[error("the kernel does not let this process {action}; run as root or with CAP_BPF and CAP_NET_ADMIN")]
    NotPermitted {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The kernel cannot take type information.
    #[error(
        "this kernel does not support BTF, which the maps need; use one built with CONFIG_BPF_SYSCALL and \
         CONFIG_DEBUG_INFO_BTF, or run with --steering=off"
    )]
    NoBtf {
        /// What the kernel said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The kernel refused a map or a program.
    #[error("the kernel cannot {action}; steering needs Linux 5.10 or newer (5.15 for all of it)")]
    Load {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A map cannot be read, written or mapped.
    #[error("cannot {action} map {map}; if it is foreign, remove it from --bpffs-dir")]
    Map {
        /// What was tried.
        action: &'static str,
        /// Name of the map.
        map: &'static str,
        /// What the kernel said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A listener cannot be steered to.
    #[error("worker {worker}'s listener cannot be steered to; it must be a listening TCP socket")]
    Register {
        /// Index of the listener.
        worker: usize,
        /// What the kernel said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// More workers than the maps have slots.
    #[error("{workers} workers are more than can be steered to; use --workers={MAX_WORKERS} or fewer")]
    TooManyWorkers {
        /// How many were asked for.
        workers: usize,
    },
}

impl SteeringError {
    /// Sorts a failure to create maps or programs by its remedy.
    pub(super) fn from_load(action: &'static str, error: impl Error + Send + Sync + 'static) -> Self {
        let source: Box<dyn Error + Send + Sync> = Box::new(error);
        if is_denied(source.as_ref()) {
            return Self::NotPermitted { action, source };
        }
        if aya::features().btf().is_some() {
            return Self::Load { action, source };
        }
        // Where the kernel has BTF of its own, loading some failed for want of a capability.
        if std::path::Path::new("/sys/kernel/btf/vmlinux").exists() {
            Self::NotPermitted { action, source }
        } else {
            Self::NoBtf { source }
        }
    }

    /// A failed map operation.
    pub(super) fn from_map(
        action: &'static str,
        map: &'static str,
        error: impl Error + Send + Sync + 'static,
    ) -> Self {
        let source: Box<dyn Error + Send + Sync> = Box::new(error);
        if is_denied(source.as_ref()) {
            return Self::NotPermitted { action: "use its maps", source };
        }
        Self::Map { action, map, source }
    }
}

/// Whether EPERM lies at the bottom of an error.
fn is_denied(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| (*error).source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| error.raw_os_error() == Some(libc::EPERM))
}

#[cfg(test)]
mod tests {
    use aya::maps::MapError;

    use super::*;

    fn create_error(errno: i32) -> MapError {
        MapError::CreateError { name: "PEER_L7".into(), io_error: io::Error::from_raw_os_error(errno) }
    }

    #[test]
    fn denial_deep_in_the_chain_names_the_capabilities() {
        let error =
            SteeringError::from_load("create maps", aya::EbpfError::MapError(create_error(libc::EPERM)));
        assert!(matches!(error, SteeringError::NotPermitted { .. }), "{error:?}");
        assert!(error.to_string().contains("CAP_BPF and CAP_NET_ADMIN"));
    }

    #[test]
    fn other_errors_are_no_denial() {
        let error = SteeringError::from_map("write", "PEER_L7", create_error(libc::EINVAL));
        assert!(matches!(error, SteeringError::Map { map: "PEER_L7", .. }), "{error:?}");
    }
}
