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

impl SteeringState {
    /// Whether the kernel steers connections to this process.
    pub fn steers_here(&self) -> bool {
        self.attachment == Attachment::Attached && self.steering && self.listeners > 0
    }
}

/// Whether a worker takes new connections. In every state but the first the kernel leaves them to other workers, or to the
/// API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerState {
    /// It does.
    Serves,
    /// It has as many as it may.
    AtLimit,
    /// It could not accept one lately.
    CannotAccept,
    /// It does not come to its accept loop, or never gets to the end of its queue.
    Silent,
}

impl WorkerState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Serves, Self::AtLimit, Self::CannotAccept, Self::Silent];

    /// Its name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            WorkerState::Serves => "serves",
            WorkerState::AtLimit => "at_limit",
            WorkerState::CannotAccept => "cannot_accept",
            WorkerState::Silent => "silent",
        }
    }

    /// Why it takes none, for people.
    pub fn reason(self) -> &'static str {
        match self {
            WorkerState::Serves => "serves",
            WorkerState::AtLimit => "at --max-connections",
            WorkerState::CannotAccept => "cannot accept, for want of descriptors or memory",
            WorkerState::Silent => "silent for too long",
        }
    }
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
