//! Finds the TCP segment in an Ethernet frame; what is cut short, strange or too deeply wrapped has none.

use crate::address::Address;

/// The bytes of a frame.
pub trait Packet {
    /// Copies what lies at an offset; none where that is not all within the frame.
    fn read<T: Plain>(&self, offset: u32) -> Option<T>;
}

/// What can be copied out of a frame.
///
/// # Safety
///
/// `repr(C)`, made of integers only and free of padding.
pub unsafe trait Plain: Copy {}

// SAFETY: an integer.
unsafe impl Plain for u16 {}
// SAFETY: 2 + 2 bytes, aligned to 2.
unsafe impl Plain for Tag {}
// SAFETY: 1 + 1 + 2 + 2 + 2 + 1 + 1 + 2 + 4 + 4 bytes, every field at a multiple of its size.
unsafe impl Plain for Ipv4 {}
// SAFETY: 4 + 2 + 1 + 1 + 16 + 16 bytes, every field at a multiple of its size.
unsafe impl Plain for Ipv6 {}
// SAFETY: 1 + 1 + 2 bytes.
unsafe impl Plain for Extension {}
// SAFETY: 2 + 2 + 4 + 4 + 1 + 1 + 3 * 2 bytes, every field at a multiple of its size.
unsafe impl Plain for Tcp {}

/// An IEEE 802.1Q tag, after the type that announces it; all fields in network order, as in all headers below.
#[repr(C)]
#[derive(Clone, Copy)]
struct Tag {
    control: u16,
    kind: u16,
}

/// RFC 791 without options.
#[repr(C)]
#[derive(Clone, Copy)]
struct Ipv4 {
    version_and_words: u8,
    service: u8,
    length: u16,
    id: u16,
    flags_and_fragment: u16,
    time_to_live: u8,
    protocol: u8,
    checksum: u16,
    source: u32,
    destination: u32,
}

/// RFC 8200.
#[repr(C)]
#[derive(Clone, Copy)]
struct Ipv6 {
    version_and_flow: u32,
    payload: u16,
    next: u8,
    hop_limit: u8,
    source: [u32; 4],
    destination: [u32; 4],
}

/// The beginning of an extension header; in a fragment header, the last two bytes are offset and flags.
#[repr(C)]
#[derive(Clone, Copy)]
struct Extension {
    next: u8,
    length: u8,
    fragment: u16,
}

/// RFC 9293 without options.
#[repr(C)]
#[derive(Clone, Copy)]
struct Tcp {
    source_port: u16,
    destination_port: u16,
    sequence: u32,
    acknowledgement: u32,
    words: u8,
    flags: u8,
    window: u16,
    checksum: u16,
    urgent: u16,
}

const _: () = {
    assert!(size_of::<Tag>() == 4);
    assert!(size_of::<Ipv4>() == 20);
    assert!(size_of::<Ipv6>() == 40);
    assert!(size_of::<Extension>() == 4);
    assert!(size_of::<Tcp>() == 20);
};

/// Where the type stands in an Ethernet header, and where that ends.
const ETHERNET_TYPE: u32 = 12;
const ETHERNET: u32 = 14;
/// 802.1Q, 802.1ad, and what stood for the latter before it was a standard.
const TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// IANA protocol numbers.
const HOP_BY_HOP: u8 = 0;
const TCP: u8 = 6;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// A TCP segment, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub source: Address,
    pub destination: Address,
    /// Destination port in host order.
    pub port: u16,
    /// Whether it asks for a connection.
    pub is_syn: bool,
}

/// The segment in a frame; of fragments only the first has one.
///
/// Nothing in here loops: for a loader without `CAP_PERFMON` the verifier also follows mispredicted branches, and on those a
/// loop has no end.
#[inline(always)]
pub fn parse(packet: &impl Packet) -> Option<Segment> {
    let (mut kind, mut at) = (u16::from_be(packet.read(ETHERNET_TYPE)?), ETHERNET);
    macro_rules! tags {
        ($($nth:literal)+) => {$(
            const { assert!($nth < 2) };
            if is_tag(kind) {
                kind = u16::from_be(packet.read::<Tag>(at)?.kind);
                at += 4;
            }
        )+};
    }
    tags!(0 1);
    match kind {
        IPV4 => ipv4(packet, at),
        IPV6 => ipv6(packet, at),
        _ => None,
    }
}

