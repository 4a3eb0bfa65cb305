//! Dials peers from the ports by which their kernels know a proxy.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering::Relaxed};

use tokio::net::{TcpSocket, TcpStream};
use tracing::warn;

use crate::steering::LanePorts;

/// Ports that are tried for one connection: each costs three system calls.
const TRIES: u16 = 16;

/// The source ports, and where the next search among them begins.
#[derive(Debug)]
pub(super) struct Lane {
    ports: LanePorts,
    next: AtomicU16,
    /// Whether it was said that the ports may not be used.
    is_denied: AtomicBool,
}

impl Lane {
    pub(super) fn new(ports: LanePorts) -> Self {
        // Not where the last process began: the kernel remembers its connections for a minute.
        let start = u16::try_from(std::process::id() % 0x1_0000).unwrap_or_default();
        Self { ports, next: AtomicU16::new(start), is_denied: AtomicBool::new(false) }
    }

    /// Connects from a port of the lane, or from any where too many of them are taken.
    pub(super) async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let count = self.ports.last - self.ports.first;
        for _ in 0..TRIES.min(count.saturating_add(1)) {
            let turn = self.next.fetch_add(1, Relaxed);
            let port = self.ports.first + if count == u16::MAX { turn } else { turn % (count + 1) };
            let socket = match bound_to(port, address) {
                Err(error) if is_taken(&error) => continue,
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    self.tell_of_denial();
                    break;
                }
                bound => bound?,
            };
            match socket.connect(address).await {
                Err(error) if is_taken(&error) => {}
                connected => return connected,
            }
        }
        socket(address)?.connect(address).await
    }

    fn tell_of_denial(&self) {
        if !self.is_denied.swap(true, Relaxed) {
            warn!(ports = %self.ports, "--peer-lane-ports are not used: ports below 1024 take CAP_NET_BIND_SERVICE");
        }
    }
}

/// Whether somebody listens there, or a connection from there to this very address exists or did a moment ago.
fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable)
}

fn bound_to(port: u16, address: SocketAddr) -> io::Result<TcpSocket> {
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = socket(address)?;
    // Connections to other addresses may have the same port.
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::new(any, port))?;
    Ok(socket)
}

fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn ports_that_are_taken_are_walked_past_and_in_the_end_any_will_do() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let (address, other) =
            (server.local_addr().expect("it is bound"), other.local_addr().expect("it is bound"));
        let ports = LanePorts { first: 61_200, last: 61_203 };
        // What another program listens on cannot be a source.
        let _taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 61_201)).await.expect("nobody else uses it");
        let lane = Lane::new(ports);
        let mut open = Vec::new();
        for _ in 0..4 {
            open.push(lane.connect(address).await.expect("the server listens"));
        }
        let from = |stream: &TcpStream| stream.local_addr().expect("it is connected").port();
        let mut sources: Vec<_> = open.iter().map(from).collect();
        let last = sources.pop().expect("four");
        sources.sort_unstable();
        assert_eq!(sources, [61_200, 61_202, 61_203]);
        assert!(!ports.contains(last), "{last}");
        let to_other = lane.connect(other).await.expect("the other listens");
        assert!(ports.contains(from(&to_other)), "each address can be dialled from every port");
    }
}
