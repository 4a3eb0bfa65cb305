//! Asks the kernel about network interfaces: what they carry, which XDP program is on them, which addresses they have.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use socket2::SockRef;

use super::XdpError;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// As the operator wrote it.
    pub name: String,
    /// What the kernel calls it.
    pub index: u32,
    /// Whether its frames begin with an Ethernet header.
    pub is_ethernet: bool,
    /// Identifier of the XDP program on it, and how that runs.
    pub program: Option<(u32, XdpMode)>,
}

/// How an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver, or on the card.
    Native,
    /// After the driver, where it cannot do it; slower.
    Generic,
}

impl XdpMode {
    /// Its name, for people and metrics.
    pub fn name(self) -> &'static str {
        match self {
            XdpMode::Native => "native",
            XdpMode::Generic => "generic",
        }
    }
}

/// `RTM_GETLINK` and `RTM_NEWLINK` of linux/rtnetlink.h.
const GET_LINK: u16 = 18;
const NEW_LINK: u16 = 16;
/// `NLMSG_ERROR` and `NLM_F_REQUEST` of linux/netlink.h.
const ERROR: u16 = 2;
const REQUEST: u16 = 1;
/// `ARPHRD_ETHER` and `ARPHRD_LOOPBACK` of `linux/if_arp.h`; loopback frames have an Ethernet header too.
const ETHERNET: [u16; 2] = [1, 772];
/// `IFLA_XDP`, and in it `IFLA_XDP_ATTACHED` and `IFLA_XDP_PROG_ID`, of `linux/if_link.h`.
const XDP: u16 = 43;
const ATTACHED: u16 = 2;
const PROGRAM: u16 = 4;
/// `XDP_ATTACHED_NONE` and `XDP_ATTACHED_SKB` of `linux/if_link.h`; all others run in a driver or a card.
const NONE: u8 = 0;
const SKB: u8 = 2;
/// Lengths of `struct nlmsghdr` and `struct ifinfomsg`.
const HEADER: usize = 16;
const LINK: usize = 16;
/// The kernel answers at once; this only bounds what nobody expects.
const PATIENCE: Duration = Duration::from_secs(5);

impl Device {
    /// Looks an interface up in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// [`XdpError::NoInterface`], or netlink does not work.
    pub fn find(name: &str) -> Result<Self, XdpError> {
        let missing = || XdpError::NoInterface { interface: name.to_owned() };
        let index = if_nametoindex(name).map_err(|_| missing())?;
        let answer =
            ask(index).map_err(|source| XdpError::Netlink { action: "ask for an interface", source })?;
        read(name, index, &answer).ok_or_else(missing)
    }
}

fn ask(index: u32) -> io::Result<Vec<u8>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    SockRef::from(&socket).set_read_timeout(Some(PATIENCE))?;
    let mut request = Vec::with_capacity(HEADER + LINK);
    request.extend(32_u32.to_ne_bytes());
    request.extend(GET_LINK.to_ne_bytes());
    request.extend(REQUEST.to_ne_bytes());
    // Sequence, port; family and type.
    request.extend([0; 8 + 4]);
    request.extend(index.to_ne_bytes());
    // Flags and their mask.
    request.extend([0; 8]);
    socket.send(&request, 0)?;
    Ok(socket.recv_from_full()?.0)
}

/// Reads an `RTM_NEWLINK`; none for an error, which says that there is no such interface.
fn read(name: &str, index: u32, answer: &[u8]) -> Option<Device> {
    let kind = u16_at(answer, 4)?;
    if kind == ERROR || kind != NEW_LINK {
        return None;
    }
    let is_ethernet = ETHERNET.contains(&u16_at(answer, HEADER + 2)?);
    let xdp = attribute(answer.get(HEADER + LINK..)?, XDP).unwrap_or_default();
    let attached = attribute(xdp, ATTACHED).and_then(|value| value.first().copied()).unwrap_or(NONE);
    let program = attribute(xdp, PROGRAM).and_then(|value| Some(u32::from_ne_bytes(*value.first_chunk()?)));
    let mode = if attached == SKB { XdpMode::Generic } else { XdpMode::Native };
    let program = program.filter(|_| attached != NONE).map(|program| (program, mode));
    Some(Device { name: name.to_owned(), index, is_ethernet, program })
}

/// The value of an attribute in a list of them.
fn attribute(mut list: &[u8], wanted: u16) -> Option<&[u8]> {
    /// The upper two bits are flags (`NLA_TYPE_MASK`).
    const KIND: u16 = 0x3fff;
    loop {
        let (length, kind) = (usize::from(u16_at(list, 0)?), u16_at(list, 2)? & KIND);
        let value = list.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        list = list.get(length.next_multiple_of(4)..)?;
    }
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// Addresses of this node, those of the interfaces given first.
pub(super) fn own_addresses(interfaces: &[&str]) -> Result<Vec<IpAddr>, XdpError> {
    let all = getifaddrs()
        .map_err(|error| XdpError::Netlink { action: "list own addresses", source: error.into() })?;
    let found = all.filter_map(|entry| {
        let storage = entry.address?;
        let ip = storage
            .as_sockaddr_in()
            .map(|v4| IpAddr::V4(v4.ip()))
            .or_else(|| storage.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))?;
        Some((interfaces.contains(&entry.interface_name.as_str()), ip))
    });
    let (first, rest): (Vec<_>, Vec<_>) = found.partition(|(is_first, _)| *is_first);
    Ok(first.into_iter().chain(rest).map(|(_, ip)| ip).collect())
}

#[cfg(test)]
mod tests;