#[inline(always)]
fn is_tag(kind: u16) -> bool {
    kind == TAGS[0] || kind == TAGS[1] || kind == TAGS[2]
}

#[inline(always)]
fn ipv4(packet: &impl Packet, at: u32) -> Option<Segment> {
    /// The 13 bits of the offset; the flags above do not matter.
    const OFFSET: u16 = 0x1fff;
    let header: Ipv4 = packet.read(at)?;
    let words = u32::from(header.version_and_words & 0xf);
    let is_sound = header.version_and_words >> 4 == 4 && words >= 5;
    let is_first = u16::from_be(header.flags_and_fragment) & OFFSET == 0;
    if !is_sound || !is_first || header.protocol != TCP {
        return None;
    }
    // The frame may be padded, and what lies beyond the packet is not a header.
    let length = u32::from(u16::from_be(header.length));
    if !holds_tcp(length, words * 4) {
        return None;
    }
    tcp(packet, at + words * 4, Address::v4(header.source), Address::v4(header.destination))
}

#[inline(always)]
fn ipv6(packet: &impl Packet, at: u32) -> Option<Segment> {
    let header: Ipv6 = packet.read(at)?;
    if u32::from_be(header.version_and_flow) >> 28 != 6 {
        return None;
    }
    let begin = at + 40;
    let mut chain = Chain { next: header.next, at: begin };
    macro_rules! links {
        ($($nth:literal)+) => {$(
            const { assert!($nth < MOST_EXTENSIONS) };
            chain = chain.skip(packet)?;
        )+};
    }
    links!(0 1 2 3 4 5);
    let payload = u32::from(u16::from_be(header.payload));
    if chain.next != TCP || !holds_tcp(payload, chain.at - begin) {
        return None;
    }
    tcp(packet, chain.at, Address::v6(header.source), Address::v6(header.destination))
}

/// RFC 8200 recommends seven at most, and nobody sends more than two or three.
pub const MOST_EXTENSIONS: u32 = 6;

/// Whether what a length field counts has room for a TCP header after so many bytes; 0 stands for more than the field can say.
#[inline(always)]
fn holds_tcp(length: u32, before: u32) -> bool {
    length == 0 || length >= before + 20
}

/// The headers before the segment of an IPv6 packet.
#[derive(Clone, Copy)]
struct Chain {
    /// What lies there.
    next: u8,
    at: u32,
}

impl Chain {
    /// Goes past an extension header, if one lies there; none if what follows cannot be known.
    #[inline(always)]
    fn skip(self, packet: &impl Packet) -> Option<Self> {
        if self.next == TCP {
            return Some(self);
        }
        let is_known = self.next == HOP_BY_HOP
            || self.next == ROUTING
            || self.next == FRAGMENT
            || self.next == AUTHENTICATION
            || self.next == DESTINATION;
        if !is_known {
            return None;
        }
        let header: Extension = packet.read(self.at)?;
        let units = u32::from(header.length);
        let length = match self.next {
            FRAGMENT if u16::from_be(header.fragment) >> 3 != 0 => return None,
            FRAGMENT => 8,
            AUTHENTICATION => (units + 2) * 4,
            _ => (units + 1) * 8,
        };
        Some(Self { next: header.next, at: self.at + length })
    }
}

#[inline(always)]
fn tcp(packet: &impl Packet, at: u32, source: Address, destination: Address) -> Option<Segment> {
    let header: Tcp = packet.read(at)?;
    let port = u16::from_be(header.destination_port);
    Some(Segment { source, destination, port, is_syn: header.flags & (SYN | ACK) == SYN })
}

#[cfg(test)]
mod tests;
