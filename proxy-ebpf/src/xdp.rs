//! Runs in the kernel where frames come in: counts those to the API server and keeps reconnect storms in bounds.
//!
//! An object of its own: a proxy without `--xdp-interface` loads nothing of it. Built like `main.rs`.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod canary_maps;
#[cfg(target_arch = "bpf")]
mod wire;
#[cfg(target_arch = "bpf")]
mod xdp_maps;
#[cfg(target_arch = "bpf")]
mod xdp_program;

#[cfg(not(target_arch = "bpf"))]
fn main() {}
