//! Says where a program runs: here, or in a network namespace.

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns};

use crate::prerequisites::find_program;

/// A network namespace, or the one that xtask itself is in.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// The namespace of xtask.
    Here,
    /// A named namespace, as `ip netns` knows it.
    Namespace(String),
}

/// Folder of named network namespaces, see ip-netns(8).
pub(crate) const NAMESPACES: &str = "/run/netns";

impl Place {
    /// Words to put before a command that is to run in this place.
    ///
    /// `nsenter --net` and not `ip netns exec`, which mounts a new /sys and so hides bpffs and cgroups.
    pub(crate) fn prefix(&self) -> Vec<String> {
        match self {
            Self::Here => Vec::new(),
            Self::Namespace(name) => {
                vec!["nsenter".to_owned(), format!("--net={NAMESPACES}/{name}"), "--".to_owned()]
            }
        }
    }

    /// A command for `program` that runs in this place and without anybody's HTTP proxy settings.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut words = self.prefix();
        words.push(program.to_string_lossy().into_owned());
        let mut command = command_of(&words);
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
            command.env_remove(name);
        }
        command
    }

    /// Connects from this place.
    pub(crate) fn connect(&self, address: SocketAddr, limit: Duration) -> Result<TcpStream> {
        let namespace = match self {
            Self::Here => None,
            Self::Namespace(name) => {
                let path = PathBuf::from(NAMESPACES).join(name);
                Some(File::open(&path).with_context(|| format!("cannot open {}", path.display()))?)
            }
        };
        // A namespace belongs to a thread, so the change must not outlive this one connection.
        let connector = thread::spawn(move || -> Result<TcpStream> {
            if let Some(namespace) = namespace {
                setns(namespace, CloneFlags::CLONE_NEWNET).context("cannot enter the namespace")?;
            }
            Ok(TcpStream::connect_timeout(&address, limit)?)
        });
        connector.join().map_err(|_| anyhow::anyhow!("the connecting thread panicked"))?
    }
}

/// A command from words, the first of which is looked up.
pub(crate) fn command_of(words: &[String]) -> Command {
    let (program, arguments) = words.split_first().expect("a command has at least one word");
    let mut command = Command::new(find_program(program).unwrap_or_else(|| program.into()));
    command.args(arguments);
    command
}
