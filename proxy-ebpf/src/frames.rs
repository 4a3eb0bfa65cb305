//! Makes Ethernet frames of every kind that the parser meets, for the tests here and for those that run the program.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::packet::{Packet, Plain};

/// Where a client is, where this node, and the API server's port.
pub const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 2);
pub const NODE_V4: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 1);
pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd80, 0, 0, 0, 0, 0, 0, 2);
pub const NODE_V6: Ipv6Addr = Ipv6Addr::new(0xfd80, 0, 0, 0, 0, 0, 0, 1);
pub const PORT: u16 = 6443;

pub const SYN: u8 = 0x02;
pub const SYN_ACK: u8 = 0x12;
pub const ACK: u8 = 0x10;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const TCP: u8 = 6;

/// A frame, and what is to be found in it.
#[derive(Debug)]
pub struct Case {
    pub name: &'static str,
    pub frame: Vec<u8>,
    /// Whether a segment to the API server is found and, if so, whether it is a SYN.
    pub is_syn: Option<bool>,
}

/// The bytes of a frame as a packet.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a>(pub &'a [u8]);

impl Packet for Bytes<'_> {
    fn read<T: Plain>(&self, offset: u32) -> Option<T> {
        let rest = self.0.get(offset as usize..)?;
        // SAFETY: as many bytes are there, and every bit pattern is a value of a `Plain` type.
        (rest.len() >= size_of::<T>()).then(|| unsafe { rest.as_ptr().cast::<T>().read_unaligned() })
    }
}

/// Frames of every kind.
pub fn cases() -> Vec<Case> {
    [plain(), tags(), options_and_fragments(), extensions(), broken()].into_iter().flatten().collect()
}

fn case(name: &'static str, frame: Vec<u8>, is_syn: Option<bool>) -> Case {
    Case { name, frame, is_syn }
}

fn plain() -> Vec<Case> {
    let udp = ethernet(&[], IPV4, &with_protocol(ipv4(&[], 0, &tcp(SYN)), 17));
    let mut other_port = syn_v4();
    other_port[14 + 20 + 3] ^= 1;
    let mut other_node = syn_v4();
    other_node[14 + 19] ^= 1;
    vec![
        case("SYN over IPv4", syn_v4(), Some(true)),
        case("ACK over IPv4", ethernet(&[], IPV4, &ipv4(&[], 0, &tcp(ACK))), Some(false)),
        case("SYN and ACK", ethernet(&[], IPV4, &ipv4(&[], 0, &tcp(SYN_ACK))), Some(false)),
        case("SYN with ECN flags", ethernet(&[], IPV4, &ipv4(&[], 0, &tcp(SYN | 0xc0))), Some(true)),
        case("SYN over IPv6", ethernet(&[], IPV6, &ipv6(&[], &tcp(SYN))), Some(true)),
        case("ACK over IPv6", ethernet(&[], IPV6, &ipv6(&[], &tcp(ACK))), Some(false)),
        case("data", ethernet(&[], IPV4, &ipv4(&[], 0, &[tcp(ACK), vec![7; 1000]].concat())), Some(false)),
        case("padding after the packet", [syn_v4(), vec![0; 6]].concat(), Some(true)),
        case("UDP", udp, None),
        case("another port", other_port, None),
        case("another node's address", other_node, None),
        case("ARP", ethernet(&[], 0x0806, &[0; 46]), None),
        case("a length where the type is (802.3)", ethernet(&[], 46, &[0; 46]), None),
    ]
}

fn tags() -> Vec<Case> {
    let packet = ipv4(&[], 0, &tcp(SYN));
    let six = ipv6(&[], &tcp(ACK));
    vec![
        case("one tag", ethernet(&[0x8100], IPV4, &packet), Some(true)),
        case("two tags", ethernet(&[0x88a8, 0x8100], IPV4, &packet), Some(true)),
        case("two tags of the old kind", ethernet(&[0x9100, 0x8100], IPV6, &six), Some(false)),
        case("three tags", ethernet(&[0x88a8, 0x8100, 0x8100], IPV4, &packet), None),
        case("a tag and nothing known", ethernet(&[0x8100], 0x8847, &packet), None),
    ]
}

