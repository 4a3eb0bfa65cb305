//! Runs the tests that load programs into the kernel and make network namespaces.

use anyhow::{Result, ensure};

use crate::build_ebpf;
use crate::command::stream;
use crate::lint::HOST_CRATES;
use crate::prerequisites::{self, BPFTOOL, IP, find_program, is_root};
use crate::workspace::Workspace;

/// Builds the kernel side and runs every ignored test.
///
/// # Errors
/// When this is not root or anything is missing: these tests fail, they are never skipped.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    ensure!(
        is_root(),
        "these tests load programs into the kernel: run `cargo xtask test-privileged` as root"
    );
    prerequisites::ensure(&[IP, BPFTOOL])?;
    build_ebpf::run()?;
    workspace.build_programs()?;
    run_ignored(workspace)
}

/// By convention, which `cargo xtask lint` checks, an ignored test is one that needs privileges.
fn run_ignored(workspace: &Workspace) -> Result<()> {
    if find_program("cargo-nextest").is_some() {
        // Which of them run side by side is in .config/nextest.toml.
        let mut nextest = workspace.cargo(&["nextest", "run", "--run-ignored=only", "--test-threads=2"]);
        return stream(nextest.args(HOST_CRATES));
    }
    let mut test = workspace.cargo(&["test", "--all-targets"]);
    stream(test.args(HOST_CRATES).args(["--", "--ignored", "--test-threads=1", "--nocapture"]))
}
