//! Turns SIGINT, SIGTERM and SIGHUP into an error that unwinds through every clean-up guard.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// The error of everything that was cut short by a signal.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// How long a wait can go without looking at the flag.
pub(crate) const TICK: Duration = Duration::from_millis(20);

/// Starts listening; until then signals end the process at once.
pub(crate) fn listen() -> Result<()> {
    ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed)).context("cannot listen for signals")
}

/// Fails when a signal has arrived.
pub(crate) fn check() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) { Err(Interrupted.into()) } else { Ok(()) }
}

/// Sleeps, unless a signal arrives.
pub(crate) fn sleep(duration: Duration) -> Result<()> {
    let end = Instant::now() + duration;
    loop {
        check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(TICK));
    }
}

/// Sleeps until a signal arrives, however long that takes.
pub(crate) fn wait_for_signal() {
    while check().is_ok() {
        thread::sleep(TICK);
    }
    // The signal was the answer to this wait, so what follows is not cut short by it.
    INTERRUPTED.store(false, Ordering::Relaxed);
}

/// Asks `probe` until it answers, at most for `limit`; `None` when it never did.
pub(crate) fn poll<T>(limit: Duration, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<Option<T>> {
    let end = Instant::now() + limit;
    loop {
        check()?;
        if let Some(answer) = probe()? {
            return Ok(Some(answer));
        }
        if Instant::now() >= end {
            return Ok(None);
        }
        thread::sleep(TICK);
    }
}
