//! Cuts connections that were made before there was something to steer for, so that their clients come back through the
//! proxy.
//!
//! Problem: a client keeps its connection for hours, and one that goes straight to the API server gets a 404 for what
//! only a peer serves. Mechanism: `SOCK_DESTROY` ends it as a crash of the API server would, a few each second, in
//! random order, quiet ones first. Invariant: a connection that might be the API server's own, a proxy's or nobody's is
//! left alone, and so is everyone while the proxy could not take them.

mod diag;
mod rules;

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::io;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{info, warn};

use self::diag::{Diag, TcpSocket, Which};
pub use self::rules::Rules;
use self::rules::Sockets;
use crate::causes::chain;

/// Pause between two rounds.
const ROUND: Duration = Duration::from_millis(200);
/// A connection without data for so long has, in all likelihood, no request on its way.
const QUIET: Duration = Duration::from_secs(3);
/// Time after which a connection is cut that is never quiet, or longer where the rate takes longer. Until then ever less
/// quiet is asked for, so that a busy one goes in the longest pause that it makes.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time after which those are looked for that nobody had accepted when the rest was listed.
const ACCEPTED: Duration = Duration::from_secs(2);

/// Why connections cannot be cut.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// The kernel lacks it.
    #[error(
        "this kernel cannot cut connections; clients that are connected already are only steered when they connect \
         anew, unless it is built with CONFIG_INET_DIAG_DESTROY"
    )]
    Unsupported {
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel is too old.
    #[error(
        "this kernel does not say which connections are a proxy's (Linux 5.10 does); clients that are connected already \
         are only steered when they connect anew"
    )]
    Untold,
    /// The kernel denied it.
    #[error("the kernel does not let this process {action}; run as root or with CAP_NET_ADMIN")]
    NotPermitted {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Something else.
    #[error("cannot {action}")]
    Failed {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl CutError {
    fn new(action: &'static str, source: io::Error) -> Self {
        match source.raw_os_error() {
            // Without sock_diag at all there is no such protocol, and without its part for TCP no such handler.
            Some(libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::ECONNREFUSED | libc::ENOENT) => {
                Self::Unsupported { source }
            }
            Some(libc::EPERM | libc::EACCES) => Self::NotPermitted { action, source },
            _ => Self::Failed { action, source },
        }
    }
}

/// Whether this kernel can cut connections.
///
/// # Errors
/// See [`CutError`].
pub fn probe() -> Result<(), CutError> {
    Diag::open()?.probe()
}

/// Cuts connections; how far it got may be read at any time.
#[derive(Debug)]
pub struct Cutter {
    rules: Rules,
    per_second: NonZeroU32,
    cut: AtomicU64,
    failure: ArcSwapOption<String>,
}

/// Connections that are to be cut, and have not gone yet.
struct Doomed {
    cookies: HashSet<[u8; 8]>,
    /// Since when they could have been cut.
    since: Instant,
    /// When quiet has no say any more.
    patience: Duration,
    order: RandomState,
}

impl Cutter {
    /// Cuts what the rules say, so many a second.
    pub fn new(rules: Rules, per_second: NonZeroU32) -> Self {
        Self { rules, per_second, cut: AtomicU64::new(0), failure: ArcSwapOption::empty() }
    }

    /// Connections that were cut so far.
    pub fn count(&self) -> u64 {
        self.cut.load(Relaxed)
    }

    /// How many may be cut each second.
    pub fn per_second(&self) -> NonZeroU32 {
        self.per_second
    }

    /// Why none are, if that is so.
    pub fn failure(&self) -> Option<Arc<String>> {
        self.failure.load_full()
    }

    /// Cuts those connections that exist now, until none of them is left; not those by which these peers' proxies send
    /// requests. It waits while `may_cut` says no.
    pub async fn run(self: Arc<Self>, peers: Vec<IpAddr>, may_cut: impl Fn() -> bool) {
        let before = self.count();
        let failure = self.try_run(&peers, &may_cut).await.err().map(|error| chain(&error));
        if let Some(reason) = &failure {
            warn!(reason, "connections that go straight to the API server are not cut");
        } else {
            info!(connections = self.count() - before, "cut what went straight to the API server");
        }
        self.failure.store(failure.map(Arc::new));
    }

    async fn try_run(
        self: &Arc<Self>,
        peers: &[IpAddr],
        may_cut: &impl Fn() -> bool,
    ) -> Result<(), CutError> {
        let listed = Instant::now();
        self.cut_those_of_now(peers, may_cut).await?;
        sleep(ACCEPTED.saturating_sub(listed.elapsed())).await;
        self.cut_those_of_now(peers, may_cut).await
    }

    async fn cut_those_of_now(
        self: &Arc<Self>,
        peers: &[IpAddr],
        may_cut: &impl Fn() -> bool,
    ) -> Result<(), CutError> {
        let peers = peers.to_vec();
        let list = move |cutter: &Self| Ok(Doomed::new(&cutter.connections(&peers)?, cutter.per_second));
        let mut doomed = self.blocking(list).await?;
        let mut rounds = interval(ROUND);
        // Rounds that were missed are not made up for.
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pace = Pace::new(self.per_second);
        while !doomed.cookies.is_empty() {
            rounds.tick().await;
            if !may_cut() {
                doomed.since = Instant::now();
                continue;
            }
            let most = pace.most(pace.begun.elapsed());
            let (rest, done) = self.blocking(move |cutter| cutter.round(doomed, most)).await?;
            doomed = rest;
            pace.cut += done;
        }
        Ok(())
    }

    fn round(&self, mut doomed: Doomed, most: usize) -> Result<(Doomed, usize), CutError> {
        let diag = Diag::open()?;
        let mut left = diag.list(Which::To(self.rules.secure_port))?;
        left.retain(|socket| doomed.cookies.contains(&socket.cookie()));
        doomed.cookies = left.iter().map(TcpSocket::cookie).collect();
        let quiet = quiet_after(doomed.since.elapsed(), doomed.patience);
        left.retain(|socket| socket.quiet_for >= quiet);
        left.sort_by_cached_key(|socket| doomed.order.hash_one(socket.cookie()));
        let mut done = 0;
        for socket in left.iter().take(most) {
            if diag.destroy(socket)? {
                done += 1;
                self.cut.fetch_add(1, Relaxed);
            }
            doomed.cookies.remove(&socket.cookie());
        }
        Ok((doomed, done))
    }

    /// Connections to the API server that are to be cut.
    fn connections(&self, peers: &[IpAddr]) -> Result<Vec<TcpSocket>, CutError> {
        let (diag, port) = (Diag::open()?, self.rules.secure_port);
        let sockets = Sockets {
            listeners: diag.list(Which::Listening(port))?,
            servers: diag.list(Which::To(port))?,
            clients: diag.list(Which::From(port))?,
        };
        if sockets.servers.iter().any(|server| server.is_of_proxy.is_none()) {
            return Err(CutError::Untold);
        }
        // Read last: whatever is this process's own among them has its descriptor by now.
        let own = own_sockets().map_err(|source| CutError::new("list its own sockets", source))?;
        Ok(self.rules.to_cut(sockets, &own, peers))
    }

    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, CutError> + Send + 'static,
    ) -> Result<T, CutError> {
        let cutter = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || work(&cutter)).await;
        done.unwrap_or_else(|error| Err(CutError::new("work", io::Error::other(error))))
    }
}

