//! Recognises the proxy's own node in a list of API servers.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use tracing::warn;

use crate::config::Config;

/// Addresses under which this node's API server may be listed.
#[derive(Clone, Debug)]
pub struct OwnAddresses {
    local: SocketAddr,
    advertised: Option<SocketAddr>,
    port: u16,
}

impl OwnAddresses {
    /// Where the proxy itself reaches it, the node's interface addresses with its port, and the advertised address.
    pub fn new(local: SocketAddr, port: u16, advertised: Option<SocketAddr>) -> Self {
        Self { local, advertised, port }
    }

    /// Those of the API server on this node.
    pub fn of(config: &Config) -> Self {
        let port = config.peer_advertise_port.unwrap_or(config.secure_port);
        let advertised = config.peer_advertise_ip.map(|ip| SocketAddr::new(ip, port));
        Self::new(config.local_apiserver, config.secure_port, advertised)
    }

    /// Where others are told to dial it.
    pub fn advertised(&self) -> Option<SocketAddr> {
        self.advertised
    }

    /// Tells the node's own addresses from others. Interfaces are read anew: addresses come and go with VIPs.
    pub fn now(&self) -> impl Fn(&SocketAddr) -> bool {
        let interfaces = interface_addresses();
        move |address| {
            *address == self.local
                || Some(*address) == self.advertised
                || (address.port() == self.port && interfaces.contains(&address.ip()))
        }
    }
}

fn interface_addresses() -> BTreeSet<IpAddr> {
    let interfaces = match getifaddrs() {
        Ok(interfaces) => interfaces,
        Err(error) => {
            warn!(%error, "interface addresses are not readable; the own address may be taken for a peer's");
            return BTreeSet::new();
        }
    };
    interfaces
        .filter_map(|interface| interface.address)
        .filter_map(|address| {
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .collect()
}
