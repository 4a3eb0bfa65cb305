//! Answers what the steering decision asks from the context and the maps.

use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_log_ebpf::warn;
use mvproxy_common::SteerConfig;
use mvproxy_ebpf::address::Address;
use mvproxy_ebpf::ctx::{Lookup, Socket, boot_ns};
use mvproxy_ebpf::decide::{self, Verdict, account, decide};

use crate::canary_maps::{STEER_CONFIG, STEER_SOURCES};
use crate::maps::{EXEMPT, HEARTBEATS, LANE_PEERS, STEER_MODE, STEER_PORTS, STEER_SOCKETS, STEER_STATS};

/// Steers one connection and counts the verdict.
#[inline(always)]
pub fn steer(lookup: &Lookup) {
    let verdict = decide(&Maps(lookup));
    let Some(stats) = STEER_STATS.get_ptr_mut(0) else { return };
    // SAFETY: a per-CPU value; the kernel runs the program to its end on one CPU.
    let stats = unsafe { &mut *stats };
    account(stats, &verdict, boot_ns, |verdict| log(lookup, verdict));
}

#[inline(always)]
fn log(lookup: &Lookup, verdict: &Verdict) {
    match verdict {
        Verdict::Stale => {
            warn!(lookup.raw(), "no worker has a fresh heartbeat; connections go to the API server");
        }
        Verdict::Refused => {
            warn!(lookup.raw(), "no listener fits the client's address family; it goes to the API server");
        }
        _ => warn!(lookup.raw(), "maps have another layout; connections go to the API server"),
    }
}

/// A lookup, with what the maps say about it.
struct Maps<'a>(&'a Lookup);

impl decide::Lookup for Maps<'_> {
    type Socket = Socket;

    #[inline(always)]
    fn is_tcp(&self) -> bool {
        self.0.is_tcp()
    }

    #[inline(always)]
    fn local_port(&self) -> u16 {
        self.0.local_port()
    }

    #[inline(always)]
    fn source(&self) -> Address {
        self.0.source()
    }

    #[inline(always)]
    fn source_port_be(&self) -> u16 {
        self.0.source_port_be()
    }

    #[inline(always)]
    fn is_steered(&self, port: u16) -> bool {
        // SAFETY: only whether the key exists is used, so nothing can change under a reference.
        unsafe { STEER_PORTS.get(port).is_some() }
    }

    #[inline(always)]
    fn is_exempt(&self, source: Address) -> bool {
        // SAFETY: as above.
        unsafe { EXEMPT.get(source.source_key()).is_some() }
    }

    #[inline(always)]
    fn mode(&self) -> Option<u32> {
        STEER_MODE.get(0).map(|word| word.mode)
    }

    #[inline(always)]
    fn config(&self) -> Option<&SteerConfig> {
        STEER_CONFIG.get(0)
    }

    #[inline(always)]
    fn is_peer(&self, source: Address) -> bool {
        // SAFETY: as above.
        unsafe { LANE_PEERS.get(source.source_key()).is_some() }
    }

    #[inline(always)]
    fn is_listed(&self, source: Address) -> bool {
        STEER_SOURCES.get(&Key::new(128, source.source_key())).is_some_and(|listed| *listed != 0)
    }

    #[inline(always)]
    fn listener(&self, worker: u32) -> Option<Socket> {
        STEER_SOCKETS.socket(worker)
    }

    #[inline(always)]
    fn heartbeat(&self, worker: u32) -> Option<u64> {
        let beat = HEARTBEATS.get_ptr(worker)?;
        // SAFETY: an array value never goes away; volatile because the proxy writes it at any time.
        Some(unsafe { (&raw const (*beat).boot_ns).read_volatile() })
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        boot_ns()
    }

    #[inline(always)]
    fn assign(&self, listener: &Socket) -> bool {
        self.0.assign(listener)
    }
}
