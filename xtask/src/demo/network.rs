//! Makes the demo's network: a client machine and two nodes on one bridge, each a network namespace.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::place::Place;
use super::workdir::{NAME_PREFIX, complain};
use crate::command;

/// Addresses of the three machines, in namespaces of their own and so free to choose.
const PREFIX_LENGTH: u8 = 24;

/// The namespaces; deleting them deletes every link in them.
pub(crate) struct Network {
    namespaces: Vec<String>,
    lan: String,
}

impl Network {
    /// Makes the client's namespace with the bridge.
    pub(crate) fn create(client_ip: &str) -> Result<Self> {
        let lan = format!("{NAME_PREFIX}{}-client", std::process::id());
        let mut network = Self { namespaces: Vec::new(), lan: lan.clone() };
        network.add_namespace(&lan)?;
        ip(&["-n", &lan, "link", "add", "lan", "type", "bridge"])?;
        ip(&["-n", &lan, "addr", "add", &format!("{client_ip}/{PREFIX_LENGTH}"), "dev", "lan"])?;
        ip(&["-n", &lan, "link", "set", "lan", "up"])?;
        Ok(network)
    }

    /// Where clients run.
    pub(crate) fn client(&self) -> Place {
        Place::Namespace(self.lan.clone())
    }

    /// Adds a node with the address `address` to the bridge.
    pub(crate) fn add_node(&mut self, node: &str, address: &str) -> Result<Place> {
        let name = format!("{NAME_PREFIX}{}-{node}", std::process::id());
        self.add_namespace(&name)?;
        let (lan, port) = (self.lan.clone(), format!("to-{node}"));
        ip(&["-n", &lan, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &name])?;
        ip(&["-n", &lan, "link", "set", &port, "master", "lan"])?;
        ip(&["-n", &lan, "link", "set", &port, "up"])?;
        ip(&["-n", &name, "addr", "add", &format!("{address}/{PREFIX_LENGTH}"), "dev", "eth0"])?;
        ip(&["-n", &name, "link", "set", "eth0", "up"])?;
        Ok(Place::Namespace(name))
    }

    fn add_namespace(&mut self, name: &str) -> Result<()> {
        ip(&["netns", "add", name])?;
        self.namespaces.push(name.to_owned());
        ip(&["-n", name, "link", "set", "lo", "up"])
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in self.namespaces.iter().rev() {
            // Not through `command`: that stops at a signal, and this has to run after one.
            let deleted = Command::new("ip").args(["netns", "delete", name]).output().and_then(|output| {
                let error = || std::io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned());
                if output.status.success() { Ok(()) } else { Err(error()) }
            });
            complain("delete namespace", &PathBuf::from(name), deleted);
        }
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    command::quiet(Command::new("ip").args(arguments)).map(drop).context("cannot set up the network")
}
