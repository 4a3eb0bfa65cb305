//! Runs what `cargo xtask bench` needs around a proxy: `mvproxy-bench pki | serve | watch | connect | paced`.

mod backend;
mod callers;
mod connect;
mod paced;
mod watch;

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};
use mvproxy_tests::pki::Pki;

/// The backend of the benchmarks, and clients that h2load cannot stand for.
#[derive(Parser)]
#[command(name = "mvproxy-bench")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Write certificates to a folder
    Pki {
        /// The folder
        dir: PathBuf,
    },
    /// Answer requests with bodies of the size that their path ends in, and watches with one event for each SIGUSR1
    Serve(backend::ServeArgs),
    /// Open watches, and say when all of them have got an event
    Watch(watch::WatchArgs),
    /// Open TLS connections at a rate, with one request on each
    Connect(connect::ConnectArgs),
    /// Send requests at a rate
    Paced(paced::PacedArgs),
}

/// Node whose serving certificate the backend and all proxies show.
const NODE: &str = "node";

// One thread, as the proxies have.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    match Cli::parse().verb {
        Verb::Pki { dir } => {
            Pki::generate()?.write_to(&dir, &[(NODE.to_owned(), Ipv4Addr::LOCALHOST.into())])
        }
        Verb::Serve(args) => backend::serve(&args).await,
        Verb::Watch(args) => watch::run(&args).await,
        Verb::Connect(args) => connect::run(&args).await,
        Verb::Paced(args) => paced::run(&args).await,
    }
}

/// Where a client goes, and whom it believes.
#[derive(clap::Args)]
struct Target {
    /// Address of the server or proxy
    #[arg(long)]
    address: SocketAddr,
    /// CA of its certificate
    #[arg(long)]
    ca: PathBuf,
}

/// One line on stdout, at once: whoever started this waits for it.
fn say(line: &str) -> Result<()> {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{line}")?;
    Ok(stdout.flush()?)
}
