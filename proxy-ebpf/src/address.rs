//! Holds addresses in the words in which contexts and packets have them.

use mvproxy_common::{PeerKey, SourceKey};

/// An IPv6 or v4-mapped address, in the words in which contexts hold it.
///
/// Keys are made from whole words: bytes one by one become a call of memset, whose loop the verifier refuses to
/// a loader without `CAP_PERFMON`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// In network order, as they lie in memory.
    pub words: [u32; 4],
}

impl Address {
    /// The v4-mapped form of an IPv4 address in network order.
    #[inline(always)]
    pub fn v4(word: u32) -> Self {
        Self { words: [0, 0, u32::from_ne_bytes([0, 0, 0xff, 0xff]), word] }
    }

    /// An IPv6 address in network order.
    #[inline(always)]
    pub fn v6(words: [u32; 4]) -> Self {
        Self { words }
    }

    /// Whether it is one of 127.0.0.0/8, or `::1`.
    #[inline(always)]
    pub fn is_loopback(self) -> bool {
        let [first, second, third, fourth] = self.words;
        let is_mapped = third == u32::from_ne_bytes([0, 0, 0xff, 0xff]) && u32::from_be(fourth) >> 24 == 127;
        let is_one = third == 0 && u32::from_be(fourth) == 1;
        first == 0 && second == 0 && (is_mapped || is_one)
    }

    #[inline(always)]
    pub fn source_key(self) -> SourceKey {
        // SAFETY: SourceKey is 16 bytes of address in network order, which is how the words lie in memory.
        unsafe { core::mem::transmute(self.words) }
    }

    /// The key of a peer; `port` is in host order.
    #[inline(always)]
    pub fn peer_key(self, port: u16) -> PeerKey {
        let [first, second, third, fourth] = self.words;
        let [low, high] = port.to_ne_bytes();
        // SAFETY: PeerKey is the 16 bytes of the address, the port in host order, and six bytes of zero.
        unsafe {
            core::mem::transmute([first, second, third, fourth, u32::from_ne_bytes([low, high, 0, 0]), 0])
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use mvproxy_common::v4_mapped;

    use super::*;

    #[test]
    fn keys_are_those_that_the_proxy_makes() {
        let ip = Ipv4Addr::new(10, 1, 2, 3);
        let v4 = Address::v4(u32::from_ne_bytes(ip.octets()));
        assert_eq!(v4.source_key(), SourceKey { addr: v4_mapped(ip.octets()) });
        assert_eq!(v4.peer_key(6443), PeerKey { addr: v4_mapped(ip.octets()), port: 6443, pad: [0; 6] });

        let octets = "fd00:1:2:3:4:5:6:7".parse::<Ipv6Addr>().expect("an address").octets();
        let (words, _) = octets.as_chunks::<4>();
        let v6 = Address::v6([words[0], words[1], words[2], words[3]].map(u32::from_ne_bytes));
        assert_eq!(v6.source_key(), SourceKey { addr: octets });
        assert_eq!(v6.peer_key(0x1234), PeerKey { addr: octets, port: 0x1234, pad: [0; 6] });
    }

    #[test]
    fn loopback_is_told_from_its_neighbours() {
        for (text, expected) in [
            ("127.0.0.1", true),
            ("127.64.43.1", true),
            ("127.255.255.255", true),
            ("::1", true),
            ("126.255.255.255", false),
            ("128.0.0.1", false),
            ("0.0.0.127", false),
            ("::2", false),
            ("::", false),
            ("::7f00:1", false),
            ("1::1", false),
            ("0:1::1", false),
        ] {
            let octets = match text.parse().expect("an address") {
                IpAddr::V4(ip) => v4_mapped(ip.octets()),
                IpAddr::V6(ip) => ip.octets(),
            };
            let (words, _) = octets.as_chunks::<4>();
            let words = [words[0], words[1], words[2], words[3]].map(u32::from_ne_bytes);
            assert_eq!(Address { words }.is_loopback(), expected, "{text}");
        }
    }
}