/// The flags Don't Fragment and More Fragments.
const DONT: u16 = 0x4000;
const MORE: u16 = 0x2000;

fn options_and_fragments() -> Vec<Case> {
    let with = |options: &[u8], fragment| ethernet(&[], IPV4, &ipv4(options, fragment, &tcp(SYN)));
    vec![
        case("the shortest options", with(&[1; 4], 0), Some(true)),
        case("the longest options", with(&[1; 40], 0), Some(true)),
        case("the longest options after two tags", long_way(), Some(true)),
        case("not to be fragmented", with(&[], DONT), Some(true)),
        case("the first fragment", with(&[], MORE), Some(true)),
        case("a later fragment", with(&[], MORE | 3), None),
        case("the last fragment", with(&[], 185), None),
    ]
}

fn long_way() -> Vec<u8> {
    ethernet(&[0x88a8, 0x8100], IPV4, &ipv4(&[1; 40], 0, &tcp(SYN)))
}

fn extensions() -> Vec<Case> {
    let with = |chain: &[(u8, Vec<u8>)], flags| ethernet(&[], IPV6, &ipv6(chain, &tcp(flags)));
    let fragment = |offset: u16, more: u16| {
        let field = (offset << 3 | more).to_be_bytes();
        (44, [vec![0, 0], field.to_vec(), vec![0; 4]].concat())
    };
    let options = |kind, units: u8| (kind, [vec![0, units], vec![0; usize::from(units) * 8 + 6]].concat());
    // Counted in units of four bytes, less two.
    let authentication = (51, [vec![0, 4], vec![0; 22]].concat());
    let many = |count| vec![options(60, 0); count];
    vec![
        case("hop-by-hop options", with(&[options(0, 0)], SYN), Some(true)),
        case("long destination options", with(&[options(60, 20)], SYN), Some(true)),
        case("routing and destination", with(&[options(43, 2), options(60, 0)], ACK), Some(false)),
        case("authentication", with(&[authentication], SYN), Some(true)),
        case("the first fragment over IPv6", with(&[options(0, 0), fragment(0, 1)], SYN), Some(true)),
        case("a later fragment over IPv6", with(&[fragment(9, 1)], SYN), None),
        case("the last fragment over IPv6", with(&[fragment(9, 0)], SYN), None),
        case("as many extensions as are read", with(&many(6), SYN), Some(true)),
        case("one extension more", with(&many(7), SYN), None),
        case("encrypted", with(&[options(50, 0)], SYN), None),
        case("nothing follows", with(&[options(59, 0)], SYN), None),
    ]
}

fn broken() -> Vec<Case> {
    let change = |frame: Vec<u8>, at: usize, value: &[u8]| {
        let mut frame = frame;
        frame[at..at + value.len()].copy_from_slice(value);
        frame
    };
    let six = || ethernet(&[], IPV6, &ipv6(&[], &tcp(SYN)));
    let header = 14;
    vec![
        case("IPv4 that says 6", change(syn_v4(), header, &[0x65]), None),
        case("IPv6 that says 4", change(six(), header, &[0x40]), None),
        case("a header of 12 bytes, and the port in the address after it", short_header(), None),
        case("a header of 16 bytes", change(syn_v4(), header, &[0x44]), None),
        case("a header of no bytes", change(syn_v4(), header, &[0x40]), None),
        case("a header longer than the frame", change(syn_v4(), header, &[0x4f]), None),
        case("a length that ends before TCP", change(syn_v4(), header + 2, &[0, 39]), None),
        case("a length that cannot be said", change(syn_v4(), header + 2, &[0, 0]), Some(true)),
        case("a payload that ends before TCP", change(six(), header + 4, &[0, 19]), None),
        case("a payload that cannot be said", change(six(), header + 4, &[0, 0]), Some(true)),
        case("an extension beyond the frame", change(six(), header + 6, &[60]), None),
        case("padding read as TCP", ethernet(&[], IPV4, &[ipv4(&[], 0, &[]), tcp(SYN)].concat()), None),
        case("a header cut off", syn_v4()[..14 + 20 + 19].to_vec(), None),
        case("only an Ethernet header", syn_v4()[..14].to_vec(), None),
    ]
}

