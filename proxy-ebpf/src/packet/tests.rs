use super::*;
use crate::frames::{self, Bytes, CLIENT_V4, CLIENT_V6, NODE_V4, NODE_V6, PORT, cases};

fn v4(ip: std::net::Ipv4Addr) -> Address {
    Address::v4(u32::from_ne_bytes(ip.octets()))
}

fn v6(ip: std::net::Ipv6Addr) -> Address {
    let octets = ip.octets();
    let (words, _) = octets.as_chunks::<4>();
    Address::v6([words[0], words[1], words[2], words[3]].map(u32::from_ne_bytes))
}

/// The segment, if it goes to the node's API server.
fn found(frame: &[u8]) -> Option<Segment> {
    let to_node = |segment: &Segment| [v4(NODE_V4), v6(NODE_V6)].contains(&segment.destination);
    parse(&Bytes(frame)).filter(|segment| segment.port == PORT && to_node(segment))
}

#[test]
fn segments_are_found_in_frames_of_every_kind() {
    for case in cases() {
        let segment = found(&case.frame);
        assert_eq!(segment.map(|segment| segment.is_syn), case.is_syn, "{}", case.name);
        if let Some(segment) = segment {
            let expected = if segment.destination == v4(NODE_V4) { v4(CLIENT_V4) } else { v6(CLIENT_V6) };
            assert_eq!(segment.source, expected, "{}", case.name);
        }
    }
}

#[test]
fn what_is_cut_off_has_no_segment() {
    for case in cases().iter().filter(|case| case.is_syn.is_some()) {
        // As long as the TCP header is whole, what follows does not matter.
        let shortest = (0..=case.frame.len()).find(|length| found(&case.frame[..*length]).is_some());
        let shortest = shortest.expect("the whole frame has one");
        let payload = match case.name {
            "data" => 1000,
            "padding after the packet" => 6,
            _ => 0,
        };
        assert_eq!(shortest, case.frame.len() - payload, "{}", case.name);
    }
}

#[test]
fn no_bytes_whatever_are_read_beyond_the_frame() {
    // The reader of the tests panics nowhere and reads nothing beyond; a parser that ran on would not end.
    let with_segment = frames::mutations(20_000).filter(|frame| found(frame).is_some()).count();
    assert!((2_000..18_000).contains(&with_segment), "{with_segment} of them have a segment");
}
