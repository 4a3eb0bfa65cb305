//! Declares the map of listeners in a way that lets it be read.

use aya_ebpf::bindings::bpf_map_type::BPF_MAP_TYPE_SOCKMAP;
use mvproxy_common::MAX_WORKERS;

/// A SOCKMAP whose values are 8 bytes long, so that reading a slot gives the socket's cookie.
///
/// With the 4-byte values of `aya_ebpf::btf_maps::SockMap` the kernel refuses to read one.
#[repr(C)]
pub struct SocketSlots {
    r#type: *const [i32; BPF_MAP_TYPE_SOCKMAP as usize],
    key: *const u32,
    value: *const u64,
    max_entries: *const [i32; MAX_WORKERS as usize],
    map_flags: *const [i32; 0],
}

// SAFETY: the pointers only carry types for BTF; the loader replaces the static by a map, nothing follows
// them.
unsafe impl Sync for SocketSlots {}

impl SocketSlots {
    /// The declaration.
    #[expect(clippy::new_without_default, reason = "a declaration of a map has no default")]
    pub const fn new() -> Self {
        use core::ptr::null;
        Self { r#type: null(), key: null(), value: null(), max_entries: null(), map_flags: null() }
    }
}
