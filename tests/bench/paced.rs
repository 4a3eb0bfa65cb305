//! Sends requests at moments that are fixed beforehand, and says how long each took from its moment on.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2::SendRequest;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::callers::{Caller, get};
use crate::{Target, say};

/// How many requests, and how fast.
#[derive(clap::Args)]
pub(crate) struct PacedArgs {
    #[command(flatten)]
    target: Target,
    /// Path and query
    #[arg(long)]
    path: String,
    /// Connections that take turns
    #[arg(long)]
    connections: usize,
    /// Requests a second, on average
    #[arg(long)]
    rate: u32,
    /// Requests
    #[arg(long)]
    count: usize,
}

/// Sends them, then says `answered N` and percentiles in microseconds: `p50 A p90 B p99 C p99.9 D`.
///
/// # Errors
/// When a connection or a request fails.
pub(crate) async fn run(args: &PacedArgs) -> Result<()> {
    let caller = Caller::new(&args.target, false)?;
    let mut senders = Vec::new();
    for _ in 0..args.connections {
        senders.push(caller.open().await?.0);
    }
    let (tell, mut moments) = unbounded_channel();
    let (rate, count) = (args.rate, args.count);
    // A thread of its own: the runtime's timers are of milliseconds.
    std::thread::spawn(move || pace(rate, count, &tell));
    let mut open = JoinSet::new();
    while let Some((number, moment)) = moments.recv().await {
        open.spawn(one(senders[number % senders.len()].clone(), args.path.clone(), moment));
    }
    let mut times = Vec::new();
    while let Some(answered) = open.join_next().await {
        times.push(answered??.as_micros());
    }
    times.sort_unstable();
    let at = |per_mille: usize| times[(times.len() - 1) * per_mille / 1000];
    let [p50, p90, p99, p999] = [500, 900, 990, 999].map(at);
    say(&format!("answered {} p50 {p50} p90 {p90} p99 {p99} p99.9 {p999}", times.len()))
}

/// Requests that come independently of each other, as those of many clients do: the gaps are distributed exponentially. They
/// are the same in each run.
fn pace(rate: u32, count: usize, tell: &UnboundedSender<(usize, Instant)>) {
    let (mut moment, mut state) = (Instant::now() + Duration::from_millis(50), 0x9E37_79B9_u32);
    let mean = 1.0 / f64::from(rate);
    for number in 0..count {
        // xorshift
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        let uniform = (f64::from(state) + 1.0) / (f64::from(u32::MAX) + 2.0);
        moment += Duration::from_secs_f64(-mean * uniform.ln());
        std::thread::sleep(moment.saturating_duration_since(Instant::now()));
        if tell.send((number, moment)).is_err() {
            return;
        }
    }
}

async fn one(mut sender: SendRequest<Empty<Bytes>>, path: String, moment: Instant) -> Result<Duration> {
    let answer = sender.send_request(get(&path)?).await?;
    ensure!(answer.status().is_success(), "answered with {}", answer.status());
    answer.into_body().collect().await?;
    Ok(moment.elapsed())
}
