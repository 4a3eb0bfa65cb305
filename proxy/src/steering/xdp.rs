//! Counts packets to the API server on the wire and bounds connection attempts per source, where an interface is given for it.
//!
//! Problem: what never becomes a connection is seen by no socket, and after an outage everybody reconnects at once.
//! Mechanism: an XDP program on the interface counts per peer and class of sources, and drops SYNs beyond a source's budget;
//! TCP tries again a second later. Invariant: peers and this node are never dropped, nor is anybody by a program whose proxy
//! is gone, because the budget ends unless the proxy moves its end on.

mod attach;
mod device;
mod error;
mod maps;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use mvproxy_common::{SYN_BURST_NS, XdpStats};

pub use attach::object;
pub use device::{Device, XdpMode};
pub use error::XdpError;

use super::error::SteeringError;
use super::lock;
use super::pins::PinDir;
use crate::causes::chain;
use maps::XdpMaps;

/// What is wanted on the wire; nothing by default.
#[derive(Clone, Debug, Default)]
pub struct XdpOptions {
    /// Interfaces on which packets are counted (`--xdp-interface`).
    pub interfaces: Vec<String>,
    /// SYNs that a source may send each second (`--xdp-syn-rate`); `None` for any number.
    pub syn_rate: Option<NonZeroU32>,
}

/// How an interface stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdpState {
    /// Its name.
    pub interface: String,
    /// How the program is attached, or why it is not.
    pub attached: Result<XdpMode, String>,
}

/// What was counted, sums over all CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XdpCounts {
    /// By class of the source: its name, and the counts.
    pub classes: Vec<(&'static str, XdpStats)>,
    /// By peer.
    pub peers: Vec<(IpAddr, XdpStats)>,
}

/// The program on the interfaces, and its maps; methods may be called from any thread of the network namespace.
///
/// Dropping it detaches nothing: links and maps are pinned.
#[derive(Debug)]
pub struct Xdp {
    dir: PinDir,
    port: u16,
    syn_rate: Option<NonZeroU32>,
    interfaces: Vec<Interface>,
    /// None where the program could not be loaded.
    maps: Option<Mutex<XdpMaps>>,
    released: AtomicBool,
}

#[derive(Debug)]
struct Interface {
    name: String,
    /// The interface's index, or why the program is not on it.
    attached: Result<u32, String>,
}

/// How long budgets count after [`Xdp::refresh`]; call that several times as often.
const BUDGET_LEASE: Duration = Duration::from_secs(15);

/// How often [`Xdp::refresh`] is to be called.
pub const REFRESH_EVERY: Duration = Duration::from_secs(3);

impl Xdp {
    /// Attaches to the interfaces, in place of an earlier proxy's program where one is there, and detaches from all others
    /// that an earlier proxy attached to. Interfaces that cannot be had are left out, and reported.
    ///
    /// None without interfaces. Call it under the lock of the folder, with its other maps in place.
    pub(super) fn open(dir: &PinDir, options: &XdpOptions, port: u16) -> Option<Self> {
        let devices: Vec<_> = options.interfaces.iter().map(|name| (name, Device::find(name))).collect();
        let wanted: Vec<_> =
            devices.iter().filter_map(|(_, found)| Some(found.as_ref().ok()?.index)).collect();
        if let Err(error) = attach::detach_others(dir, &wanted) {
            tracing::warn!(error = chain(&error), "an interface stays with an earlier proxy's program");
        }
        if devices.is_empty() {
            return None;
        }
        let loaded = attach::load(dir).and_then(|mut ebpf| {
            let mut maps = XdpMaps::take(&mut ebpf)?;
            maps.prepare(port, cost(options.syn_rate))?;
            Ok((ebpf, maps))
        });
        let (mut ebpf, maps, failure) = match loaded {
            Ok((ebpf, maps)) => (Some(ebpf), Some(maps), None),
            Err(error) => (None, None, Some(chain(&error))),
        };
        let mut attach = |found: Result<Device, XdpError>| -> Result<u32, String> {
            let device = found.map_err(|error| chain(&error))?;
            let ebpf = ebpf.as_mut().ok_or_else(|| failure.clone().unwrap_or_default())?;
            attach::attach(ebpf, dir, &device).map_err(|error| chain(&error))?;
            Ok(device.index)
        };
        let interfaces = devices
            .into_iter()
            .map(|(name, found)| Interface { name: name.clone(), attached: attach(found) })
            .collect();
        let xdp = Self {
            dir: dir.clone(),
            port,
            syn_rate: options.syn_rate,
            interfaces,
            maps: maps.map(Mutex::new),
            released: AtomicBool::new(false),
        };
        xdp.report();
        Some(xdp)
    }

