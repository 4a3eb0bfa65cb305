//! Checks what can be checked without running anything: format, conventions, clippy, documentation.

use std::path::{Path, PathBuf};
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
    stages.run("clippy, kernel side on the host", || {
        stream(&mut workspace.cargo(&["clippy", "-p", "mvproxy-ebpf", "--", "-D", "warnings"]))
    });
    match kernel_clippy() {
        Ok(driver) => stages.run("clippy, kernel side", || stream(&mut kernel_pass(workspace, &driver))),
        Err(missing) => stages.leave_out(format!("clippy of the kernel side for its own target: {missing}")),
    }
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
        stream(&mut workspace.cargo(&["deny", "check", "licenses", "bans", "sources"]))
    });
}

/// Debian's clippy for the compiler that has a core for BPF; installed when that compiler is there.
fn kernel_clippy() -> Result<PathBuf, String> {
    let driver = Path::new("/usr/bin/clippy-driver");
    let core = Path::new("/usr/lib/rustlib/bpfel-unknown-none");
    if !core.exists() {
        return Err("needs Debian's libstd-rust-web-dev-bpf and rust-web-clippy".to_owned());
    }
    if !driver.exists() && can_install() {
        install(&["rust-web-clippy"]).map_err(|error| format!("{error:#}"))?;
    }
    if driver.exists() { Ok(driver.to_owned()) } else { Err("apt-get install rust-web-clippy".to_owned()) }
}

/// `cargo clippy` would take its driver from the toolchain of the host, so this is what it does, by hand.
fn kernel_pass(workspace: &Workspace, driver: &Path) -> Command {
    let mut check = workspace.cargo(&["check", "-p", "mvproxy-ebpf", "--target", "bpfel-unknown-none"]);
    check.arg("--target-dir").arg(workspace.target.join("bpf-lint"));
    check.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
    check.env("RUSTC_WORKSPACE_WRAPPER", driver).env("CLIPPY_ARGS", "-Dwarnings__CLIPPY_HACKERY__");
    check
}
