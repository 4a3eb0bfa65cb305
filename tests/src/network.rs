//! Joins network namespaces by a bridge: a network of hosts, each with a cable that can be pulled out.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::netns::{Netns, stdout_of};

/// Name of the bridge in the switch, and of the interface in each host.
const BRIDGE: &str = "switch";
const INTERFACE: &str = "net0";
/// Longest wait for a cable to be noticed.
const PATIENCE: Duration = Duration::from_secs(5);

/// A network without hosts, or with some; it is gone when it and they are dropped.
#[derive(Debug)]
pub struct Network {
    switch: Arc<Netns>,
    hosts: AtomicU8,
}

/// A host on a network.
#[derive(Debug)]
pub struct Host {
    /// Its address on the network.
    pub address: Ipv4Addr,
    /// Where its threads and processes run.
    pub netns: Netns,
    switch: Arc<Netns>,
    /// Name of the switch's end of the cable.
    port: String,
}

impl Network {
    /// A network without hosts.
    ///
    /// # Errors
    ///
    /// Fails without `CAP_SYS_ADMIN` and `CAP_NET_ADMIN`, or without the `ip` command.
    pub fn new() -> Result<Self> {
        let switch = Netns::new(BRIDGE)?;
        switch.ip(&["link", "add", BRIDGE, "type", "bridge"])?;
        switch.ip(&["link", "set", BRIDGE, "up"])?;
        Ok(Self { switch: Arc::new(switch), hosts: AtomicU8::new(0) })
    }

    /// Another host; `label` is part of the name of its namespace.
    ///
    /// # Errors
    ///
    /// As [`Network::new`].
    pub fn join(&self, label: &str) -> Result<Host> {
        let number = self.hosts.fetch_add(1, Relaxed) + 1;
        let (netns, port) = (Netns::new(label)?, format!("port{number}"));
        let address = Ipv4Addr::new(10, 62, 0, number);
        let cable = ["link", "add", &port, "type", "veth", "peer", "name", INTERFACE, "netns", netns.name()];
        self.switch.ip(&cable)?;
        self.switch.ip(&["link", "set", &port, "master", BRIDGE, "up"])?;
        netns.ip(&["address", "add", &format!("{address}/24"), "dev", INTERFACE])?;
        netns.ip(&["link", "set", INTERFACE, "up"])?;
        Ok(Host { address, netns, switch: Arc::clone(&self.switch), port })
    }
}

impl Host {
    /// Pulls the cable out at the switch, or puts it back. Whoever talks to the host hears nothing of it: what they send
    /// is lost.
    ///
    /// # Errors
    ///
    /// As [`Network::new`].
    pub fn set_link(&self, up: bool) -> Result<()> {
        self.switch.ip(&["link", "set", &self.port, if up { "up" } else { "down" }])?;
        let begun = Instant::now();
        // The kernel looks after cables once a second; until then nothing goes through.
        while up && !(is_up(&self.switch, &self.port)? && is_up(&self.netns, INTERFACE)?) {
            ensure!(begun.elapsed() < PATIENCE, "the cable of {} is not noticed", self.netns.name());
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Takes the host off the network, or puts it back, with its cable in: it does not notice, and what it sends is lost.
    ///
    /// # Errors
    ///
    /// As [`Network::new`].
    pub fn set_joined(&self, joined: bool) -> Result<()> {
        let master: &[&str] = if joined { &["master", BRIDGE] } else { &["nomaster"] };
        self.switch.ip(&[&["link", "set", &self.port], master].concat())
    }
}

fn is_up(netns: &Netns, interface: &str) -> Result<bool> {
    let shown = stdout_of("ip", &["-n", netns.name(), "-o", "link", "show", "dev", interface])?;
    Ok(shown.contains("state UP"))
}
