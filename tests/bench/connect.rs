//! Opens TLS connections at a fixed rate, each for one request.

use std::time::Duration;

use anyhow::{Result, ensure};
use http_body_util::BodyExt as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::callers::{Caller, get};
use crate::{Target, say};

/// How many connections, and how fast.
#[derive(clap::Args)]
pub(crate) struct ConnectArgs {
    #[command(flatten)]
    target: Target,
    /// Connections a second
    #[arg(long)]
    rate: u32,
    /// Connections
    #[arg(long)]
    count: usize,
    /// Resume sessions
    #[arg(long)]
    resume: bool,
}

/// Opens them, then says `answered N resumed M p50 MICROSECONDS p99 MICROSECONDS`, from SYN to the end of the answer.
///
/// # Errors
/// When a connection or its request fails.
pub(crate) async fn run(args: &ConnectArgs) -> Result<()> {
    let caller = Caller::new(&args.target, args.resume)?;
    let mut ticks = interval(Duration::from_secs(1) / args.rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut tries = JoinSet::new();
    for _ in 0..args.count {
        // From the moment at which it was due: a server that stalls delays the ones behind it as well.
        let due = ticks.tick().await;
        tries.spawn(one(caller.clone(), due));
    }
    let (mut times, mut resumed) = (Vec::new(), 0);
    while let Some(tried) = tries.join_next().await {
        let (time, was_resumed) = tried??;
        times.push(time.as_micros());
        resumed += usize::from(was_resumed);
    }
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    say(&format!("answered {} resumed {resumed} p50 {} p99 {}", times.len(), at(50), at(99)))
}

async fn one(caller: Caller, due: Instant) -> Result<(Duration, bool)> {
    let (mut sender, resumed) = caller.open().await?;
    let answer = sender.send_request(get("/api/v1/namespaces/default/configmaps/1000")?).await?;
    ensure!(answer.status().is_success(), "answered with {}", answer.status());
    answer.into_body().collect().await?;
    Ok((due.elapsed(), resumed))
}
