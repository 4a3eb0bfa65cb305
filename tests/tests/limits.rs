//! Bounds what a client may take of the proxy: time, connections, streams, header bytes. Other clients are served meanwhile.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(unreachable_pub, reason = "modules of a test binary are reached from that binary only")]

mod support;

#[path = "limits/floods.rs"]
mod floods;
#[path = "limits/frames.rs"]
mod frames;
#[path = "limits/headers.rs"]
mod headers;
#[path = "limits/idle.rs"]
mod idle;
#[path = "limits/node.rs"]
mod node;
#[path = "limits/places.rs"]
mod places;
#[path = "limits/resets.rs"]
mod resets;
#[path = "limits/slow.rs"]
mod slow;
