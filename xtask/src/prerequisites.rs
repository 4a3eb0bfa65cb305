//! Finds the programs that a verb needs and installs missing ones where that is possible.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Result, bail};

use crate::command;

/// A program that a verb starts, and the Debian package that brings it.
#[derive(Clone, Copy)]
pub(crate) struct Program {
    /// Its name on PATH.
    pub(crate) name: &'static str,
    /// Debian package.
    pub(crate) package: &'static str,
}

/// `ip`: network namespaces and links.
pub(crate) const IP: Program = Program { name: "ip", package: "iproute2" };
/// `nsenter`: starts programs inside a network namespace.
pub(crate) const NSENTER: Program = Program { name: "nsenter", package: "util-linux" };
/// `bpftool`: shows pinned maps.
pub(crate) const BPFTOOL: Program = Program { name: "bpftool", package: "bpftool" };
/// `curl`: requests from a chosen source address.
pub(crate) const CURL: Program = Program { name: "curl", package: "curl" };

/// Whether this process may make namespaces and load programs.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Where a program is, on PATH or in the folders that PATH lacks for ordinary users on Debian.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// Makes sure that all `programs` are there.
///
/// # Errors
/// When one is missing and cannot be installed; the message says what to run.
pub(crate) fn ensure(programs: &[Program]) -> Result<()> {
    let missing: Vec<_> = programs.iter().filter(|program| find_program(program.name).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.iter().map(|program| program.name).collect::<Vec<_>>().join(", ");
    let packages = missing.iter().map(|program| program.package).collect::<Vec<_>>();
    if !can_install() {
        bail!("{names} not found; install it first, on Debian with: apt-get install {}", packages.join(" "));
    }
    install(&packages)?;
    match missing.iter().find(|program| find_program(program.name).is_none()) {
        None => Ok(()),
        Some(program) => bail!("{} is still missing after installing {}", program.name, program.package),
    }
}

/// Whether missing Debian packages can be installed from here.
pub(crate) fn can_install() -> bool {
    is_root() && find_program("apt-get").is_some()
}

/// Installs Debian packages; never removes one for it.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    static UPDATED: OnceLock<()> = OnceLock::new();
    if UPDATED.get().is_none() {
        command::stream(apt().args(["update", "--quiet=2"]))?;
        UPDATED.get_or_init(|| ());
    }
    let mut install = apt();
    install.args(["install", "--yes", "--quiet=2", "--no-install-recommends", "--no-remove"]);
    // Without a terminal of its own dpkg prints no progress bars into logs.
    install.args(["-o", "Dpkg::Use-Pty=0"]);
    command::stream(install.args(packages))
}

fn apt() -> Command {
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive");
    apt
}
