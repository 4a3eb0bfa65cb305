//! Names what can go wrong with a program on an interface, each with its remedy.

use std::error::Error;
use std::io;

use crate::steering::SteeringError;

/// Why packets are not counted on the wire.
#[derive(Debug, thiserror::Error)]
pub enum XdpError {
    /// The binary embeds no XDP object.
    #[error("mvproxy was built without its XDP object; run `cargo xtask build-ebpf` and build again")]
    NotBuilt,
    /// There is no such interface.
    #[error("there is no interface {interface}; `ip link` lists those of this network namespace")]
    NoInterface {
        /// Its name.
        interface: String,
    },
    /// The interface carries something else than Ethernet frames.
    #[error("interface {interface} carries no Ethernet frames; give the one below it")]
    NotEthernet {
        /// Its name.
        interface: String,
    },
    /// Somebody else has the interface.
    #[error(
        "another XDP program is on interface {interface}, and only one can be; take it off with its own tool, or with `ip \
         link set dev {interface} xdp off`, or leave the interface out of --xdp-interface"
    )]
    Busy {
        /// Its name.
        interface: String,
    },
    /// The kernel denied it.
    #[error("the kernel does not let this process {action}; run as root or with CAP_BPF and CAP_NET_ADMIN")]
    NotPermitted {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The kernel refused it.
    #[error("the kernel cannot {action}; XDP needs Linux 5.18 or newer here")]
    Refused {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Interfaces or addresses cannot be read.
    #[error("cannot {action} over netlink")]
    Netlink {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A pin or map cannot be used.
    #[error(transparent)]
    Pinned(#[from] SteeringError),
}

impl XdpError {
    /// Sorts a failure by its remedy.
    pub(super) fn from_kernel(action: &'static str, error: impl Error + Send + Sync + 'static) -> Self {
        let source: Box<dyn Error + Send + Sync> = Box::new(error);
        match errno(source.as_ref()) {
            Some(libc::EPERM | libc::EACCES) => Self::NotPermitted { action, source },
            _ => Self::Refused { action, source },
        }
    }
}

/// The error number at the bottom of an error.
pub(super) fn errno(error: &(dyn Error + 'static)) -> Option<i32> {
    std::iter::successors(Some(error), |error| (*error).source())
        .find_map(|error| error.downcast_ref::<io::Error>()?.raw_os_error())
}
