//! Runs a control plane as processes in network namespaces: stand-in API servers over one store, a steering proxy on each
//! node, and clients elsewhere.
#![allow(dead_code, unused_imports, reason = "every test binary uses its own part of this")]
#![allow(unreachable_pub, reason = "a module of a test binary is reached from that binary only")]

mod cluster;
mod ledger;
mod load;
mod process;
mod session;
mod watcher;

pub use cluster::{Cluster, NODES, Node};
pub use ledger::{Event, Failure, Ledger};
pub use load::{Load, Place, Share};
pub use process::Process;
pub use session::{Connecting, Session};
pub use watcher::{Watcher, differences};
