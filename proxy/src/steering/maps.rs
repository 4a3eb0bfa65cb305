//! Gives typed access to the maps that decide about steering.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::Duration;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray};
use mvproxy_common::{
    ABI_VERSION, MAX_PEERS, MAX_WORKERS, MODE_PASS, MODE_STEER, SOURCES_ALL, SOURCES_LISTED, SourceKey,
    SteerConfig, SteerMode, SteerStats,
};

use super::canary::{Canary, source_key};
use super::error::SteeringError;
use super::lane::LanePorts;

/// Takes a map out of a loaded object, as type `M`.
pub(super) fn take<M>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, SteeringError>
where
    M: TryFrom<Map, Error = MapError>,
{
    let map = ebpf.take_map(name).ok_or(SteeringError::ObjectMismatch { part: name })?;
    M::try_from(map).map_err(|error| SteeringError::from_map("open", name, error))
}

/// What a process that steers wants of the program.
#[derive(Clone, Debug)]
pub(super) struct Parameters {
    pub(super) stale_after: Duration,
    pub(super) canary: Canary,
    pub(super) lane: Option<LanePorts>,
}

/// The steering maps; a lock around them makes every change one step for other threads.
pub(super) struct SteerMaps {
    ports: HashMap<MapData, u16, u32>,
    exempt: HashMap<MapData, SourceKey, u32>,
    lane_peers: HashMap<MapData, SourceKey, u32>,
    mode: Array<MapData, SteerMode>,
    config: Array<MapData, SteerConfig>,
    sockets: HashMap<MapData, u32, u64>,
    sources: LpmTrie<MapData, SourceKey, u32>,
    stats: PerCpuArray<MapData, SteerStats>,
}

impl fmt::Debug for SteerMaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SteerMaps").finish_non_exhaustive()
    }
}

