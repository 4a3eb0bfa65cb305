//! Knows where the workspace, its target folder and its programs are.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::command;

/// The checkout that xtask was started in.
pub(crate) struct Workspace {
    /// Folder of the workspace's Cargo.toml.
    pub(crate) root: PathBuf,
    /// cargo's target folder, wherever the configuration puts it.
    pub(crate) target: PathBuf,
}

impl Workspace {
    /// Asks cargo for the folders.
    pub(crate) fn find() -> Result<Self> {
        let mut metadata = cargo_command();
        metadata.args(["metadata", "--no-deps", "--format-version=1"]).stdin(Stdio::null());
        metadata.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")));
        let output = metadata.output().context("cannot run cargo metadata")?;
        anyhow::ensure!(
            output.status.success(),
            "cargo metadata failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
        let folder = |key: &str| {
            document[key].as_str().map(PathBuf::from).with_context(|| format!("cargo metadata has no {key}"))
        };
        Ok(Self { root: folder("workspace_root")?, target: folder("target_directory")? })
    }

    /// A cargo command in the workspace's root.
    pub(crate) fn cargo(&self, args: &[&str]) -> Command {
        let mut cargo = cargo_command();
        cargo.args(args).current_dir(&self.root);
        cargo
    }

    /// Where `cargo build` leaves the program `name`.
    pub(crate) fn binary(&self, name: &str) -> PathBuf {
        self.target.join("debug").join(name)
    }

    /// Folder of programs that xtask installs for itself.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// Builds the programs that the demo and the end-to-end tests start.
    pub(crate) fn build_programs(&self) -> Result<()> {
        command::stream(&mut self.cargo(&["build", "-p", "mvproxy", "-p", "mvproxy-tests", "--bins"]))
    }
}

/// cargo, without the variables that the outer `cargo run` set for xtask itself.
///
/// Build scripts watch some of them; leaving them in would rebuild crates at every change of caller.
fn cargo_command() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"]
            .iter()
            .any(|prefix| text.starts_with(prefix))
        {
            cargo.env_remove(&name);
        }
    }
    cargo
}
