//! Lists the programs as the kernel sees them.

use aya_ebpf::macros::{sk_lookup, sock_ops};
use aya_ebpf::programs::{SkLookupContext, SockOpsContext};

use mvproxy_ebpf::ctx::{Lookup, Ops};

/// `SK_PASS`: go on with the assigned socket or, when none was assigned, with the normal lookup.
const SK_PASS: u32 = 1;

/// Chooses the listener of a new connection; never drops one.
#[sk_lookup]
pub fn steer_listener(ctx: SkLookupContext) -> u32 {
    crate::steer::steer(&Lookup::new(ctx));
    SK_PASS
}

/// Counts connections from the proxy's cgroup to peers.
#[sock_ops]
pub fn count_sock_ops(ctx: SockOpsContext) -> u32 {
    crate::count::count(&Ops::new(ctx));
    1
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// A reachable panic is an endless loop, which the verifier refuses to load.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
