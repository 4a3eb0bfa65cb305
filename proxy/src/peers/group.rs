//! Tells from static entries, `EndpointSlices` and Leases which servers there are. Pure: no IO, no clock.
//!
//! Static entries and slices are believed. A Lease only adds: an address for a server that is believed in, or, where
//! its address is allowed, a server to be asked, of which nothing is held against anybody until it has answered. No
//! Lease takes an address away, so a forged one can at most have another address tried.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use tokio::time::Instant;

use super::lease::{Announcement, Announcements};
use super::slice::Endpoint;
use super::{Peer, PeerList};
use crate::discovery::ServerSet;

/// Peers one snapshot can hold beside the local server.
const MOST_PEERS: usize = ServerSet::CAPACITY - 2;
/// Of them, those that only a Lease speaks of.
const MOST_HINTED: usize = 16;
/// Addresses of one server that are tried.
const MOST_ADDRESSES: usize = 4;

/// What is known of who the servers are.
#[derive(Debug)]
pub(super) struct Sources<'a> {
    /// One set per static entry.
    pub(super) statics: &'a [BTreeSet<SocketAddr>],
    pub(super) endpoints: &'a [Endpoint],
    pub(super) identities: &'a Announcements,
    pub(super) proxies: &'a Announcements,
}

/// What a list is made by.
#[derive(Debug)]
pub(super) struct Rules<'a, F> {
    /// Whether an address is the own API server's.
    pub(super) is_own: F,
    /// The own node's name.
    pub(super) hostname: Option<&'a str>,
    /// Networks in which Leases may name servers (`--peer-allowed-cidrs`).
    pub(super) allowed: &'a [IpNet],
    /// Whether IPv4 is this node's first choice.
    pub(super) prefers_v4: bool,
    pub(super) now: Instant,
}

/// One server in the making.
#[derive(Debug, Default)]
struct Group {
    addresses: Vec<SocketAddr>,
    hinted: bool,
    holders: u64,
}

