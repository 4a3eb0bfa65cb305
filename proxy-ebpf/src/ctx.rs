//! Wraps the kernel's contexts and sockets in types; the only file that follows raw context pointers.

use core::ffi::c_void;
use core::ptr::{NonNull, from_ref, null_mut};

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{BPF_SK_LOOKUP_F_NO_REUSEPORT, BPF_SK_STORAGE_GET_F_CREATE, bpf_sock};
use aya_ebpf::helpers::generated::{
    bpf_ktime_get_boot_ns, bpf_map_lookup_elem, bpf_sk_assign, bpf_sk_release, bpf_sk_storage_get,
};
use aya_ebpf::programs::{SkLookupContext, SockOpsContext};
use mvproxy_common::{PeerKey, SourceKey, v4_mapped};

use crate::maps::{FLOWS, Flow, SocketSlots};

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const IPPROTO_TCP: u32 = 6;

/// `CLOCK_BOOTTIME` in nanoseconds.
#[inline(always)]
pub fn boot_ns() -> u64 {
    // SAFETY: the helper takes no arguments and is allowed in every program type used here.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// A packet for which the kernel looks for a listening or unconnected socket.
pub struct Lookup(SkLookupContext);

impl Lookup {
    pub fn new(ctx: SkLookupContext) -> Self {
        Self(ctx)
    }

    /// What aya-log's macros want to see.
    #[inline(always)]
    pub fn raw(&self) -> &SkLookupContext {
        &self.0
    }

    #[inline(always)]
    pub fn is_tcp(&self) -> bool {
        // SAFETY: the kernel passes a valid context for the whole run; `protocol` is a readable word of it.
        unsafe { (*self.0.lookup).protocol == IPPROTO_TCP }
    }

    /// Destination port in host order.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the kernel keeps a 16-bit port in a 32-bit field")]
    pub fn local_port(&self) -> u16 {
        // SAFETY: as above. The kernel keeps the port in the low half, in host order.
        unsafe { (*self.0.lookup).local_port as u16 }
    }

    /// Source address.
    #[inline(always)]
    pub fn source(&self) -> SourceKey {
        let ctx = self.0.lookup;
        // SAFETY: as above. Addresses are in network order; words are read one by one because the verifier
        // accepts no wider load here.
        let addr = unsafe {
            match (*ctx).family {
                AF_INET => v4_mapped((&raw const (*ctx).remote_ip4).read_volatile().to_ne_bytes()),
                _ => bytes_of([
                    (&raw const (*ctx).remote_ip6[0]).read_volatile(),
                    (&raw const (*ctx).remote_ip6[1]).read_volatile(),
                    (&raw const (*ctx).remote_ip6[2]).read_volatile(),
                    (&raw const (*ctx).remote_ip6[3]).read_volatile(),
                ]),
            }
        };
        SourceKey { addr }
    }

    /// Source port in network order; only good for hashing.
    #[inline(always)]
    pub fn source_port_be(&self) -> u16 {
        // SAFETY: as above; a two-byte load is allowed for this field.
        unsafe { (*self.0.lookup).remote_port }
    }

    /// Makes `socket` the receiver of the connection; false when the kernel refuses it for this packet.
    #[inline(always)]
    pub fn assign(&self, socket: &Socket) -> bool {
        // The worker is chosen by heartbeat: the kernel must not pick another member of a reuseport group.
        let flags = u64::from(BPF_SK_LOOKUP_F_NO_REUSEPORT);
        // SAFETY: valid context, and a socket whose reference `Socket` holds.
        unsafe { bpf_sk_assign(self.0.as_ptr(), socket.0.as_ptr().cast(), flags) == 0 }
    }
}

/// A referenced socket of a SOCKMAP slot.
pub struct Socket(NonNull<bpf_sock>);

impl Drop for Socket {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the reference was taken in `SocketSlots::socket` and is given up once.
        unsafe { bpf_sk_release(self.0.as_ptr().cast()) };
    }
}

impl SocketSlots {
    /// The socket in a slot, if there is one.
    #[inline(always)]
    pub fn socket(&self, slot: u32) -> Option<Socket> {
        let map = from_ref(self).cast_mut().cast();
        // SAFETY: `self` is a map by the time this runs, and the key lives through the call.
        let socket = unsafe { bpf_map_lookup_elem(map, from_ref(&slot).cast()) };
        NonNull::new(socket.cast()).map(Socket)
    }
}

