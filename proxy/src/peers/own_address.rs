//! Recognises the proxy's own node in a list of API servers.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use tracing::warn;

/// Addresses under which this node's API server may be listed.
#[derive(Clone, Debug)]
pub struct OwnAddresses {
    advertised: Option<IpAddr>,
    advertised_port: u16,
    port: u16,
}

impl OwnAddresses {
    /// The node's interface addresses with the API server's port, and the advertised address with the advertised port.
    pub fn new(port: u16, advertised: Option<IpAddr>, advertised_port: Option<u16>) -> Self {
        Self { advertised, advertised_port: advertised_port.unwrap_or(port), port }
    }

    /// Whether this is the node's own API server. Interfaces are read anew: addresses come and go with VIPs.
    pub fn contains(&self, address: &SocketAddr) -> bool {
        let advertised = Some(address.ip()) == self.advertised && address.port() == self.advertised_port;
        advertised || (address.port() == self.port && interface_addresses().contains(&address.ip()))
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
