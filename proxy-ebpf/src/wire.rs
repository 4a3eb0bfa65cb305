//! Answers what the decision about a frame asks from the frame and the maps.

use aya_ebpf::btf_maps::lpm_trie::Key;
use mvproxy_common::{SOURCES_ALL, SynBudget, XdpConfig, XdpStats};
use mvproxy_ebpf::address::Address;
use mvproxy_ebpf::admit::Wire;
use mvproxy_ebpf::ctx::{Frame, boot_ns};
use mvproxy_ebpf::packet::{Packet, Plain};

use crate::canary_maps::{STEER_CONFIG, STEER_SOURCES};
use crate::xdp_maps::{SYN_BUDGETS, XDP_ADDRESSES, XDP_CONFIG, XDP_PEERS, XDP_STATS};

/// A frame, with what the maps say about it.
pub struct Maps(pub Frame);

impl Packet for Maps {
    #[inline(always)]
    fn read<T: Plain>(&self, offset: u32) -> Option<T> {
        self.0.read(offset)
    }
}

impl Wire for Maps {
    #[inline(always)]
    fn length(&self) -> u64 {
        self.0.length()
    }

    #[inline(always)]
    fn config(&self) -> Option<&XdpConfig> {
        XDP_CONFIG.get(0)
    }

    #[inline(always)]
    fn roles(&self, address: Address) -> u32 {
        // SAFETY: read at once, and a role that changes at that moment is the old or the new one.
        unsafe { XDP_ADDRESSES.get(address.source_key()) }.copied().unwrap_or_default()
    }

    #[inline(always)]
    fn is_listed(&self, source: Address) -> bool {
        STEER_CONFIG.get(0).is_some_and(|config| config.sources != SOURCES_ALL)
            && STEER_SOURCES.get(&Key::new(128, source.source_key())).is_some_and(|listed| *listed != 0)
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        boot_ns()
    }

    #[inline(always)]
    fn budget<R>(&self, source: Address, using: impl FnOnce(&mut SynBudget) -> R) -> Option<R> {
        let budget = SYN_BUDGETS.get_ptr_mut(source.source_key())?;
        // SAFETY: other CPUs may write the one word as well; what that can do is said where it is spent.
        Some(using(unsafe { &mut *budget }))
    }

    #[inline(always)]
    fn open_budget(&self, source: Address, budget: &SynBudget) {
        // Where there is no room the source has no budget, and is not kept from anything.
        let _ = SYN_BUDGETS.insert(source.source_key(), budget, 0);
    }

    #[inline(always)]
    fn count(&self, class: u32, more: &XdpStats) {
        let Some(stats) = XDP_STATS.get_ptr_mut(class) else { return };
        // SAFETY: a per-CPU value; the kernel runs the program to its end on one CPU.
        unsafe { &mut *stats }.add(more);
    }

    #[inline(always)]
    fn count_peer(&self, peer: Address, more: &XdpStats) {
        let Some(stats) = XDP_PEERS.get_ptr_mut(peer.source_key()) else { return };
        // SAFETY: as above.
        unsafe { &mut *stats }.add(more);
    }
}
