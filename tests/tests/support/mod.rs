//! Runs two nodes in one process: two stand-in API servers over one store, a real proxy before each, real TLS clients.
#![allow(dead_code, unused_imports, reason = "every test binary uses its own part of this")]
#![allow(unreachable_pub, reason = "a module of a test binary is reached from that binary only")]

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

mod admin;
mod apis;
mod callers;
mod cluster;
mod proxy;
mod raw;
mod resuming;
mod upstream;

pub use admin::{Metrics, get as admin_get};
pub use apis::{
    AGGREGATED, Api, aggregated, both_serve, only_new_serves, only_new_serves_with_status, served_by,
};
pub use callers::{BOTH, Caller, Http, Session, request};
pub use cluster::{Cluster, Node, standin};
pub use proxy::{Proxy, ProxyOptions};
pub use raw::{Upgraded, exchange, read_head};
pub use resuming::Resuming;
pub use upstream::{Body, Upstream, breaking, endless, upload, whole};

/// No test takes longer.
const LIMIT: Duration = Duration::from_secs(40);
/// What should happen soon happens within this time, or never.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs a test to its end, or to its time limit.
pub fn bounded(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ended = runtime.block_on(async { timeout(LIMIT, test).await });
    // A proxy that does not let go of its connections is a matter for the tests of draining.
    runtime.shutdown_background();
    ended.expect("the test ends within its time limit");
}

/// Probes until it succeeds; panics with the last failure when that takes too long.
pub async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let failure = match timeout(left, probe()).await {
            Ok(Ok(found)) => return found,
            Ok(Err(failure)) => failure,
            Err(_) => "the probe itself hangs".to_owned(),
        };
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}: {failure}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// `Ok` when `holds`, for use in [`eventually`].
pub fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// Runs `part` with a limit that is tighter than the whole test's.
pub async fn promptly<T>(what: &str, part: impl Future<Output = T>) -> T {
    timeout(PATIENCE, part).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}