impl Doomed {
    fn new(sockets: &[TcpSocket], per_second: NonZeroU32) -> Self {
        let seconds = u64::try_from(sockets.len()).unwrap_or(u64::MAX) / u64::from(per_second.get());
        Self {
            patience: PATIENCE.max(Duration::from_secs(seconds)),
            cookies: sockets.iter().map(TcpSocket::cookie).collect(),
            since: Instant::now(),
            order: RandomState::new(),
        }
    }
}

/// Keeps to the rate.
#[derive(Debug)]
struct Pace {
    per_second: NonZeroU32,
    begun: Instant,
    /// What was cut, or could have been.
    cut: usize,
}

impl Pace {
    fn new(per_second: NonZeroU32) -> Self {
        Self { per_second, begun: Instant::now(), cut: 0 }
    }

    /// Most that the next round may cut, so long after the beginning. What earlier rounds left is lost: there is no burst.
    fn most(&mut self, elapsed: Duration) -> usize {
        let rounds = usize::try_from(Duration::from_secs(1).as_millis() / ROUND.as_millis()).unwrap_or(1);
        let per_round = (self.per_second.get() as usize).div_ceil(rounds);
        let due = due_until(elapsed, self.per_second);
        self.cut = self.cut.max(due.saturating_sub(per_round));
        due.saturating_sub(self.cut)
    }
}

/// How long a connection must have been quiet to be cut, after this time of waiting.
fn quiet_after(waited: Duration, patience: Duration) -> Duration {
    let left = patience.saturating_sub(waited);
    QUIET.mul_f64(left.as_secs_f64() / patience.as_secs_f64())
}

/// How many may have been cut after this time; the first round may cut its share at once.
fn due_until(elapsed: Duration, per_second: NonZeroU32) -> usize {
    let millis = u64::try_from((elapsed + ROUND).as_millis()).unwrap_or(u64::MAX);
    let due = u64::from(per_second.get()).saturating_mul(millis).div_ceil(1000);
    usize::try_from(due).unwrap_or(usize::MAX)
}

/// Inodes of this process's sockets, as `sock_diag` knows them.
fn own_sockets() -> io::Result<HashSet<u32>> {
    let mut own = HashSet::new();
    for entry in Path::new("/proc/self/fd").read_dir()? {
        // A descriptor may have been closed meanwhile.
        let Ok(target) = entry?.path().read_link() else { continue };
        let inode = target.to_str().and_then(|name| name.strip_prefix("socket:[")?.strip_suffix(']'));
        own.extend(inode.and_then(|inode| inode.parse::<u32>().ok()));
    }
    Ok(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ever_less_quiet_is_asked_for() {
        let after = |seconds| quiet_after(Duration::from_secs(seconds), PATIENCE);
        assert_eq!(after(0), QUIET);
        assert_eq!(after(15), QUIET / 2);
        assert_eq!(after(30), Duration::ZERO);
        assert_eq!(after(31), Duration::ZERO);
    }

    #[test]
    fn however_long_nobody_was_quiet_the_rate_holds() {
        for per_second in [1, 3, 7, 50, 1000] {
            let mut pace = Pace::new(NonZeroU32::new(per_second).unwrap());
            // Nobody is cut for half a minute, and then everybody could be.
            for round in 0..150 {
                assert!(pace.most(ROUND * round) <= per_second as usize);
            }
            for second in 0..5 {
                let rounds = (0..5).map(|round| {
                    let most = pace.most(Duration::from_secs(30 + second) + ROUND * round);
                    pace.cut += most;
                    most
                });
                let cut: usize = rounds.sum();
                let (rate, share) = (per_second as usize, (per_second as usize).div_ceil(5));
                assert!((1..=rate + share).contains(&cut), "{cut} in a second at {rate}");
            }
        }
    }
}
