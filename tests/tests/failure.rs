//! Routing and failures on loopback, where nothing but the way a server fails to answer is real.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod failure_support;
#[macro_use]
mod scenarios;
mod support;

use failure_support::on_loopback;

macro_rules! make_tests {
    ($($file:ident::$scenario:ident,)*) => {
        $(
            #[test]
            fn $scenario() {
                on_loopback(scenarios::$file::$scenario);
            }
        )*
    };
}

for_every_scenario!(make_tests);
