//! Has servers asked out of turn: somebody heard that what is known of them may no longer be true.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::upstream::{Role, Upstream};

/// One bell per server. Ringing is cheap and never waits; how often a server really is asked is decided where it is asked.
#[derive(Debug, Default)]
pub struct Refresh {
    local: Arc<Notify>,
    peers: Mutex<HashMap<SocketAddr, Arc<Notify>>>,
}

impl Refresh {
    /// Has the local server asked.
    pub fn of_local(&self) {
        self.local.notify_one();
    }

    /// Has this server asked.
    pub fn of(&self, upstream: &Upstream) {
        if upstream.role == Role::Local {
            return self.of_local();
        }
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bell) = peers.get(&upstream.address) {
            bell.notify_one();
        }
    }

    /// The local server's bell.
    pub(super) fn local_bell(&self) -> Arc<Notify> {
        Arc::clone(&self.local)
    }

    /// Hangs up the bells of all peers, each under its addresses.
    pub(super) fn set_peers(&self, bells: HashMap<SocketAddr, Arc<Notify>>) {
        *self.peers.lock().unwrap_or_else(PoisonError::into_inner) = bells;
    }
}