/// Read as TCP, what follows the twelfth byte of the IP header would be a SYN to the API server's port.
fn short_header() -> Vec<u8> {
    let [high, low] = PORT.to_be_bytes();
    let mut frame = syn_from(Ipv4Addr::new(10, 80, high, low));
    frame[14] = 0x43;
    frame[14 + 12 + 13] = SYN;
    frame
}

/// A plain SYN.
pub fn syn_v4() -> Vec<u8> {
    ethernet(&[], IPV4, &ipv4(&[], 0, &tcp(SYN)))
}

/// A plain SYN to the API server of this node, from an address.
pub fn syn_from(source: Ipv4Addr) -> Vec<u8> {
    let mut frame = syn_v4();
    frame[14 + 12..14 + 16].copy_from_slice(&source.octets());
    frame
}

/// A frame with tags of these types.
pub fn ethernet(tags: &[u16], kind: u16, packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 100]);
    }
    frame.extend(kind.to_be_bytes());
    frame.extend(packet);
    frame
}

/// An IPv4 packet of TCP from the client to the node.
pub fn ipv4(options: &[u8], fragment: u16, payload: &[u8]) -> Vec<u8> {
    let header = 20 + options.len();
    let length = u16::try_from(header + payload.len()).expect("a short packet");
    let mut packet = vec![0x40 | u8::try_from(header / 4).expect("at most 60"), 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 1]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, TCP, 0, 0]);
    packet.extend(CLIENT_V4.octets());
    packet.extend(NODE_V4.octets());
    packet.extend(options);
    packet.extend(payload);
    packet
}

fn with_protocol(mut packet: Vec<u8>, protocol: u8) -> Vec<u8> {
    packet[9] = protocol;
    packet
}

/// An IPv6 packet of TCP from the client to the node, with extension headers: what each is, and its bytes.
pub fn ipv6(chain: &[(u8, Vec<u8>)], payload: &[u8]) -> Vec<u8> {
    let following = |at: usize| chain.get(at).map_or(TCP, |(kind, _)| *kind);
    let mut rest = Vec::new();
    for (at, (_, bytes)) in chain.iter().enumerate() {
        let begin = rest.len();
        rest.extend(bytes);
        rest[begin] = following(at + 1);
    }
    rest.extend(payload);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(rest.len()).expect("a short packet").to_be_bytes());
    packet.extend([following(0), 64]);
    packet.extend(CLIENT_V6.octets());
    packet.extend(NODE_V6.octets());
    packet.extend(rest);
    packet
}

/// A TCP header to the API server's port.
pub fn tcp(flags: u8) -> Vec<u8> {
    let mut header = 40_000_u16.to_be_bytes().to_vec();
    header.extend(PORT.to_be_bytes());
    header.extend([0; 8]);
    header.extend([0x50, flags]);
    header.extend([0xff; 2]);
    header.extend([0; 4]);
    header
}

/// Frames made from those of [`cases`] by changing some bytes or cutting off the end; the same ones each time.
pub fn mutations(count: usize) -> impl Iterator<Item = Vec<u8>> {
    let frames: Vec<_> = cases().into_iter().map(|case| case.frame).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = move |limit: usize| {
        // xorshift64.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % limit as u64).expect("below a usize")
    };
    (0..count).map(move |_| {
        let mut frame = frames[below(frames.len())].clone();
        for _ in 0..=below(3) {
            let at = below(frame.len());
            frame[at] = [0, 0xff, 4, 6, 0x45, 44, 60][below(7)] ^ u8::try_from(below(4)).expect("below 4");
        }
        if below(3) == 0 {
            frame.truncate(14 + below(frame.len() - 13));
        }
        frame
    })
}
