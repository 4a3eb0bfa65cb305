//! What the kernel programs decide, apart from the kernel: compiled for the host too, where its tests run.
//!
//! The programs (`main.rs`, `xdp.rs`) answer the questions of these modules from contexts and maps. Only `ctx` follows raw context
//! pointers.
#![cfg_attr(target_arch = "bpf", no_std, feature(asm_experimental_arch))]

pub mod address;
pub mod admit;
#[cfg(target_arch = "bpf")]
pub mod ctx;
pub mod decide;
pub mod flow;
#[cfg(not(target_arch = "bpf"))]
pub mod frames;
pub mod packet;
#[cfg(target_arch = "bpf")]
pub mod slots;
