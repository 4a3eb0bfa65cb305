//! Names the API servers that requests are sent to.

use std::net::SocketAddr;

use crate::steering::PeerSlot;

/// Whether an upstream is this node's API server or another node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// This node's; reached over loopback from the source address that is never steered.
    Local,
    /// Another node's.
    Peer,
}

/// One API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    /// Local or peer.
    pub role: Role,
    /// Its place in the counter maps.
    pub slot: PeerSlot,
}

/// Upstream connections are never shared across trust classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TrustClass {
    /// With the front-proxy client certificate; every request carries X-Remote-User.
    Asserted,
    /// Without a client certificate; requests carry Authorization.
    Bearer,
    /// Without a client certificate and without credentials.
    Anonymous,
}
