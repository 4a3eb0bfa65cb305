//! Orders the API servers that may answer a request.

use std::vec;

use crate::discovery::{ServerSet, Snapshot};
use crate::upstream::Upstream;
use crate::vitals::Vitals;

/// The servers to try, best first.
#[derive(Debug)]
pub struct Candidates<'a> {
    chooser: Chooser<'a>,
    /// Tried before the peers are even looked at: the ordinary case costs nothing.
    first: Option<Upstream>,
    peers: ServerSet,
    ordered: Option<vec::IntoIter<Upstream>>,
}

/// What an order is made from.
#[derive(Clone, Copy, Debug)]
pub struct Chooser<'a> {
    /// Resolves the members of a set.
    pub snapshot: &'a Snapshot,
    /// The servers' condition.
    pub vitals: &'a Vitals,
    /// Differs from request to request.
    pub turn: usize,
}

impl<'a> Chooser<'a> {
    /// The peers of a set: the better of two healthy ones, then the other healthy ones, then the rest. None is left
    /// out: where all are unhealthy, all are tried.
    pub fn peers(self, peers: ServerSet) -> Candidates<'a> {
        Candidates { chooser: self, first: None, peers, ordered: None }
    }

    /// The local server, then its stand-ins; the other way round while it is unhealthy and a stand-in is not.
    pub fn local_or(self, local: Upstream, stand_ins: ServerSet) -> Candidates<'a> {
        if stand_ins.is_empty() || self.vitals.is_healthy(&local) {
            return Candidates { chooser: self, first: Some(local), peers: stand_ins, ordered: None };
        }
        let mut order = self.order(stand_ins);
        let healthy = order.iter().take_while(|upstream| self.vitals.is_healthy(upstream)).count();
        order.insert(healthy, local);
        Candidates { chooser: self, first: None, peers: stand_ins, ordered: Some(order.into_iter()) }
    }

    /// The healthy peers of a set, then the local server.
    pub fn peers_first(self, peers: ServerSet, local: Upstream) -> impl Iterator<Item = Upstream> + use<'a> {
        let vitals = self.vitals;
        self.peers(peers).filter(|peer| vitals.is_healthy(peer)).chain([local])
    }

    fn order(self, peers: ServerSet) -> Vec<Upstream> {
        let members = peers.iter_from(self.turn).filter_map(|index| self.snapshot.upstream(index));
        let (mut healthy, unhealthy): (Vec<_>, Vec<_>) =
            members.partition(|upstream| self.vitals.is_healthy(upstream));
        // Power of two choices: the set was walked from a rotating start, so these are a new pair each time.
        if let [first, second, ..] = &mut healthy[..]
            && self.vitals.load(second) < self.vitals.load(first)
        {
            std::mem::swap(first, second);
        }
        healthy.extend(unhealthy);
        healthy
    }
}

impl Iterator for Candidates<'_> {
    type Item = Upstream;

    fn next(&mut self) -> Option<Upstream> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let (chooser, peers) = (self.chooser, self.peers);
        self.ordered.get_or_insert_with(|| chooser.order(peers).into_iter()).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steering::Steering;
    use crate::upstream::Role;

    /// A snapshot of a local server and three peers, ports 0 to 3.
    fn cluster() -> (Snapshot, Vec<Upstream>) {
        let counters = Steering::off("a test").counters();
        let upstreams: Vec<_> = (0..4)
            .map(|port| {
                let address = ([127, 0, 0, 1], port).into();
                let role = if port == 0 { Role::Local } else { Role::Peer };
                Upstream { address, role, slot: counters.slot(address) }
            })
            .collect();
        let servers: Vec<_> = upstreams.iter().map(|upstream| (*upstream, None)).collect();
        (Snapshot::new(&servers, true), upstreams)
    }

    fn ports(candidates: Candidates<'_>) -> Vec<u16> {
        candidates.map(|upstream| upstream.address.port()).collect()
    }

    #[test]
    fn the_less_loaded_of_two_neighbours_goes_first_and_nobody_is_left_out() {
        let (snapshot, upstreams) = cluster();
        let vitals = std::sync::Arc::new(Vitals::default());
        let all = snapshot.all_peers();
        let chooser = |turn| Chooser { snapshot: &snapshot, vitals: &vitals, turn };
        assert_eq!(ports(chooser(1).peers(all)), [2, 3, 1]);
        assert_eq!(ports(chooser(2).peers(all)), [3, 1, 2]);
        let _busy = vitals.begin(&upstreams[1]);
        assert_eq!(ports(chooser(0).peers(all)), [2, 1, 3]);
        vitals.set_srtt_us(&upstreams[2], 50_000);
        assert_eq!(ports(chooser(0).peers(all)), [1, 2, 3]);
    }

    #[test]
    fn unhealthy_servers_come_last_but_come() {
        let (snapshot, upstreams) = cluster();
        let vitals = Vitals::default();
        let all = snapshot.all_peers();
        let chooser = Chooser { snapshot: &snapshot, vitals: &vitals, turn: 0 };
        vitals.failed(&upstreams[1]);
        assert_eq!(ports(chooser.peers(all)), [2, 3, 1]);
        vitals.set_ready(&upstreams[2], false);
        vitals.set_ready(&upstreams[3], false);
        assert_eq!(ports(chooser.peers(all)), [1, 2, 3]);
        vitals.answered(&upstreams[1]);
        assert_eq!(ports(chooser.peers(all)), [1, 2, 3]);
    }

    #[test]
    fn stand_ins_go_first_only_while_they_are_better_off_than_the_local_server() {
        let (snapshot, upstreams) = cluster();
        let vitals = Vitals::default();
        let local = upstreams[0];
        let chooser = Chooser { snapshot: &snapshot, vitals: &vitals, turn: 0 };
        let some: ServerSet = [1, 2].into_iter().collect();
        assert_eq!(ports(chooser.local_or(local, some)), [0, 1, 2]);
        vitals.set_ready(&local, false);
        assert_eq!(ports(chooser.local_or(local, some)), [1, 2, 0]);
        vitals.failed(&upstreams[1]);
        assert_eq!(ports(chooser.local_or(local, some)), [2, 0, 1]);
        vitals.failed(&upstreams[2]);
        assert_eq!(ports(chooser.local_or(local, some)), [0, 1, 2]);
        assert_eq!(ports(chooser.local_or(local, ServerSet::default())), [0]);
    }
}
