//! Runs a stand-in kube-apiserver, its store, or makes the certificates for both.

use std::future::Future;
use std::io::Write as _;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use mvproxy_tests::pki::Pki;
use mvproxy_tests::standin::Standin;
use mvproxy_tests::store::Store;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

mod serve;

#[derive(Parser)]
#[command(name = "mvproxy-standin", version, about)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Write a kubeadm-shaped PKI.
    Pki(serve::PkiArgs),
    /// Serve the objects that several stand-ins share.
    Store(serve::StoreArgs),
    /// Serve the Kubernetes API.
    Serve(Box<serve::ServeArgs>),
}

#[tokio::main]
async fn main() -> Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match Cli::parse().verb {
        Verb::Pki(args) => Pki::generate()?.write_to(&args.dir, &args.node),
        Verb::Store(args) => run_store(&args).await,
        Verb::Serve(args) => run_server(&args).await,
    }
}

async fn run_store(args: &serve::StoreArgs) -> Result<()> {
    let path = &args.listen;
    // The socket of a store that was killed; a living one still holds its listener, but nobody would find it.
    if std::os::unix::net::UnixStream::connect(path).is_err() {
        let _ = std::fs::remove_file(path);
    }
    let listener =
        UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
    let interrupted = interrupted();
    say(&format!("serving on {}", path.display()))?;
    let store = Store::in_memory();
    tokio::select! {
        ended = store.serve(listener) => ended?,
        ended = interrupted => ended?,
    }
    std::fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))
}

async fn run_server(args: &serve::ServeArgs) -> Result<()> {
    let standin = Standin::start(args.options().await?).await?;
    let interrupted = interrupted();
    say(&format!("serving on {}", standin.addr))?;
    interrupted.await?;
    standin.stop().await
}

/// Waits for SIGTERM or SIGINT; catches them from the call on, not only when awaited.
fn interrupted() -> impl Future<Output = Result<()>> {
    let signals =
        signal(SignalKind::terminate()).and_then(|term| Ok((term, signal(SignalKind::interrupt())?)));
    async move {
        let (mut term, mut interrupt) = signals?;
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    }
}

/// One line on stdout, at once: whoever started this waits for it.
fn say(line: &str) -> Result<()> {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{line}")?;
    Ok(stdout.flush()?)
}
