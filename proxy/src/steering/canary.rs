//! Says which clients are steered, where not all are.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use mvproxy_common::{SourceKey, spread, v4_mapped};

/// The clients whose connections are steered; all by default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary {
    /// Networks of their addresses; empty for all (`--steer-sources`).
    pub sources: Vec<IpNet>,
    /// Of the addresses in them, how many in a hundred, 1 to 100 (`--steer-percent`).
    pub percent: u8,
}

/// Length of the prefix that all v4-mapped addresses share.
const MAPPED: u32 = 96;

impl Canary {
    /// Whether every client is steered.
    pub fn is_everyone(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the kernel steers this client, v4-mapped addresses unmapped.
    pub fn chooses(&self, client: IpAddr) -> bool {
        let is_listed =
            self.sources.is_empty() || self.sources.iter().any(|network| network.contains(&client));
        let addr = source_key(client).addr;
        let (words, _) = addr.as_chunks::<4>();
        let words = [words[0], words[1], words[2], words[3]].map(u32::from_ne_bytes);
        is_listed && (self.percent >= 100 || spread(0, words) % 100 < u32::from(self.percent))
    }

    /// Entries of `STEER_SOURCES`: length of the prefix, address, whether it is steered.
    pub(super) fn rules(&self) -> Vec<(u32, SourceKey, u32)> {
        // Else ::/0 would be all of IPv4 too.
        let ipv4 = (MAPPED, source_key(Ipv4Addr::UNSPECIFIED.into()), 0);
        let listed = self.sources.iter().map(|network| match network.network() {
            ip @ IpAddr::V4(_) => (MAPPED + u32::from(network.prefix_len()), source_key(ip), 1),
            ip @ IpAddr::V6(_) => (u32::from(network.prefix_len()), source_key(ip), 1),
        });
        std::iter::once(ipv4).filter(|_| !self.sources.is_empty()).chain(listed).collect()
    }
}

/// A client's address as the maps have it.
pub(super) fn source_key(source: IpAddr) -> SourceKey {
    let addr = match source {
        IpAddr::V4(ip) => v4_mapped(ip.octets()),
        IpAddr::V6(ip) => ip.octets(),
    };
    SourceKey { addr }
}

impl Default for Canary {
    fn default() -> Self {
        Self { sources: Vec::new(), percent: 100 }
    }
}

impl fmt::Display for Canary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.percent {
            100 => write!(f, "all clients")?,
            percent => write!(f, "{percent}% of client addresses")?,
        }
        match &self.sources[..] {
            [] => Ok(()),
            [one] => write!(f, " in {one}"),
            [first, rest @ ..] => write!(f, " in {first} and {} more networks", rest.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canaries_are_described_and_told_from_everyone() {
        let networks = |all: &[&str]| all.iter().map(|one| one.parse().expect("a network")).collect();
        for (sources, percent, expected) in [
            (&[][..], 100, "all clients"),
            (&[][..], 5, "5% of client addresses"),
            (&["10.0.0.0/8"][..], 100, "all clients in 10.0.0.0/8"),
            (&["fd00::/8", "::1/128"][..], 50, "50% of client addresses in fd00::/8 and 1 more networks"),
        ] {
            let canary = Canary { sources: networks(sources), percent };
            assert_eq!(canary.to_string(), expected);
            assert_eq!(canary.is_everyone(), expected == "all clients");
        }
    }
}
