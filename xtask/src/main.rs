//! Runs the developer commands: `cargo xtask build-ebpf | test | demo | e2e | bench | lint | test-privileged`.

mod bench;
mod build_ebpf;
mod claims;
mod command;
mod conventions;
mod demo;
mod e2e;
mod interrupt;
mod kubectl;
mod lint;
mod prerequisites;
mod privileged;
mod stages;
mod test;
mod toolchain;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// Builds, tests and shows mvproxy.
#[derive(Parser)]
#[command(name = "cargo xtask", disable_version_flag = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Build the kernel side, installing the compiler for it where that is possible
    BuildEbpf,
    /// Run everything that has to pass before a change is merged
    Test,
    /// Show mvproxy at work between an old and a new API server
    Demo(demo::DemoArgs),
    /// Run mvproxy between real clients and real API servers (root only; `KUBEBUILDER_ASSETS` names the folder of kube-apiserver,
    /// etcd and kubectl)
    E2e(e2e::E2eArgs),
    /// Measure mvproxy beside haproxy and nginx, on this machine
    Bench(bench::BenchArgs),
    /// Check formatting, conventions, clippy and documentation
    Lint,
    /// Run the tests that load programs into the kernel (root only)
    TestPrivileged,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<interrupt::Interrupted>() => {
            eprintln!("xtask: interrupted");
            ExitCode::from(130)
        }
        Err(error) if error.is::<stages::StageFailed>() => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> anyhow::Result<()> {
    interrupt::listen()?;
    let workspace = Workspace::find()?;
    match verb {
        Verb::BuildEbpf => build_ebpf::run(),
        Verb::Test => test::run(&workspace),
        Verb::Demo(args) => demo::run(&workspace, &args),
        Verb::E2e(args) => e2e::run(&workspace, &args),
        Verb::Bench(args) => bench::run(&workspace, &args),
        Verb::Lint => lint::run(&workspace),
        Verb::TestPrivileged => privileged::run(&workspace),
    }
}
