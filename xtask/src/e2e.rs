//! Runs mvproxy between real clients and real API servers.

use anyhow::{Result, ensure};
use clap::Args;

use crate::build_ebpf;
use crate::command::stream;
use crate::prerequisites::{self, IP, is_root};
use crate::workspace::Workspace;

/// Names the folder of the real programs, as in controller-runtime's envtest.
pub(crate) const ASSETS: &str = "KUBEBUILDER_ASSETS";

/// What is run.
#[derive(Args, Debug)]
pub(crate) struct E2eArgs {
    /// Scenarios by name, such as `skewed` or `upgrade`; all when none is given
    scenarios: Vec<String>,
}

/// Why the run is no part of `cargo xtask test`.
pub(crate) fn why_left_out() -> String {
    if std::env::var_os(ASSETS).is_some() {
        return "the run against real API servers: it takes longer than all of this (cargo xtask e2e)"
            .to_owned();
    }
    format!(
        "the run against real API servers: {ASSETS} names no folder with kube-apiserver, etcd and kubectl \
         (cargo xtask e2e)"
    )
}

/// Runs the scenarios; the report is `target/e2e/report.md`. Without real programs it says that it was left out.
///
/// # Errors
/// When this is not root, the folder lacks a program, or anything is not as expected.
pub(crate) fn run(workspace: &Workspace, args: &E2eArgs) -> Result<()> {
    if std::env::var_os(ASSETS).is_none() {
        println!("left out: {}", why_left_out());
        return Ok(());
    }
    ensure!(is_root(), "this makes network namespaces and loads programs into the kernel: run it as root");
    prerequisites::ensure(&[IP])?;
    build_ebpf::run()?;
    workspace.build_programs()?;
    let mut command = workspace.cargo(&["test", "-p", "mvproxy-tests", "--test", "e2e", "--"]);
    stream(command.args(&args.scenarios))
}
