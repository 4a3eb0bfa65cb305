//! Decides whether a packet may come in, and counts those to the API server's port; in doubt it may.

use mvproxy_common::{
    CLASS_LISTED, CLASS_NODE, CLASS_OTHER, CLASS_PEER, ROLE_NODE, ROLE_PEER, SYN_BURST_NS, SynBudget,
    XdpConfig, XdpStats,
};

use crate::address::Address;
use crate::flow::add;
use crate::packet::{Packet, parse};

/// A frame that came in, and what the maps say about it.
pub trait Wire: Packet {
    /// Bytes of the frame.
    fn length(&self) -> u64;
    fn config(&self) -> Option<&XdpConfig>;
    /// What an address is known to be, `ROLE_*`; 0 for unknown ones.
    fn roles(&self, address: Address) -> u32;
    /// Whether the address is among those that are steered where not all are.
    fn is_listed(&self, source: Address) -> bool;
    /// Nanoseconds since boot.
    fn now(&self) -> u64;
    /// Uses a source's budget, if it has one.
    fn budget<R>(&self, source: Address, using: impl FnOnce(&mut SynBudget) -> R) -> Option<R>;
    /// Gives a source a budget.
    fn open_budget(&self, source: Address, budget: &SynBudget);
    /// Adds to the counts of a class.
    fn count(&self, class: u32, more: &XdpStats);
    /// Adds to the counts of a peer.
    fn count_peer(&self, peer: Address, more: &XdpStats);
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Pass,
    Drop,
}

/// Decides about one frame, and counts it if it is a segment to the API server.
#[inline(always)]
pub fn admit(wire: &impl Wire) -> Action {
    let Some(segment) = parse(wire) else { return Action::Pass };
    let Some(config) = wire.config() else { return Action::Pass };
    // Also of others' API servers: this node may be their router.
    if segment.port != config.port || !is_own(wire, segment.destination) {
        return Action::Pass;
    }
    let class = class_of(wire, segment.source);
    let is_over = segment.is_syn
        && (class == CLASS_OTHER || class == CLASS_LISTED)
        && is_over_budget(wire, config, segment.source);
    let more = XdpStats {
        packets: 1,
        bytes: wire.length(),
        syns: u64::from(segment.is_syn),
        dropped: u64::from(is_over),
    };
    wire.count(class, &more);
    if class == CLASS_PEER {
        wire.count_peer(segment.source, &more);
    }
    if is_over { Action::Drop } else { Action::Pass }
}

#[inline(always)]
fn is_own(wire: &impl Wire, address: Address) -> bool {
    address.is_loopback() || wire.roles(address) & ROLE_NODE != 0
}

#[inline(always)]
fn class_of(wire: &impl Wire, source: Address) -> u32 {
    if source.is_loopback() {
        return CLASS_NODE;
    }
    let roles = wire.roles(source);
    if roles & ROLE_NODE != 0 {
        CLASS_NODE
    } else if roles & ROLE_PEER != 0 {
        CLASS_PEER
    } else if wire.is_listed(source) {
        CLASS_LISTED
    } else {
        CLASS_OTHER
    }
}

/// Whether a source attempts to connect more often than it may. What is dropped costs it nothing, so that a client that tries
/// again comes through in its turn.
#[inline(always)]
fn is_over_budget(wire: &impl Wire, config: &XdpConfig, source: Address) -> bool {
    let cost = config.syn_interval_ns;
    let now = wire.now();
    if cost == 0 || now >= config.budget_until_ns {
        return false;
    }
    if let Some(is_spent) = wire.budget(source, |budget| spend(budget, now, cost)) {
        return !is_spent;
    }
    wire.open_budget(source, &SynBudget { whole_ns: now + cost });
    false
}

/// Spends of a budget, if that much is left.
///
/// A bucket of tokens as one moment (the generic cell rate algorithm): what is missing of a whole budget is the time until
/// it is whole. CPUs that spend at the same moment may each find enough: as many SYNs too many as there are CPUs.
#[inline(always)]
fn spend(budget: &mut SynBudget, now: u64, cost: u64) -> bool {
    let whole_ns = budget.whole_ns;
    if whole_ns <= now {
        budget.whole_ns = now + cost;
        return true;
    }
    if whole_ns + cost > now + SYN_BURST_NS {
        return false;
    }
    add(&mut budget.whole_ns, cost);
    true
}

#[cfg(test)]
mod tests;
