//! Opens many watches and says when all of them have got an event.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use anyhow::{Result, ensure};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::callers::{Caller, get};
use crate::{Target, say};

/// How many watches.
#[derive(clap::Args)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    target: Target,
    /// Connections
    #[arg(long)]
    connections: usize,
    /// Watches on each
    #[arg(long)]
    streams: usize,
}

/// Opens them, says `open N`, and after each event that all of them got `delivered NUMBER`.
///
/// # Errors
/// When a connection breaks or a watch is refused.
pub(crate) async fn run(args: &WatchArgs) -> Result<()> {
    let caller = Caller::new(&args.target, false)?;
    let (all, got) = (args.connections * args.streams, Arc::new(AtomicUsize::new(0)));
    let mut senders = Vec::new();
    for _ in 0..args.connections {
        let (mut sender, _) = caller.open().await?;
        for _ in 0..args.streams {
            sender.ready().await?;
            let answer = sender.send_request(get("/api/v1/namespaces/default/pods?watch=true")?).await?;
            ensure!(answer.status().is_success(), "a watch was answered with {}", answer.status());
            tokio::spawn(follow(answer.into_body(), Arc::clone(&got), all));
        }
        // A connection ends with its last sender.
        senders.push(sender);
    }
    say(&format!("open {all}"))?;
    std::future::pending().await
}

/// Counts events: they are of 512 bytes, in whatever pieces they come.
async fn follow(mut body: Incoming, got: Arc<AtomicUsize>, all: usize) -> Result<()> {
    while let Some(frame) = body.frame().await {
        let events = frame?.data_ref().map_or(0, |data| data.split(|byte| *byte == b'\n').count() - 1);
        for _ in 0..events {
            let count = got.fetch_add(1, Relaxed) + 1;
            if count.is_multiple_of(all) {
                say(&format!("delivered {}", count / all))?;
            }
        }
    }
    say("a watch ended")
}
