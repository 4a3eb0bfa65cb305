//! Runs the project's chores: `cargo xtask <verb>`, one file per verb.

mod build_ebpf;
mod toolchain;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds, tests and shows mvproxy")]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Builds the kernel programs, installing what that needs, for `cargo build` to embed
    BuildEbpf,
}

fn main() -> anyhow::Result<()> {
    match Args::parse().verb {
        Verb::BuildEbpf => build_ebpf::run(),
    }
}