impl<F: Fn(&SocketAddr) -> bool> Rules<'_, F> {
    /// The list, in an order that only depends on what is known, and how many servers are believed in beyond it.
    pub(super) fn list(&self, sources: &Sources<'_>) -> (PeerList, usize) {
        let mut groups = self.believed(sources);
        let known_ips: BTreeSet<IpAddr> =
            groups.iter().flat_map(|group| &group.addresses).map(SocketAddr::ip).collect();
        groups.retain(|group| !group.addresses.iter().any(&self.is_own));
        let left_out = groups.len().saturating_sub(MOST_PEERS);
        if left_out > 0 {
            let own_words = sources.endpoints.iter().filter(|endpoint| endpoint.is_own_word);
            let own_words: BTreeSet<SocketAddr> = own_words.map(|endpoint| endpoint.address).collect();
            groups.sort_by_key(|group| !group.addresses.iter().any(|address| own_words.contains(address)));
            groups.truncate(MOST_PEERS);
        }
        self.add_hints(&mut groups, &known_ips, sources);
        let others = self.attach_identities(&mut groups, sources.identities);
        let mut peers: Vec<Peer> = groups.into_iter().map(Group::into_peer).collect();
        peers.truncate(MOST_PEERS);
        (PeerList { peers, others }, left_out)
    }

    /// The servers that static entries and slices name.
    fn believed(&self, sources: &Sources<'_>) -> Vec<Group> {
        let mut groups = Vec::new();
        for entry in sources.statics {
            let of_family = |v4: bool| entry.iter().filter(move |address| address.is_ipv4() == v4).count();
            // A name with one address of each kind is one server; with more it is a name of several.
            if of_family(true) <= 1 && of_family(false) <= 1 {
                self.add(&mut groups, entry.iter().copied());
            } else {
                for address in entry {
                    self.add(&mut groups, [*address]);
                }
            }
        }
        let mut by_server: BTreeMap<&str, Vec<SocketAddr>> = BTreeMap::new();
        for endpoint in sources.endpoints {
            if let Some(server) = &endpoint.server {
                by_server.entry(server).or_default().push(endpoint.address);
            }
        }
        for addresses in by_server.into_values() {
            self.add(&mut groups, addresses);
        }
        for address in self.nameless(sources) {
            self.add(&mut groups, [address]);
        }
        groups
    }

    /// Addresses of which slices do not say whose they are. Of a service with both IP versions each server has a place in
    /// both: where the number of servers bears that out, one version is enough.
    fn nameless(&self, sources: &Sources<'_>) -> Vec<SocketAddr> {
        let nameless = sources.endpoints.iter().filter(|endpoint| endpoint.server.is_none());
        let all: BTreeSet<SocketAddr> = nameless.map(|endpoint| endpoint.address).collect();
        let (mut v4, v6): (Vec<_>, Vec<_>) = all.into_iter().partition(SocketAddr::is_ipv4);
        let servers = sources.identities.iter().filter(|(_, lease)| lease.is_live(self.now)).count();
        if v4.len() == v6.len() && v4.len() == servers {
            return if self.prefers_v4 { v4 } else { v6 };
        }
        v4.extend(v6);
        v4
    }

    /// Adds a server, or further addresses of one that is there.
    fn add(&self, groups: &mut Vec<Group>, addresses: impl IntoIterator<Item = SocketAddr>) {
        let mut addresses: Vec<SocketAddr> = addresses.into_iter().collect();
        addresses.sort_unstable_by_key(|address| (address.is_ipv4() != self.prefers_v4, *address));
        let known = groups.iter().position(|group| group.addresses.iter().any(|one| addresses.contains(one)));
        addresses.retain(|address| !groups.iter().any(|group| group.addresses.contains(address)));
        match known {
            Some(known) => groups[known].addresses.extend(addresses),
            None if addresses.is_empty() => {}
            None => groups.push(Group { addresses, ..Group::default() }),
        }
    }

    /// Adds what Leases say: addresses of servers that are there, and, up to a few, servers of their own.
    fn add_hints(&self, groups: &mut Vec<Group>, known_ips: &BTreeSet<IpAddr>, sources: &Sources<'_>) {
        let is_allowed =
            |ip: IpAddr| known_ips.contains(&ip) || self.allowed.iter().any(|network| network.contains(&ip));
        let mut hints: Vec<Hint<'_>> =
            hints(sources, self.now).filter(|hint| is_allowed(hint.address.ip())).collect();
        // Those of servers that are believed in come before any that only an allowed network speaks for, and what an
        // operator wrote on a flag before what an API server found out about itself.
        hints.sort_unstable_by_key(|hint| {
            (!known_ips.contains(&hint.address.ip()), hint.is_identity, hint.name, hint.address)
        });
        let twins = Twins::new(sources, self.now);
        let hosts = Hosts::new(&hints);
        let mut hinted = 0;
        for hint in &hints {
            let twin = hint.hostname.and_then(|hostname| twins.other(hostname, hint.address));
            let is_known = groups.iter().any(|group| group.addresses.contains(&hint.address));
            if is_known || self.is_mine(hint, twin) {
                continue;
            }
            let of_twin = twin.and_then(|twin| position(groups, |address| *address == twin));
            let server = of_twin.or_else(|| hosts.only_server_at(hint.address.ip(), groups));
            match server.map(|server| &mut groups[server].addresses) {
                Some(addresses) if addresses.len() < MOST_ADDRESSES => addresses.push(hint.address),
                None if hinted < MOST_HINTED => {
                    hinted += 1;
                    groups.push(Group { addresses: vec![hint.address], hinted: true, ..Group::default() });
                }
                _ => {}
            }
        }
    }

    fn is_mine(&self, hint: &Hint<'_>, twin: Option<SocketAddr>) -> bool {
        let on_my_node = hint.is_identity && hint.hostname.is_some() && hint.hostname == self.hostname;
        on_my_node || (self.is_own)(&hint.address) || twin.is_some_and(|twin| (self.is_own)(&twin))
    }

    /// Notes which process each server is; what no server is found for is told together.
    fn attach_identities(&self, groups: &mut [Group], identities: &Announcements) -> u64 {
        let mut by_address: BTreeMap<SocketAddr, usize> = BTreeMap::new();
        for (number, group) in groups.iter().enumerate() {
            by_address.extend(group.addresses.iter().map(|address| (*address, number)));
        }
        let mut others = 0_u64;
        for (_, lease) in identities.iter().filter(|(_, lease)| lease.is_live(self.now)) {
            match lease.address.and_then(|address| by_address.get(&address)) {
                Some(group) => groups[*group].holders = groups[*group].holders.wrapping_add(lease.holder),
                None => others = others.wrapping_add(lease.holder),
            }
        }
        others
    }
}

