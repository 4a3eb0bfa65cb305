//! Is the program on an interface as the kernel sees it.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use mvproxy_ebpf::admit::{Action, admit};
use mvproxy_ebpf::ctx::Frame;

use crate::wire::Maps;

/// Counts segments to the API server, and drops connection attempts beyond a source's budget.
///
/// `frags`: without it the kernel refuses interfaces with jumbo frames.
#[xdp(frags)]
pub fn peer_xdp(ctx: XdpContext) -> u32 {
    match admit(&Maps(Frame::new(ctx))) {
        Action::Pass => XDP_PASS,
        Action::Drop => XDP_DROP,
    }
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// A reachable panic is an endless loop, which the verifier refuses to load.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