impl SteerMaps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, SteeringError> {
        // aya's own SockMap insists on 4-byte values, which cannot be read back. System calls treat a SOCKMAP
        // with 8-byte values as a hash map from slot to descriptor (writing) or socket cookie (reading).
        let sockets = match ebpf.take_map("STEER_SOCKETS") {
            Some(Map::SockMap(data)) => HashMap::try_from(Map::HashMap(data))
                .map_err(|error| SteeringError::from_map("open", "STEER_SOCKETS", error))?,
            _ => return Err(SteeringError::ObjectMismatch { part: "STEER_SOCKETS" }),
        };
        Ok(Self {
            ports: take(ebpf, "STEER_PORTS")?,
            exempt: take(ebpf, "EXEMPT")?,
            lane_peers: take(ebpf, "LANE_PEERS")?,
            mode: take(ebpf, "STEER_MODE")?,
            config: take(ebpf, "STEER_CONFIG")?,
            sockets,
            sources: take(ebpf, "STEER_SOURCES")?,
            stats: take(ebpf, "STEER_STATS")?,
        })
    }

    /// Sets the port, the exempt source and the switch (to pass) before anything is attached.
    ///
    /// While another proxy's listeners are in the slots this one is about to replace it: then the switch, the
    /// parameters and the other's port and source stay as they are until this one registers.
    pub(super) fn prepare(
        &mut self,
        port: u16,
        source: IpAddr,
        parameters: &Parameters,
    ) -> Result<(), SteeringError> {
        let source = source_key(source);
        let replacing = !self.listeners()?.is_empty();
        if !replacing {
            self.set_mode(MODE_PASS)?;
            self.forget_rules(port, &source)?;
            self.set_config(0, parameters)?;
            self.set_lane_peers(&[])?;
        }
        self.exempt
            .insert(source, 1, 0)
            .map_err(|error| SteeringError::from_map("write", "EXEMPT", error))?;
        self.ports.insert(port, 1, 0).map_err(|error| SteeringError::from_map("write", "STEER_PORTS", error))
    }

    fn forget_rules(&mut self, port: u16, source: &SourceKey) -> Result<(), SteeringError> {
        let on_ports = |error| SteeringError::from_map("clean", "STEER_PORTS", error);
        let on_exempt = |error| SteeringError::from_map("clean", "EXEMPT", error);
        for old in self.ports.keys().collect::<Result<Vec<_>, _>>().map_err(on_ports)? {
            if old != port {
                self.ports.remove(&old).map_err(on_ports)?;
            }
        }
        for old in self.exempt.keys().collect::<Result<Vec<_>, _>>().map_err(on_exempt)? {
            if old != *source {
                self.exempt.remove(&old).map_err(on_exempt)?;
            }
        }
        Ok(())
    }

    /// Puts listeners into slots 0.. and empties the slots above.
    pub(super) fn register(
        &mut self,
        listeners: &[BorrowedFd<'_>],
        parameters: &Parameters,
    ) -> Result<(), SteeringError> {
        let canary = &parameters.canary;
        // Listed before the list counts, and taken from it only when no other list can be meant.
        self.list_sources(canary)?;
        for (slot, listener) in (0_u32..).zip(listeners) {
            let fd = u64::try_from(listener.as_raw_fd()).expect("an open descriptor is not negative");
            self.sockets.insert(slot, fd, 0).map_err(|error| match error {
                error if slot_error_is_about_socket(&error) => {
                    SteeringError::Register { worker: slot as usize, source: Box::new(error) }
                }
                error => SteeringError::from_map("write", "STEER_SOCKETS", error),
            })?;
        }
        let used = u32::try_from(listeners.len()).expect("checked against MAX_WORKERS by the caller");
        self.set_config(used, parameters)?;
        self.forget_sources(canary)?;
        (used..MAX_WORKERS).try_for_each(|slot| self.clear(slot))
    }

    /// Makes these the peers whose requests pass by source port.
    pub(super) fn set_lane_peers(&mut self, peers: &[IpAddr]) -> Result<(), SteeringError> {
        let clean = |error| SteeringError::from_map("clean", "LANE_PEERS", error);
        let write = |error| SteeringError::from_map("write", "LANE_PEERS", error);
        let wanted: Vec<_> = peers.iter().map(|peer| source_key(*peer)).collect();
        for old in self.lane_peers.keys().collect::<Result<Vec<_>, _>>().map_err(clean)? {
            if !wanted.contains(&old) {
                self.lane_peers.remove(&old).map_err(clean)?;
            }
        }
        // Requests of peers beyond the map's size go through this proxy, as those of unknown ones do.
        wanted
            .iter()
            .take(MAX_PEERS as usize)
            .try_for_each(|peer| self.lane_peers.insert(peer, 1, 0).map_err(write))
    }

    fn list_sources(&mut self, canary: &Canary) -> Result<(), SteeringError> {
        let write = |error| SteeringError::from_map("write", "STEER_SOURCES", error);
        canary.rules().into_iter().try_for_each(|(prefix, source, steered)| {
            self.sources.insert(&Key::new(prefix, source), steered, 0).map_err(write)
        })
    }

    fn forget_sources(&mut self, canary: &Canary) -> Result<(), SteeringError> {
        let clean = |error| SteeringError::from_map("clean", "STEER_SOURCES", error);
        let rules = canary.rules();
        let listed = self.sources.keys().collect::<Result<Vec<_>, _>>().map_err(clean)?;
        for key in listed {
            let (prefix, source) = (key.prefix_len(), key.data());
            if !rules.iter().any(|(kept, at, _)| *kept == prefix && *at == source) {
                self.sources.remove(&key).map_err(clean)?;
            }
        }
        Ok(())
    }

    /// Empties those slots that hold one of these sockets, given by slot and cookie.
    pub(super) fn release(&mut self, own: &[(u32, u64)]) -> Result<(), SteeringError> {
        let registered = self.listeners()?;
        own.iter()
            .filter(|listener| registered.contains(listener))
            .try_for_each(|(slot, _)| self.clear(*slot))
    }

    /// Slots that hold a socket, and its cookie.
    pub(super) fn listeners(&self) -> Result<Vec<(u32, u64)>, SteeringError> {
        let mut listeners = Vec::new();
        for slot in 0..MAX_WORKERS {
            match self.sockets.get(&slot, 0) {
                Ok(cookie) => listeners.push((slot, cookie)),
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(SteeringError::from_map("read", "STEER_SOCKETS", error)),
            }
        }
        Ok(listeners)
    }

    fn clear(&mut self, slot: u32) -> Result<(), SteeringError> {
        match self.sockets.remove(&slot) {
            // EINVAL is how a SOCKMAP says that the slot was empty.
            Err(error) if errno(&error) != Some(libc::EINVAL) => {
                Err(SteeringError::from_map("clean", "STEER_SOCKETS", error))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn set_steering(&mut self, on: bool) -> Result<(), SteeringError> {
        self.set_mode(if on { MODE_STEER } else { MODE_PASS })
    }

    pub(super) fn is_steering(&self) -> Result<bool, SteeringError> {
        let word =
            self.mode.get(&0, 0).map_err(|error| SteeringError::from_map("read", "STEER_MODE", error))?;
        Ok(word.mode == MODE_STEER)
    }

    /// Verdicts, summed over all CPUs.
    pub(super) fn stats(&self) -> Result<SteerStats, SteeringError> {
        let per_cpu =
            self.stats.get(&0, 0).map_err(|error| SteeringError::from_map("read", "STEER_STATS", error))?;
        let mut sum = SteerStats::default();
        per_cpu.iter().for_each(|stats| sum.add(stats));
        Ok(sum)
    }

    fn set_mode(&mut self, mode: u32) -> Result<(), SteeringError> {
        let word = SteerMode { mode };
        self.mode.set(0, word, 0).map_err(|error| SteeringError::from_map("write", "STEER_MODE", error))
    }

    fn set_config(&mut self, workers: u32, parameters: &Parameters) -> Result<(), SteeringError> {
        let Parameters { stale_after, canary, lane } = parameters;
        let config = SteerConfig {
            abi_version: ABI_VERSION,
            workers,
            stale_after_ns: u64::try_from(stale_after.as_nanos()).unwrap_or(u64::MAX),
            sources: if canary.sources.is_empty() { SOURCES_ALL } else { SOURCES_LISTED },
            percent: u32::from(canary.percent),
            lane_first: lane.map_or(0, |ports| ports.first),
            lane_last: lane.map_or(0, |ports| ports.last),
            pad: 0,
        };
        self.config.set(0, config, 0).map_err(|error| SteeringError::from_map("write", "STEER_CONFIG", error))
    }
}

/// Errors that tell about the socket (wrong kind or state) and not about the map.
fn slot_error_is_about_socket(error: &MapError) -> bool {
    matches!(errno(error), Some(libc::EOPNOTSUPP | libc::EINVAL | libc::EBADF | libc::ENOTSOCK | libc::EBUSY))
}

fn errno(error: &MapError) -> Option<i32> {
    match error {
        MapError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    }
}