impl Group {
    fn into_peer(self) -> Peer {
        Peer { addresses: self.addresses, hinted: self.hinted, incarnation: self.holders }
    }
}

/// Where a Lease says that a server is.
struct Hint<'a> {
    name: &'a str,
    hostname: Option<&'a str>,
    address: SocketAddr,
    is_identity: bool,
}

fn hints<'a>(sources: &Sources<'a>, now: Instant) -> impl Iterator<Item = Hint<'a>> {
    let of = move |leases: &'a Announcements, is_identity| {
        leases.iter().filter(move |(_, lease)| lease.is_live(now)).filter_map(move |(name, lease)| {
            let hostname = lease.hostname.as_deref();
            lease.address.map(|address| Hint { name, hostname, address, is_identity })
        })
    };
    of(sources.proxies, false).chain(of(sources.identities, true))
}

/// Nodes on which just one API server and just one proxy announce themselves: what these two name is one server.
struct Twins<'a>(BTreeMap<&'a str, [Side; 2]>);

#[derive(Clone, Copy, Default)]
struct Side {
    leases: usize,
    address: Option<SocketAddr>,
}

impl<'a> Twins<'a> {
    fn new(sources: &Sources<'a>, now: Instant) -> Self {
        let mut nodes: BTreeMap<&'a str, [Side; 2]> = BTreeMap::new();
        for (side, leases) in [sources.proxies, sources.identities].into_iter().enumerate() {
            let live =
                leases.iter().map(|(_, lease)| lease).filter(|lease: &&'a Announcement| lease.is_live(now));
            for lease in live {
                let Some(hostname) = lease.hostname.as_deref() else { continue };
                let side = &mut nodes.entry(hostname).or_default()[side];
                side.leases += 1;
                side.address = lease.address;
            }
        }
        Self(nodes)
    }

    /// The other address of the node's server.
    fn other(&self, hostname: &str, address: SocketAddr) -> Option<SocketAddr> {
        let sides = self.0.get(hostname)?;
        if sides.iter().any(|side| side.leases != 1) {
            return None;
        }
        sides.iter().filter_map(|side| side.address).find(|other| *other != address)
    }
}

fn position(groups: &[Group], is_it: impl Fn(&SocketAddr) -> bool) -> Option<usize> {
    groups.iter().position(|group| group.addresses.iter().any(&is_it))
}

/// How many addresses Leases name on each host.
struct Hosts(BTreeMap<IpAddr, BTreeSet<SocketAddr>>);

impl Hosts {
    fn new(hints: &[Hint<'_>]) -> Self {
        let mut hosts: BTreeMap<IpAddr, BTreeSet<SocketAddr>> = BTreeMap::new();
        for hint in hints {
            hosts.entry(hint.address.ip()).or_default().insert(hint.address);
        }
        Self(hosts)
    }

    /// The server whose other port a Lease names: slices have one port for all servers, the last writer's. Where several
    /// are named on a host, or several servers are known there, nobody can say.
    fn only_server_at(&self, ip: IpAddr, groups: &[Group]) -> Option<usize> {
        if self.0.get(&ip).is_none_or(|addresses| addresses.len() != 1) {
            return None;
        }
        let mut there =
            (0..groups.len()).filter(|number| groups[*number].addresses.iter().any(|one| one.ip() == ip));
        let first = there.next();
        first.filter(|_| there.next().is_none())
    }
}

#[cfg(test)]
mod tests;
