//! Says which connections to the API server are cut, and which must live.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use super::diag::TcpSocket;
use crate::steering::{Canary, LanePorts};

/// What the choice depends on.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The API server's port.
    pub secure_port: u16,
    /// Source of the proxy's own connections to the API server.
    pub own_source: IpAddr,
    /// Whose connections are steered: others would only come back where they were.
    pub canary: Canary,
    /// Source ports of peers' proxies, whose requests belong with the API server.
    pub lane: Option<LanePorts>,
}

/// The sockets of a network namespace, as far as they have to do with the API server's port.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    /// Listeners on the port.
    pub(super) listeners: Vec<TcpSocket>,
    /// Servers' ends of connections to the port. A steered connection has one too: it keeps the port that was dialled.
    pub(super) servers: Vec<TcpSocket>,
    /// Ends of clients on this node.
    pub(super) clients: Vec<TcpSocket>,
}

impl Rules {
    /// Servers' ends of connections that go straight to the API server and are none of its own or of this process (`own` has
    /// the inodes of its sockets).
    pub(super) fn to_cut(&self, sockets: Sockets, own: &HashSet<u32>, peers: &[IpAddr]) -> Vec<TcpSocket> {
        // Accepted sockets belong to the cgroup of their listener.
        let servers: HashSet<_> = sockets.listeners.iter().map(|listener| listener.cgroup).collect();
        let clients: HashMap<(SocketAddr, SocketAddr), &TcpSocket> =
            sockets.clients.iter().map(|client| ((client.local(), client.remote()), client)).collect();
        let is_cut = |server: &TcpSocket| {
            let source = server.remote().ip();
            let is_on_lane = peers.contains(&source)
                && self.lane.is_some_and(|ports| ports.contains(server.remote().port()));
            let is_taken_and_not_own = server.inode != 0 && !own.contains(&server.inode);
            // Unknown for clients elsewhere. The API server's connections to itself come from its own cgroup.
            let client = clients.get(&(server.remote(), server.local()));
            let is_own =
                client.is_some_and(|client| own.contains(&client.inode) || servers.contains(&client.cgroup));
            is_taken_and_not_own
                // Those of a proxy that is being replaced live on until it has drained.
                && server.is_of_proxy == Some(false)
                && servers.contains(&server.cgroup)
                && source != self.own_source
                && !is_on_lane
                && self.canary.chooses(source)
                && !is_own
        };
        sockets.servers.into_iter().filter(is_cut).collect()
    }
}
