//! Passes log lines of the kernel programs on to the proxy's log.

use std::time::Duration;

use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::runtime::Handle;
use tokio::time::{MissedTickBehavior, interval};

/// The programs write at most a line per second and CPU, so looking every second is soon enough.
const EVERY: Duration = Duration::from_secs(1);

/// Follows the programs' log in a task of the current runtime, until that ends.
///
/// Lines arrive through the `log` crate's global logger, which `tracing_subscriber`'s `init` connects to
/// tracing. Losing them costs no connection, so failures are only logged.
pub(super) fn follow(ebpf: &mut Ebpf) {
    let mut logger = match EbpfLogger::init(ebpf) {
        Ok(logger) => logger,
        Err(error) => return tracing::warn!(%error, "log lines of the kernel programs are lost"),
    };
    let Ok(runtime) = Handle::try_current() else {
        return tracing::debug!("no runtime to follow the kernel programs' log in");
    };
    runtime.spawn(async move {
        // Reading the ring buffer is a look at shared memory and no system call while it is empty.
        let mut turns = interval(EVERY);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            logger.flush();
        }
    });
}
