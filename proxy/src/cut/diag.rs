//! Speaks `sock_diag(7)`: lists TCP sockets of the network namespace, and ends connections.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use netlink_packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable, Nla as _,
};
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags};
use netlink_packet_sock_diag::{SockDiagDestroy, SockDiagMessage};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr as NetlinkAddr};
use socket2::SockRef;

use super::CutError;

/// `INET_DIAG_CGROUP_ID` of `linux/inet_diag.h`.
const CGROUP_ID: u16 = 21;
/// `INET_DIAG_SOCKOPT` of `linux/inet_diag.h`.
const OPTIONS: u16 = 22;
/// `freebind` of `struct inet_diag_sockopt`, a bit field: compilers count from the low end, or from the high one.
const FREEBIND: u8 = if cfg!(target_endian = "little") { 1 << 2 } else { 1 << 5 };
/// The kernel answers at once; this only bounds what nobody expects.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longer than any datagram of a dump, which the kernel bounds by 32 KiB.
const DATAGRAM: usize = 64 * 1024;
/// No cookie: any socket with these addresses.
const ANY_COOKIE: [u8; 8] = [0xff; 8];

/// A TCP socket of the network namespace.
#[derive(Clone, Debug)]
pub(super) struct TcpSocket {
    family: u8,
    id: SocketId,
    /// Of the descriptor; 0 while nobody has accepted the connection.
    pub(super) inode: u32,
    /// The cgroup2 folder of whoever made the socket, or the listener that it came from.
    pub(super) cgroup: Option<u64>,
    /// Whether the socket, or the listener that it came from, has the mark of a proxy ([`crate::accept::listen`]). Unknown
    /// before Linux 5.10.
    pub(super) is_of_proxy: Option<bool>,
    /// Time since data was last sent or received.
    pub(super) quiet_for: Duration,
}

impl TcpSocket {
    /// Own end, v4-mapped addresses unmapped.
    pub(super) fn local(&self) -> SocketAddr {
        SocketAddr::new(self.id.source_address.to_canonical(), self.id.source_port)
    }

    /// The other end, v4-mapped addresses unmapped.
    pub(super) fn remote(&self) -> SocketAddr {
        SocketAddr::new(self.id.destination_address.to_canonical(), self.id.destination_port)
    }

    /// What the kernel calls it; no other socket ever has the same.
    pub(super) fn cookie(&self) -> [u8; 8] {
        self.id.cookie
    }

    fn from_response(response: InetResponse) -> Self {
        let header = response.header;
        let mut socket = Self {
            family: header.family,
            id: header.socket_id,
            inode: header.inode,
            cgroup: None,
            is_of_proxy: None,
            quiet_for: Duration::MAX,
        };
        for attribute in &response.nlas {
            match attribute {
                Nla::TcpInfo(info) => {
                    let last = info.last_data_sent.min(info.last_data_recv);
                    socket.quiet_for = Duration::from_millis(last.into());
                }
                Nla::Other(other) if other.kind() == CGROUP_ID => {
                    socket.cgroup = value(other).map(u64::from_ne_bytes);
                }
                Nla::Other(other) if other.kind() == OPTIONS => {
                    let options: Option<[u8; 2]> = value(other);
                    socket.is_of_proxy = options.map(|[first, _]| first & FREEBIND != 0);
                }
                _ => {}
            }
        }
        socket
    }
}

fn value<const LENGTH: usize>(attribute: &DefaultNla) -> Option<[u8; LENGTH]> {
    let mut value = [0; LENGTH];
    (attribute.value_len() == LENGTH).then(|| {
        attribute.emit_value(&mut value);
        value
    })
}

/// Which sockets are listed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Which {
    /// Listeners on this port.
    Listening(u16),
    /// Connections whose own end has this port.
    To(u16),
    /// Connections whose other end has this port.
    From(u16),
}

/// A conversation with the kernel.
pub(super) struct Diag(Socket);