    fn report(&self) {
        for XdpState { interface, attached } in self.state() {
            match attached {
                Ok(mode) => tracing::info!(interface, mode = mode.name(), "counting packets on the wire"),
                Err(reason) => tracing::warn!(interface, reason, "packets are not counted on the wire"),
            }
        }
    }

    /// Makes the program know this node's addresses and, where they are known, its peers, and moves on the end of budgets.
    ///
    /// Without peers those that the program knows stay, and so does the end of budgets: nobody may be dropped who may be a
    /// peer. Does nothing once steering was given up: the maps are a successor's then.
    ///
    /// # Errors
    ///
    /// When the addresses cannot be read or the maps not be written.
    pub fn refresh(&self, peers: Option<&[IpAddr]>) -> Result<(), XdpError> {
        let Some(maps) = &self.maps else { return Ok(()) };
        let own = device::own_addresses(&self.interfaces.iter().map(|it| &*it.name).collect::<Vec<_>>())?;
        let mut maps = lock(maps);
        if self.released.load(Relaxed) {
            return Ok(());
        }
        maps.set_addresses(&own, peers)?;
        match peers {
            Some(_) => Ok(maps.extend_budget(self.port, cost(self.syn_rate), BUDGET_LEASE)?),
            None => Ok(()),
        }
    }

    /// Leaves the maps to a successor; without one budgets end soon.
    pub(super) fn release(&self) {
        self.released.store(true, Relaxed);
        if let Some(maps) = &self.maps {
            // Whoever writes at this moment is done then.
            drop(lock(maps));
        }
    }

    /// How the interfaces stand; asks the kernel.
    pub fn state(&self) -> Vec<XdpState> {
        self.interfaces
            .iter()
            .map(|interface| XdpState {
                interface: interface.name.clone(),
                attached: self.mode_on(interface),
            })
            .collect()
    }

    fn mode_on(&self, interface: &Interface) -> Result<XdpMode, String> {
        let index = interface.attached.clone()?;
        let own = attach::pinned_program(&self.dir, index);
        let device = Device::find(&interface.name).map_err(|error| chain(&error))?;
        match device.program {
            Some((program, mode)) if own == Some(program) => Ok(mode),
            _ => {
                Err("its program was detached after start-up; restart the proxy to attach it again"
                    .to_owned())
            }
        }
    }

    /// What was counted.
    ///
    /// # Errors
    ///
    /// When the maps cannot be read.
    pub fn counts(&self) -> Result<XdpCounts, XdpError> {
        match &self.maps {
            Some(maps) => Ok(lock(maps).counts()?),
            None => Ok(XdpCounts::default()),
        }
    }

    /// SYNs that a source may send each second.
    pub fn syn_rate(&self) -> Option<NonZeroU32> {
        self.syn_rate
    }
}

/// What one SYN costs of a budget; 0 for no budget.
fn cost(syn_rate: Option<NonZeroU32>) -> u64 {
    syn_rate.map_or(0, |rate| (SYN_BURST_NS / u64::from(rate.get())).max(1))
}

/// Whether the program can be loaded, in a folder that is taken away again.
pub(super) fn probe(dir: &PinDir) -> Result<(), XdpError> {
    attach::load(dir).map(drop)
}

/// Detaches from every interface; says which pins were removed.
pub(super) fn detach_all(dir: &PinDir) -> Result<Vec<std::path::PathBuf>, SteeringError> {
    attach::detach_others(dir, &[])
}

/// Identifiers of the XDP program on an interface and of the one that a proxy with this folder attached there.
pub fn programs_on(bpffs_dir: &std::path::Path, device: &Device) -> (Option<u32>, Option<u32>) {
    let own = PinDir::existing(bpffs_dir).and_then(|dir| attach::pinned_program(&dir, device.index));
    (device.program.map(|(program, _)| program), own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_spent_within_a_second() {
        assert_eq!(cost(None), 0);
        for rate in [1, 3, 7, 100, 1_000_000, u32::MAX] {
            let cost = cost(NonZeroU32::new(rate));
            assert!(cost > 0);
            if u64::from(rate) <= SYN_BURST_NS {
                assert_eq!(SYN_BURST_NS / cost, u64::from(rate), "{rate}");
            }
        }
    }
}
