//! Prepares what all contestants share: programs, certificates, backends.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::place::Folder;
use crate::command;
use crate::demo::place::Place;
use crate::demo::process::{Launch, Process};
use crate::workspace::Workspace;

/// Time for a program to be ready.
const START: Duration = Duration::from_secs(20);

/// What all contestants share.
pub(crate) struct Site {
    /// Files of this run.
    pub(crate) folder: Folder,
    /// The proxy.
    pub(crate) mvproxy: PathBuf,
    /// Backend and clients.
    pub(crate) helper: PathBuf,
    /// An API server of 1.34.
    pub(crate) older: Backend,
    /// One of 1.36.
    pub(crate) newer: Backend,
}

/// A backend that runs until this is dropped.
pub(crate) struct Backend {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// The running program.
    pub(crate) process: Process,
}

impl Site {
    /// Builds the programs as they are released, writes certificates and starts the backends.
    pub(crate) fn prepare(workspace: &Workspace) -> Result<Self> {
        // One after the other: mvproxy is to be built as for a release, without the features of the other's crates.
        command::stream(&mut workspace.cargo(&["build", "--release", "-p", "mvproxy"]))?;
        command::stream(&mut workspace.cargo(&[
            "build",
            "--release",
            "-p",
            "mvproxy-tests",
            "--bin",
            "mvproxy-bench",
        ]))?;
        let release = workspace.target.join("release");
        let (mvproxy, helper) = (release.join("mvproxy"), release.join("mvproxy-bench"));
        let folder = Folder::new(workspace.target.join("bench").join("run"));
        if folder.path().exists() {
            fs::remove_dir_all(folder.path())?;
        }
        fs::create_dir_all(folder.path())?;
        command::quiet(Command::new(&helper).arg("pki").arg(folder.pki()))?;
        let text = |name: &str| fs::read_to_string(folder.node().join(name));
        fs::write(folder.pem(), format!("{}{}", text("apiserver.crt")?, text("apiserver.key")?))?;
        let start = |name: &str, newer: bool| Backend::start(&folder, &helper, name, newer);
        let (older, newer) = (start("backend-1.34", false)?, start("backend-1.36", true)?);
        Ok(Self { folder, mvproxy, helper, older, newer })
    }

    /// Starts a program of this run in the background.
    pub(crate) fn launch(
        &self,
        name: &str,
        program: &std::path::Path,
        arguments: Vec<String>,
    ) -> Result<Process> {
        launch(&self.folder, name, program, arguments)
    }
}

impl Backend {
    fn start(folder: &Folder, helper: &std::path::Path, name: &str, newer: bool) -> Result<Self> {
        let mut arguments = vec!["serve".to_owned(), format!("--pki={}", folder.pki().display())];
        arguments.extend(newer.then(|| "--newer".to_owned()));
        let mut process = launch(folder, name, helper, arguments)?;
        let said = |process: &Process| {
            let output = process.output()?;
            Ok::<_, anyhow::Error>(
                output.lines().find_map(|line| line.strip_prefix("serving on ")?.parse().ok()),
            )
        };
        process.wait_until("serving", START, |process| Ok(said(process)?.is_some()))?;
        let address = said(&process)?.context("it said where a moment ago")?;
        Ok(Self { address, process })
    }
}

fn launch(folder: &Folder, name: &str, program: &std::path::Path, arguments: Vec<String>) -> Result<Process> {
    let log = folder.file(&format!("{name}.log"));
    Launch { name: name.to_owned(), program, arguments, place: &Place::Here, cgroup: None, log }.start()
}

/// An address that nobody listens on.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