impl Diag {
    pub(super) fn open() -> Result<Self, CutError> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
            socket.bind_auto()?;
            socket.connect(&NetlinkAddr::new(0, 0))?;
            SockRef::from(&socket).set_read_timeout(Some(PATIENCE))?;
            Ok(socket)
        };
        open().map(Self).map_err(|source| CutError::new("ask for connections", source))
    }

    /// Sockets of both families.
    pub(super) fn list(&self, which: Which) -> Result<Vec<TcpSocket>, CutError> {
        let mut sockets = Vec::new();
        for (family, mut socket_id) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
            let states = match which {
                Which::Listening(_) => StateFlags::LISTEN,
                Which::To(_) | Which::From(_) => StateFlags::ESTABLISHED,
            };
            match which {
                Which::Listening(port) | Which::To(port) => socket_id.source_port = port,
                Which::From(port) => socket_id.destination_port = port,
            }
            let request = InetRequest {
                family,
                protocol: IPPROTO_TCP,
                extensions: ExtensionFlags::INFO,
                states,
                socket_id,
            };
            let answer = self.exchange(NLM_F_REQUEST | NLM_F_DUMP, SockDiagMessage::InetRequest(request));
            sockets.extend(answer.map_err(|source| CutError::new("list connections", source))?);
        }
        Ok(sockets)
    }

    /// Ends a connection as if the other side had reset it; false when it is gone already.
    pub(super) fn destroy(&self, socket: &TcpSocket) -> Result<bool, CutError> {
        self.destroy_by_id(socket.family, socket.id.clone())
    }

    /// Fails where the kernel cannot end connections.
    pub(super) fn probe(&self) -> Result<(), CutError> {
        // No connection has port 0 on both sides.
        let nobody = SocketId { cookie: ANY_COOKIE, ..SocketId::new_v4() };
        self.destroy_by_id(AF_INET, nobody).map(drop)
    }

    fn destroy_by_id(&self, family: u8, socket_id: SocketId) -> Result<bool, CutError> {
        let request = InetRequest {
            family,
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::empty(),
            states: StateFlags::all(),
            socket_id,
        };
        let message = SockDiagDestroy::new(SockDiagMessage::InetRequest(request));
        match self.exchange(NLM_F_REQUEST | NLM_F_ACK, message) {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(source) => Err(CutError::new("cut connections", source)),
        }
    }

    /// Sends a request and reads until it is answered.
    fn exchange<M>(&self, flags: u16, message: M) -> io::Result<Vec<TcpSocket>>
    where
        M: NetlinkSerializable,
        NetlinkPayload<M>: From<M>,
    {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        let mut request = NetlinkMessage::new(header, message.into());
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.0.send(&bytes, 0)?;
        let mut sockets = Vec::new();
        let mut datagram = Vec::with_capacity(DATAGRAM);
        loop {
            datagram.clear();
            self.0.recv(&mut datagram, 0)?;
            if read_answer(&datagram, &mut sockets)? {
                return Ok(sockets);
            }
        }
    }
}

/// Reads one datagram of an answer; true when it was the last.
fn read_answer(mut datagram: &[u8], sockets: &mut Vec<TcpSocket>) -> io::Result<bool> {
    while !datagram.is_empty() {
        let message = NetlinkMessage::<SockDiagMessage>::deserialize(datagram).map_err(io::Error::other)?;
        // Messages are aligned to four bytes.
        let length = (message.header.length as usize).next_multiple_of(4).clamp(1, datagram.len());
        datagram = &datagram[length..];
        match message.payload {
            NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                sockets.push(TcpSocket::from_response(*response));
            }
            NetlinkPayload::Done(_) => return Ok(true),
            NetlinkPayload::Error(error) => {
                return error.code.map_or(Ok(true), |code| Err(io::Error::from_raw_os_error(-code.get())));
            }
            _ => {}
        }
    }
    Ok(false)
}
