//! Takes connections off a listener.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};

/// Connections that may wait to be accepted. A full queue drops SYNs, so it is generous.
const BACKLOG: i32 = 4096;
/// TCP keepalive on both legs: idle time before the first probe, interval, probes.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);
/// Time unacknowledged data may be outstanding before the kernel gives the connection up.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// A client's connection, before anything was read from it.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub io: TcpStream,
    /// Who connected, v4-mapped addresses unmapped.
    pub client: SocketAddr,
    /// What the client dialled; steering keeps it.
    pub dialled: SocketAddr,
}

impl Accepted {
    /// Whether the client is on this node.
    pub fn is_from_this_node(&self) -> bool {
        self.client.ip().is_loopback() || self.client.ip() == self.dialled.ip()
    }

    /// The source that the connection counts for; none when that is this node, where kube-apiserver's connections to itself
    /// come from as well as those of everything that keeps the node going.
    pub fn source(&self) -> Option<IpAddr> {
        (!self.is_from_this_node()).then_some(self.client.ip())
    }
}

/// Why the proxy cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The address is taken or not local.
    #[error("--listen: cannot listen on {address}")]
    Listen {
        /// Address.
        address: SocketAddr,
        /// Cause.
        source: io::Error,
    },
}

/// Opens one worker's listening socket. Workers share a fixed port with `SO_REUSEPORT`; port 0 gives each its own.
///
/// # Errors
/// When the address cannot be listened on.
pub fn listen(address: SocketAddr, share_port: bool) -> Result<std::net::TcpListener, AcceptError> {
    let open = || -> io::Result<std::net::TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            // A v6-only listener would be passed over by the kernel when an IPv4 connection is steered to it.
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(share_port)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        // Of no use but as a mark, once it is bound: accepted connections inherit it, and the kernel tells it to whoever
        // lists sockets. So a successor knows a proxy's connections from the API server's, in whatever cgroup either is
        // (see `cut`).
        socket.set_freebind_v4(true)?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    open().map_err(|source| AcceptError::Listen { address, source })
}

/// Waits for the next connection.
///
/// # Errors
/// What `accept(2)` reports; a connection that was reset before it was taken is not an error.
pub async fn accept(listener: &TcpListener) -> io::Result<Accepted> {
    loop {
        let (io, client) = listener.accept().await?;
        // A reset between handshake and accept leaves a socket without a peer.
        let Ok(dialled) = io.local_addr() else { continue };
        if tune(&io).is_err() {
            continue;
        }
        return Ok(Accepted { io, client: unmap(client), dialled: unmap(dialled) });
    }
}

/// Sets what both legs need: no delay for small writes, and dead peers noticed.
///
/// # Errors
/// When the socket is already gone.
pub fn tune(io: &TcpStream) -> io::Result<()> {
    let socket = socket2::SockRef::from(io);
    let (idle, interval, probes) = KEEPALIVE;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(probes),
    )?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

fn unmap(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4),
        ip @ IpAddr::V4(_) => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_another_host_is_refused() {
        // Of a network that is for documentation (RFC 5737).
        let error = listen(([192, 0, 2, 1], 0).into(), false).unwrap_err().to_string();
        assert_eq!(error, "--listen: cannot listen on 192.0.2.1:0");
    }
}
