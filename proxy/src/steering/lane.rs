//! Names the source ports by which proxies know each other's requests.

use std::fmt;

/// Source ports from which a proxy dials peers. A peer's kernel passes them on to its API server: the request was with a
/// proxy already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LanePorts {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

impl LanePorts {
    /// What all proxies use that are not told otherwise: ports that neither Linux, which chooses from 32768 to 60999, nor NAT
    /// gives to a client of no privilege (netfilter's `nf_nat_l4proto_unique_tuple`).
    pub const DEFAULT: Self = Self { first: 700, last: 955 };

    /// Whether a port is one of them.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl fmt::Display for LanePorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}
