//! Counts requests per peer and worker, in memory that the kernel pins where it can.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::sync::{Mutex, PoisonError};

use aya::Ebpf;
use aya::maps::{HashMap as BpfHashMap, Map, MapData, MapError};
use mvproxy_common::{
    MAX_PEERS, MAX_WORKERS, OVERFLOW_SLOT, PEER_L7_SHARDS, PeerKey, PeerL4, PeerL7, PeerL7Cells,
    SHARD_IN_USE, shard_index, v4_mapped,
};

use super::error::SteeringError;
use super::maps::take;
use super::page::Page;
use super::pins::PinDir;
use crate::causes::chain;

/// What is counted for every peer.
///
/// With a kernel side this memory is the map `PEER_L7`: it outlives the process, and `bpftool map dump` shows
/// what metrics show.
#[derive(Debug)]
pub struct PeerCounters {
    shards: Page<PeerL7Cells>,
    slots: Mutex<Slots>,
}

/// A peer's place in the counters; look it up once per peer, not once per request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerSlot(u32);

impl PeerSlot {
    /// Number of slots, the shared one included.
    pub const COUNT: usize = MAX_PEERS as usize + 1;
    /// The slot of all that have none of their own.
    pub const SHARED: Self = Self(OVERFLOW_SLOT);

    /// Position in tables of [`PeerSlot::COUNT`] entries.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Who has which slot; the lock also orders assignments within this process.
#[derive(Debug, Default)]
struct Slots {
    known: HashMap<SocketAddr, PeerSlot>,
    kernel: Option<KernelPeers>,
}

/// The maps through which the kernel learns of peers.
#[derive(Debug)]
struct KernelPeers {
    dir: PinDir,
    slots: BpfHashMap<MapData, PeerKey, u32>,
    l4: BpfHashMap<MapData, PeerKey, PeerL4>,
}

impl PeerCounters {
    /// Counters in the pinned maps, with all earlier counts.
    pub(super) fn from_maps(ebpf: &mut Ebpf, dir: &PinDir) -> Result<Self, SteeringError> {
        const NAME: &str = "PEER_L7";
        let Some(Map::Array(data)) = ebpf.take_map(NAME) else {
            return Err(SteeringError::ObjectMismatch { part: NAME });
        };
        let shards = Page::map(data.fd().as_fd(), PEER_L7_SHARDS as usize)
            .map_err(|error| SteeringError::from_map("mmap", NAME, error))?;
        let kernel =
            KernelPeers { dir: dir.clone(), slots: take(ebpf, "PEER_SLOTS")?, l4: take(ebpf, "PEER_L4")? };
        let slots = Mutex::new(Slots { known: HashMap::new(), kernel: Some(kernel) });
        Ok(Self { shards, slots })
    }

    /// Counters of this process alone.
    pub(super) fn without_kernel() -> Self {
        Self { shards: Page::heap(PEER_L7_SHARDS as usize), slots: Mutex::default() }
    }

    /// Finds or assigns a peer's slot; when all are taken, one that such peers share.
    ///
    /// Connections to the peer are counted by the kernel from the first that is opened after this call.
    pub fn slot(&self, peer: SocketAddr) -> PeerSlot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slots = &mut *slots;
        if let Some(slot) = slots.known.get(&peer) {
            return *slot;
        }
        let slot = match &mut slots.kernel {
            Some(kernel) => self.assign_with_kernel(&peer_key(peer), kernel),
            None => self.assign(&peer_key(peer)),
        };
        slots.known.insert(peer, slot);
        slot
    }

    /// The counters of one worker for one peer; add to them with relaxed ordering.
    pub fn shard(&self, worker: usize, slot: PeerSlot) -> &PeerL7Cells {
        &self.shards[shard_index(slot.0, worker_index(worker)) as usize]
    }

    /// Sums over all workers, of every peer that ever had a slot; `[::]:0` stands for all that share one.
    pub fn totals(&self) -> Vec<(SocketAddr, PeerL7)> {
        let shards_of_slots = self.shards.chunks(MAX_WORKERS as usize);
        shards_of_slots
            .filter_map(|shards| {
                let mut total = shards.first()?.snapshot();
                shards[1..].iter().for_each(|shard| total.add(&shard.snapshot()));
                (total.in_use == SHARD_IN_USE).then(|| (socket_addr(total.addr, total.port), total))
            })
            .collect()
    }