/// An event of a TCP socket in the proxy's cgroup.
pub struct Ops(SockOpsContext);

impl Ops {
    pub fn new(ctx: SockOpsContext) -> Self {
        Self(ctx)
    }

    /// Which event, one of `BPF_SOCK_OPS_*`.
    #[inline(always)]
    pub fn op(&self) -> u32 {
        self.0.op()
    }

    /// Old and new state, at `BPF_SOCK_OPS_STATE_CB`.
    #[inline(always)]
    pub fn states(&self) -> (u32, u32) {
        (self.0.arg(0), self.0.arg(1))
    }

    /// Asks for more events of this socket; false when the kernel does not know one of them.
    #[inline(always)]
    pub fn ask_for(&self, flags: u32) -> bool {
        self.0.set_cb_flags(flags.cast_signed()).is_ok()
    }

    /// Address of the other end; none when the socket is neither IPv4 nor IPv6.
    #[inline(always)]
    pub fn remote(&self) -> Option<PeerKey> {
        let ctx = self.0.ops;
        // SAFETY: the kernel passes a valid context for the whole run. Addresses are in network order; words
        // are read one by one because the verifier accepts no wider load here.
        let (addr, port) = unsafe {
            let addr = match (*ctx).family {
                AF_INET => v4_mapped((&raw const (*ctx).remote_ip4).read_volatile().to_ne_bytes()),
                AF_INET6 => bytes_of([
                    (&raw const (*ctx).remote_ip6[0]).read_volatile(),
                    (&raw const (*ctx).remote_ip6[1]).read_volatile(),
                    (&raw const (*ctx).remote_ip6[2]).read_volatile(),
                    (&raw const (*ctx).remote_ip6[3]).read_volatile(),
                ]),
                _ => return None,
            };
            (addr, (&raw const (*ctx).remote_port).read_volatile())
        };
        // The word is the 16-bit port in network order, moved to the upper half on little-endian machines.
        #[expect(clippy::cast_possible_truncation, reason = "what is left is the 16-bit port")]
        let port = u32::from_be(port) as u16;
        Some(PeerKey { addr, port, pad: [0; 6] })
    }

    /// Totals of the connection so far; all zero unless the kernel holds the socket locked.
    #[inline(always)]
    pub fn totals(&self) -> Totals {
        let ctx = self.0.ops;
        // SAFETY: as above; each field is loaded at its own width.
        unsafe {
            Totals {
                bytes_in: (&raw const (*ctx).bytes_received).read_volatile(),
                bytes_out: (&raw const (*ctx).bytes_acked).read_volatile(),
                retransmits: u64::from((&raw const (*ctx).total_retrans).read_volatile()),
                // The kernel keeps eight times the value (`srtt_us << 3`).
                srtt_us: u64::from((&raw const (*ctx).srtt_us).read_volatile() >> 3),
            }
        }
    }

    /// What was counted of this connection; with `create`, a new zeroed record.
    #[inline(always)]
    pub fn flow(&self, create: bool) -> Option<NonNull<Flow>> {
        let flags = if create { u64::from(BPF_SK_STORAGE_GET_F_CREATE) } else { 0 };
        // SAFETY: as above; the socket is checked for null before the helper gets it, and storage lives as
        // long as the socket, which outlives the event.
        unsafe {
            let socket = (*self.0.ops).__bindgen_anon_2.sk;
            if socket.is_null() {
                return None;
            }
            let map: *mut c_void = from_ref(&FLOWS).cast_mut().cast();
            NonNull::new(bpf_sk_storage_get(map, socket.cast(), null_mut(), flags).cast())
        }
    }
}

/// Totals of a connection.
pub struct Totals {
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub retransmits: u64,
    /// Smoothed round-trip time in microseconds.
    pub srtt_us: u64,
}

/// The bytes of an IPv6 address whose words were loaded as they lie in memory.
#[inline(always)]
fn bytes_of(words: [u32; 4]) -> [u8; 16] {
    let [a, b, c, d] = words.map(u32::to_ne_bytes);
    [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3]]
}
