//! Describes how steering stands, for `/readyz?verbose` and metrics.

use std::path::PathBuf;

/// How steering stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SteeringState {
    /// Whether the steering program is attached.
    pub attachment: Attachment,
    /// The mode word: whether connections are steered while workers live. An operator may have changed it.
    pub steering: bool,
    /// Listeners of this process that are in the kernel's slots.
    pub listeners: usize,
    /// Listeners of another process, one that replaces this one or is being replaced.
    pub foreign_listeners: usize,
    /// Whether the kernel counts connections to peers.
    pub peer_ops: PeerOps,
}

/// Whether the steering program is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// Attached and pinned.
    Attached,
    /// Somebody removed the pin after start-up.
    Removed,
    /// The kernel side was never set up.
    Off {
        /// Why.
        reason: String,
    },
}

/// Whether the kernel counts connections to peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerOps {
    /// For all processes of this cgroup.
    Attached {
        /// The cgroup2 folder.
        cgroup: PathBuf,
    },
    /// Not at all; steering works without.
    NotAttached {
        /// Why.
        reason: String,
    },
}