    /// What the kernel counted of connections to each peer; empty without a kernel side.
    pub(super) fn peer_l4(&self) -> Vec<(SocketAddr, PeerL4)> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(kernel) = &slots.kernel else { return Vec::new() };
        let (counted, failed): (Vec<_>, Vec<_>) = kernel.l4.iter().partition(Result::is_ok);
        if let Some(Err(error)) = failed.first() {
            tracing::warn!(%error, "cannot read all of PEER_L4");
        }
        counted.into_iter().flatten().map(|(peer, l4)| (socket_addr(peer.addr, peer.port), l4)).collect()
    }

    /// Assigns under the lock of the folder, because a proxy that is being replaced uses the same table.
    fn assign_with_kernel(&self, peer: &PeerKey, kernel: &mut KernelPeers) -> PeerSlot {
        let lock = kernel.dir.lock();
        if let Err(error) = &lock {
            tracing::warn!(error = chain(error), "assigning a peer's counters unlocked");
        }
        let slot = self.assign(peer);
        if slot.0 != OVERFLOW_SLOT
            && let Err(error) = kernel.announce(peer, slot)
        {
            let peer = socket_addr(peer.addr, peer.port);
            let error = chain(&error);
            tracing::warn!(%peer, error, "the kernel does not count this peer's connections");
        }
        slot
    }

    /// Takes the slot that has this peer's address, else the first free one.
    ///
    /// The address in the shards decides, not `PEER_SLOTS`: a crash between the two writes loses no slot.
    fn assign(&self, peer: &PeerKey) -> PeerSlot {
        let is_peer = |shard: &PeerL7| {
            shard.in_use == SHARD_IN_USE && (shard.addr, shard.port) == (peer.addr, peer.port)
        };
        let firsts =
            || (0..MAX_PEERS).map(|slot| (slot, self.shards[shard_index(slot, 0) as usize].snapshot()));
        let found = firsts().find(|(_, shard)| is_peer(shard));
        if let Some((slot, _)) = found.or_else(|| firsts().find(|(_, shard)| shard.in_use != SHARD_IN_USE)) {
            self.label(slot, peer);
            return PeerSlot(slot);
        }
        tracing::warn!(peers = MAX_PEERS, "more peers than counters: the rest is counted together");
        self.label(OVERFLOW_SLOT, &PeerKey::default());
        PeerSlot(OVERFLOW_SLOT)
    }

    /// Writes a peer's address into its shards, the first last: that one marks the slot as taken.
    fn label(&self, slot: u32, peer: &PeerKey) {
        for worker in (0..MAX_WORKERS).rev() {
            let index = u16::try_from(worker).expect("MAX_WORKERS is small");
            self.shards[shard_index(slot, worker) as usize].assign(peer, index, SHARD_IN_USE);
        }
    }
}

impl KernelPeers {
    /// Lets the counting program know the peer; earlier counts stay.
    fn announce(&mut self, peer: &PeerKey, slot: PeerSlot) -> Result<(), SteeringError> {
        // Without this entry the program would have nowhere to count, so it comes first.
        match self.l4.get(peer, 0) {
            Ok(_) => {}
            Err(MapError::KeyNotFound) => self
                .l4
                .insert(peer, PeerL4::default(), 0)
                .map_err(|error| SteeringError::from_map("write", "PEER_L4", error))?,
            Err(error) => return Err(SteeringError::from_map("read", "PEER_L4", error)),
        }
        self.slots
            .insert(peer, slot.0, 0)
            .map_err(|error| SteeringError::from_map("write", "PEER_SLOTS", error))
    }
}

fn worker_index(worker: usize) -> u32 {
    u32::try_from(worker % MAX_WORKERS as usize).expect("less than MAX_WORKERS")
}

fn peer_key(peer: SocketAddr) -> PeerKey {
    let addr = match peer.ip() {
        IpAddr::V4(ip) => v4_mapped(ip.octets()),
        IpAddr::V6(ip) => ip.octets(),
    };
    PeerKey { addr, port: peer.port(), pad: [0; 6] }
}

fn socket_addr(addr: [u8; 16], port: u16) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::from(addr).to_canonical(), port)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    fn peer(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 6443))
    }

    #[test]
    fn totals_sum_all_workers_and_keep_peers_apart() {
        let counters = PeerCounters::without_kernel();
        let (one, six) = (peer(1), SocketAddr::from((Ipv6Addr::LOCALHOST, 443)));
        for (worker, peer) in [(0, one), (1, one), (15, one), (3, six)] {
            counters.shard(worker, counters.slot(peer)).requests.fetch_add(1, Relaxed);
        }
        let totals: Vec<_> =
            counters.totals().into_iter().map(|(peer, total)| (peer, total.requests)).collect();
        assert_eq!(totals, [(one, 3), (six, 1)]);
    }

    #[test]
    fn peers_beyond_the_table_share_one_slot() {
        let counters = PeerCounters::without_kernel();
        let slots: Vec<_> = (0..66).map(|last| counters.slot(peer(last))).collect();
        assert_eq!(slots[64], slots[65]);
        assert_ne!(slots[63], slots[64]);
        assert_eq!(counters.slot(peer(7)), slots[7]);
        for slot in [slots[64], slots[65]] {
            counters.shard(0, slot).requests.fetch_add(1, Relaxed);
        }
        let (address, overflow) = *counters.totals().last().expect("65 slots are in use");
        assert_eq!((address, overflow.requests), (SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)), 2));
    }
}
