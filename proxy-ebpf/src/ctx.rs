//! Wraps the kernel's contexts and sockets in types; the only file that follows raw context pointers.

#![expect(
    clippy::cast_possible_truncation,
    reason = "every load is as wide as its field and returns a 64-bit word"
)]

use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr::{NonNull, from_ref, null_mut};

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{
    BPF_SK_LOOKUP_F_NO_REUSEPORT, BPF_SK_LOOKUP_F_REPLACE, BPF_SK_STORAGE_GET_F_CREATE, bpf_sk_lookup,
    bpf_sock, bpf_sock_ops,
};
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::helpers::generated::{
    bpf_ktime_get_boot_ns, bpf_map_lookup_elem, bpf_sk_assign, bpf_sk_release, bpf_sk_storage_get,
    bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
};
use aya_ebpf::programs::{SkLookupContext, SockOpsContext, XdpContext};
use mvproxy_common::PeerKey;

use crate::address::Address;
use crate::flow::{Flow, Totals};
use crate::packet::Plain;
use crate::slots::SocketSlots;

const AF_INET: u64 = 2;
const AF_INET6: u64 = 10;
const IPPROTO_TCP: u64 = 6;

/// Loads a field of a context, or a word of an array field, as the instruction that the verifier wants.
///
/// It takes loads at constant offsets from the context only. The optimiser merges equal loads of two branches
/// into one from a computed address, volatile or not; it leaves assembly alone.
macro_rules! load {
    ($width:literal, $ctx:expr, $context:ty, $field:ident $([$word:literal])?) => {{
        let value: u64;
        core::arch::asm!(
            concat!("{value} = *(", $width, " *)({ctx} + {offset})"),
            value = out(reg) value,
            ctx = in(reg) $ctx,
            offset = const core::mem::offset_of!($context, $field) $(+ $word * 4)?,
            options(nostack),
        );
        value
    }};
}

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
        unsafe { load!("u32", self.0.lookup, bpf_sk_lookup, protocol) == IPPROTO_TCP }
    }

    /// Destination port in host order.
    #[inline(always)]
    pub fn local_port(&self) -> u16 {
        // SAFETY: as above. The kernel keeps the port in the low half, in host order.
        unsafe { load!("u32", self.0.lookup, bpf_sk_lookup, local_port) as u16 }
    }

    /// Source address.
    #[inline(always)]
    pub fn source(&self) -> Address {
        let ctx = self.0.lookup;
        // SAFETY: as above. Addresses are in network order.
        unsafe {
            match load!("u32", ctx, bpf_sk_lookup, family) {
                AF_INET => Address::v4(load!("u32", ctx, bpf_sk_lookup, remote_ip4) as u32),
                _ => Address::v6([
                    load!("u32", ctx, bpf_sk_lookup, remote_ip6[0]) as u32,
                    load!("u32", ctx, bpf_sk_lookup, remote_ip6[1]) as u32,
                    load!("u32", ctx, bpf_sk_lookup, remote_ip6[2]) as u32,
                    load!("u32", ctx, bpf_sk_lookup, remote_ip6[3]) as u32,
                ]),
            }
        }
    }

    /// Source port in network order.
    #[inline(always)]
    pub fn source_port_be(&self) -> u16 {
        // SAFETY: as above; a two-byte load is allowed for this field.
        unsafe { load!("u16", self.0.lookup, bpf_sk_lookup, remote_port) as u16 }
    }

    /// Makes `socket` the receiver of the connection; false when the kernel refuses it for this packet.
    #[inline(always)]
    pub fn assign(&self, socket: &Socket) -> bool {
        // The worker is chosen by heartbeat: the kernel must not pick another member of a reuseport group.
        // While one proxy replaces another, two of these programs run, and the first has chosen already.
        let flags = u64::from(BPF_SK_LOOKUP_F_NO_REUSEPORT | BPF_SK_LOOKUP_F_REPLACE);
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
        // SAFETY: the kernel passes a valid context for the whole run. Addresses are in network order.
        let (address, port) = unsafe {
            let address = match load!("u32", ctx, bpf_sock_ops, family) {
                AF_INET => Address::v4(load!("u32", ctx, bpf_sock_ops, remote_ip4) as u32),
                AF_INET6 => Address::v6([
                    load!("u32", ctx, bpf_sock_ops, remote_ip6[0]) as u32,
                    load!("u32", ctx, bpf_sock_ops, remote_ip6[1]) as u32,
                    load!("u32", ctx, bpf_sock_ops, remote_ip6[2]) as u32,
                    load!("u32", ctx, bpf_sock_ops, remote_ip6[3]) as u32,
                ]),
                _ => return None,
            };
            (address, load!("u32", ctx, bpf_sock_ops, remote_port) as u32)
        };
        // The word is the 16-bit port in network order, moved to the upper half on little-endian machines.
        let port = u32::from_be(port) as u16;
        Some(address.peer_key(port))
    }

    /// Totals of the connection so far; all zero unless the kernel holds the socket locked.
    #[inline(always)]
    pub fn totals(&self) -> Totals {
        let ctx = self.0.ops;
        // SAFETY: as above; each field is loaded at its own width.
        unsafe {
            Totals {
                bytes_in: load!("u64", ctx, bpf_sock_ops, bytes_received),
                bytes_out: load!("u64", ctx, bpf_sock_ops, bytes_acked),
                retransmits: load!("u32", ctx, bpf_sock_ops, total_retrans),
                // The kernel keeps eight times the value (`srtt_us << 3`).
                srtt_us: load!("u32", ctx, bpf_sock_ops, srtt_us) >> 3,
            }
        }
    }

    /// What was counted of this connection; with `create`, a new zeroed record.
    #[inline(always)]
    pub fn flow(&self, flows: &SkStorage<Flow>, create: bool) -> Option<NonNull<Flow>> {
        let flags = if create { u64::from(BPF_SK_STORAGE_GET_F_CREATE) } else { 0 };
        // SAFETY: as above; the socket is checked for null before the helper gets it, and storage lives as
        // long as the socket, which outlives the event.
        unsafe {
            let socket = (*self.0.ops).__bindgen_anon_2.sk;
            if socket.is_null() {
                return None;
            }
            let map: *mut c_void = from_ref(flows).cast_mut().cast();
            NonNull::new(bpf_sk_storage_get(map, socket.cast(), null_mut(), flags).cast())
        }
    }
}

/// A frame that an interface received.
pub struct Frame(XdpContext);

impl Frame {
    pub fn new(ctx: XdpContext) -> Self {
        Self(ctx)
    }

    /// Copies what lies at an offset; none where that is not all within the frame.
    ///
    /// By a helper: pointers into the frame may be moved by constants only where the loader has no `CAP_PERFMON`, and by none
    /// beyond the first buffer of a jumbo frame.
    #[inline(always)]
    pub fn read<T: Plain>(&self, offset: u32) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the kernel passes a valid context for the whole run, and writes all of the value or returns an error.
        let error = unsafe {
            bpf_xdp_load_bytes(self.0.ctx, offset, value.as_mut_ptr().cast(), size_of::<T>() as u32)
        };
        // SAFETY: written, and every bit pattern is a value of a `Plain` type.
        (error == 0).then(|| unsafe { value.assume_init() })
    }

    /// Bytes of the frame, Ethernet header included.
    #[inline(always)]
    pub fn length(&self) -> u64 {
        // SAFETY: as above.
        unsafe { bpf_xdp_get_buff_len(self.0.ctx) }
    }
}
