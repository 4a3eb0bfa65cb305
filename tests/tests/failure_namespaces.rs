//! Routing and failures between network namespaces, where the kernel refuses connections and cables are pulled out.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod failure_support;
#[macro_use]
mod scenarios;
mod support;

use failure_support::in_namespaces;

macro_rules! make_tests {
    ($($file:ident::$scenario:ident,)*) => {
        $(
            #[test]
            #[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
            fn $scenario() {
                in_namespaces(scenarios::$file::$scenario);
            }
        )*
    };
}

for_every_scenario!(make_tests);
make_tests! {
    unheard::a_lone_peer_is_dialled_afresh_however_many_old_connections_there_are,
    unheard::a_peer_that_seemed_dead_is_dialled_afresh_when_no_other_is_left,
}
