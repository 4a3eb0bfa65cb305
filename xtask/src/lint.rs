//! Checks what can be checked without running anything: format, conventions, clippy, documentation.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::command::stream;
use crate::conventions;
use crate::prerequisites::{can_install, find_program, install};
use crate::stages::Stages;
use crate::workspace::Workspace;

/// The crates of the host; the kernel side has a pass of its own.
pub(crate) const HOST_CRATES: [&str; 3] = ["--workspace", "--exclude", "mvproxy-ebpf"];

/// Runs all checks.
///
/// # Errors
/// When one fails.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mut stages = Stages::new();
    add(workspace, &mut stages);
    stages.finish()
}

/// Adds the checks to a longer run.
pub(crate) fn add(workspace: &Workspace, stages: &mut Stages) {
    stages.run("format", || stream(&mut workspace.cargo(&["fmt", "--all", "--check"])));
    stages.run("conventions", || conventions::check(&workspace.root));
    stages.run("clippy, host crates", || {
        let mut clippy = workspace.cargo(&["clippy"]);
        stream(clippy.args(HOST_CRATES).args(["--all-targets", "--", "-D", "warnings"]))
    });
    // Not among all targets: `cargo test` does not run it.
    stages.run("clippy, end to end", || {
        let mut clippy = workspace.cargo(&["clippy", "-p", "mvproxy-tests", "--test", "e2e"]);
        stream(clippy.args(["--", "-D", "warnings"]))
    });
    stages.run("clippy, kernel side on the host", || {
        let mut clippy = workspace.cargo(&["clippy", "-p", "mvproxy-ebpf"]);
        stream(clippy.args(["--all-targets", "--", "-D", "warnings"]))
    });
    kernel_pass(workspace, stages);
    stages.run("documentation", || {
        let mut doc = workspace.cargo(&["doc", "--no-deps"]);
        stream(doc.args(HOST_CRATES).env("RUSTDOCFLAGS", "-D warnings"))
    });
    deny(workspace, stages);
}

/// Licences, duplicate and banned crates, and their sources; advisories need a database from the network.
fn deny(workspace: &Workspace, stages: &mut Stages) {
    if find_program("cargo-deny").is_none() {
        stages.leave_out("cargo deny: not installed (cargo install --locked cargo-deny)");
        return;
    }
    stages.run("licences, bans and sources", || {
        stream(&mut workspace.cargo(&[
            "deny",
            "-L",
            "error",
            "check",
            "--hide-inclusion-graph",
            "licenses",
            "bans",
            "sources",
        ]))
    });
}

/// Clippy over what the host pass cannot see: the kernel side is only compiled for its own target.
///
/// The compiler that has a `core` for BPF is Debian's, and so has to be the clippy.
fn kernel_pass(workspace: &Workspace, stages: &mut Stages) {
    let driver = Path::new("/usr/bin/clippy-driver");
    if !Path::new("/usr/lib/rustlib").join(BPF_TARGET).exists() {
        stages.leave_out(
            "clippy of the kernel side: needs Debian's libstd-rust-web-dev-bpf and rust-web-clippy",
        );
    } else if driver.exists() || can_install() {
        stages.run("clippy, kernel side", || {
            if !driver.exists() {
                install(&["rust-web-clippy"])?;
            }
            stream(&mut kernel_clippy(workspace, driver))
        });
    } else {
        stages.leave_out("clippy of the kernel side: apt-get install rust-web-clippy");
    }
}

const BPF_TARGET: &str = "bpfel-unknown-none";

/// `cargo clippy` would take its driver from the toolchain of the host, so this is what it does, by hand.
fn kernel_clippy(workspace: &Workspace, driver: &Path) -> Command {
    let mut check = workspace.cargo(&["check", "-p", "mvproxy-ebpf", "--target", BPF_TARGET]);
    check.arg("--target-dir").arg(workspace.target.join("bpf-lint"));
    check.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
    check.env("RUSTC_WORKSPACE_WRAPPER", driver).env("CLIPPY_ARGS", "-Dwarnings__CLIPPY_HACKERY__");
    check
}
