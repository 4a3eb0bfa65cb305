//! Gives typed access to the maps of what is counted on the wire.

use std::collections::HashMap as Known;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray, PerCpuHashMap, PerCpuValues};
use aya::util::nr_cpus;
use mvproxy_common::{CLASS_NAMES, MAX_XDP_ADDRESSES, ROLE_NODE, ROLE_PEER, SourceKey, XdpConfig, XdpStats};

use super::XdpCounts;
use crate::steering::SteeringError;
use crate::steering::canary::source_key;
use crate::steering::heartbeat::boot_ns;
use crate::steering::maps::take;

pub(super) struct XdpMaps {
    config: Array<MapData, XdpConfig>,
    addresses: HashMap<MapData, SourceKey, u32>,
    stats: PerCpuArray<MapData, XdpStats>,
    peers: PerCpuHashMap<MapData, SourceKey, XdpStats>,
}

impl fmt::Debug for XdpMaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("XdpMaps").finish_non_exhaustive()
    }
}

impl XdpMaps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, SteeringError> {
        Ok(Self {
            config: take(ebpf, "XDP_CONFIG")?,
            addresses: take(ebpf, "XDP_ADDRESSES")?,
            stats: take(ebpf, "XDP_STATS")?,
            peers: take(ebpf, "XDP_PEERS")?,
        })
    }

    /// Sets port and cost before anything is attached; the end of budgets stays where a proxy that is being replaced put it.
    pub(super) fn prepare(&mut self, port: u16, syn_interval_ns: u64) -> Result<(), SteeringError> {
        let read = |error| SteeringError::from_map("read", "XDP_CONFIG", error);
        let budget_until_ns = self.config.get(&0, 0).map_err(read)?.budget_until_ns;
        self.set_config(XdpConfig { port, pad: [0; 6], syn_interval_ns, budget_until_ns })
    }

    pub(super) fn extend_budget(
        &mut self,
        port: u16,
        syn_interval_ns: u64,
        lease: Duration,
    ) -> Result<(), SteeringError> {
        let lease = u64::try_from(lease.as_nanos()).unwrap_or(u64::MAX);
        let budget_until_ns = if syn_interval_ns == 0 { 0 } else { boot_ns().saturating_add(lease) };
        self.set_config(XdpConfig { port, pad: [0; 6], syn_interval_ns, budget_until_ns })
    }

    fn set_config(&mut self, config: XdpConfig) -> Result<(), SteeringError> {
        self.config.set(0, config, 0).map_err(|error| SteeringError::from_map("write", "XDP_CONFIG", error))
    }

    /// Makes these the addresses of this node and its peers; without peers, those that are known stay.
    pub(super) fn set_addresses(
        &mut self,
        own: &[IpAddr],
        peers: Option<&[IpAddr]>,
    ) -> Result<(), SteeringError> {
        let clean = |error| SteeringError::from_map("clean", "XDP_ADDRESSES", error);
        let write = |error| SteeringError::from_map("write", "XDP_ADDRESSES", error);
        let known: Known<_, _> = self
            .addresses
            .iter()
            .collect::<Result<_, _>>()
            .map_err(|error| SteeringError::from_map("read", "XDP_ADDRESSES", error))?;
        let kept: Vec<_> = if let Some(peers) = peers {
            peers.iter().map(|peer| source_key(*peer)).collect()
        } else {
            let is_peer = |(_, roles): &(&SourceKey, &u32)| **roles & ROLE_PEER != 0;
            known.iter().filter(is_peer).map(|(key, _)| *key).collect()
        };
        let wanted = roles(&kept, own);
        for old in known.keys().filter(|key| !wanted.contains_key(*key)) {
            self.addresses.remove(old).map_err(clean)?;
        }
        for (key, roles) in wanted.iter().filter(|(key, roles)| known.get(*key) != Some(*roles)) {
            self.addresses.insert(key, roles, 0).map_err(write)?;
        }
        kept.iter().try_for_each(|peer| self.count_peer(peer, &kept))
    }

    /// Gives a peer counts of its own. Where there is no room, those of a server that is no peer any more give way.
    fn count_peer(&mut self, peer: &SourceKey, peers: &[SourceKey]) -> Result<(), SteeringError> {
        let write = |error| SteeringError::from_map("write", "XDP_PEERS", error);
        match self.peers.get(peer, 0) {
            Ok(_) => return Ok(()),
            Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(SteeringError::from_map("read", "XDP_PEERS", error)),
        }
        if self.start_count(peer).is_ok() {
            return Ok(());
        }
        let former = self.peers.keys().filter_map(Result::ok).find(|key| !peers.contains(key));
        // Of more peers than there is room for, the rest is counted together, by their class.
        let Some(former) = former else { return Ok(()) };
        self.peers.remove(&former).map_err(write)?;
        self.start_count(peer).map_err(write)
    }

    fn start_count(&mut self, peer: &SourceKey) -> Result<(), MapError> {
        let cpus = nr_cpus().map_err(|(_, error)| MapError::IoError(error))?;
        let zero = PerCpuValues::try_from(vec![XdpStats::default(); cpus]).map_err(MapError::IoError)?;
        self.peers.insert(peer, zero, 0)
    }

    /// Sums over all CPUs.
    pub(super) fn counts(&self) -> Result<XdpCounts, SteeringError> {
        let mut counts = XdpCounts::default();
        for (class, name) in (0..).zip(CLASS_NAMES) {
            let stats = self.stats.get(&class, 0);
            let stats = stats.map_err(|error| SteeringError::from_map("read", "XDP_STATS", error))?;
            counts.classes.push((name, sum(&stats)));
        }
        for peer in &self.peers {
            let (key, stats) = peer.map_err(|error| SteeringError::from_map("read", "XDP_PEERS", error))?;
            counts.peers.push((Ipv6Addr::from(key.addr).to_canonical(), sum(&stats)));
        }
        counts.peers.sort_unstable_by_key(|(peer, _)| *peer);
        Ok(counts)
    }
}

/// What each address is; peers and the first of the own ones, as many as there is room for.
fn roles(peers: &[SourceKey], own: &[IpAddr]) -> Known<SourceKey, u32> {
    let most = MAX_XDP_ADDRESSES as usize;
    let own = own.iter().map(|ip| (source_key(*ip), ROLE_NODE));
    let mut roles = Known::new();
    for (key, role) in peers.iter().map(|key| (*key, ROLE_PEER)).chain(own) {
        if roles.len() < most || roles.contains_key(&key) {
            *roles.entry(key).or_insert(0) |= role;
        }
    }
    roles
}

fn sum(per_cpu: &PerCpuValues<XdpStats>) -> XdpStats {
    let mut sum = XdpStats::default();
    per_cpu.iter().for_each(|stats| sum.add(stats));
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_have_both_roles_and_room_goes_to_peers_first() {
        let ip = |n: u32| IpAddr::from(n.to_be_bytes());
        let peers: Vec<_> = (1..=3).map(|n| source_key(ip(n))).collect();
        let own: Vec<_> = (3..5000).map(ip).collect();
        let roles = roles(&peers, &own);
        assert_eq!(roles.len(), MAX_XDP_ADDRESSES as usize);
        for (n, expected) in [
            (1, Some(ROLE_PEER)),
            (3, Some(ROLE_PEER | ROLE_NODE)),
            (4, Some(ROLE_NODE)),
            (MAX_XDP_ADDRESSES, Some(ROLE_NODE)),
            (MAX_XDP_ADDRESSES + 1, None),
        ] {
            assert_eq!(roles.get(&source_key(ip(n))).copied(), expected, "{n}");
        }
    }
}
