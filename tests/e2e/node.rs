//! One control-plane node: a network namespace with a host name, an API server and a proxy.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use mvproxy_tests::netns::Netns;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

use crate::apiserver::{BuiltIn, Kind, SECURE_PORT};
use crate::cgroup::Cgroup;
use crate::cluster_support::Process;
use crate::site::CLIENTS;

const ADMIN_PORT: u16 = 9643;

/// One control-plane node.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) ip: Ipv4Addr,
    pub(crate) netns: Arc<Netns>,
    pub(crate) kind: Kind,
    pub(crate) built_in: BuiltIn,
    pub(crate) audit_log: PathBuf,
    pub(crate) server_log: PathBuf,
    pub(crate) proxy_log: PathBuf,
    /// Length of the API server's log when the proxies were started.
    pub(crate) log_before: usize,
    pub(crate) server: Option<Process>,
    pub(crate) proxy: Option<Process>,
    pub(crate) bpffs: TempDir,
    /// Of the API server, as a pod has its own.
    pub(crate) cgroup: Cgroup,
}

impl Node {
    pub(crate) fn new(
        number: u8,
        elsewhere: &Netns,
        logs: &Path,
        kind: Kind,
        built_in: BuiltIn,
    ) -> Result<Self> {
        let name = format!("node{number}");
        let netns = Arc::new(Netns::new(&name)?);
        let ip = Ipv4Addr::new(10, 62, 0, number);
        let port = format!("to{number}");
        elsewhere.ip(&[
            "link",
            "add",
            &port,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            netns.name(),
        ])?;
        elsewhere.ip(&["link", "set", &port, "master", "nodes", "up"])?;
        netns.ip(&["address", "add", &format!("{ip}/24"), "dev", "eth0"])?;
        netns.ip(&["link", "set", "eth0", "up"])?;
        netns.ip(&["route", "add", "default", "via", &CLIENTS.to_string()])?;
        let bpffs = TempDir::with_prefix("mvp-e2e-bpffs-")?;
        // It has to outlive every proxy: a mount that only a proxy's own namespace has goes away with it.
        mount(Some("bpf"), bpffs.path(), Some("bpf"), MsFlags::empty(), None::<&str>)?;
        let log = |what: &str| logs.join(format!("{what}-{name}.log"));
        Ok(Self {
            ip,
            netns,
            kind,
            built_in,
            audit_log: log("audit"),
            server_log: log("kube-apiserver"),
            proxy_log: log("mvproxy"),
            log_before: 0,
            server: None,
            proxy: None,
            bpffs,
            cgroup: Cgroup::new(&name)?,
            name,
        })
    }

    /// Runs `work` on the node, under its name: an API server's Lease is named after it.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.netns.run(|| {
            unshare(CloneFlags::CLONE_NEWUTS).expect("root may have a host name of its own");
            nix::unistd::sethostname(&self.name).expect("root may set it");
            work()
        })
    }

    /// Where clients elsewhere dial it.
    pub(crate) fn address(&self) -> SocketAddr {
        (self.ip, SECURE_PORT).into()
    }

    /// The proxy, to signal it.
    pub(crate) fn proxy(&self) -> Option<&Process> {
        self.proxy.as_ref()
    }

    /// The API server, to signal it.
    pub(crate) fn server(&self) -> Option<&Process> {
        self.server.as_ref()
    }

    /// A metric of the proxy, summed over its labels.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let text = self.admin("/metrics");
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = rest.rsplit_once(' ')?;
            (labels.is_empty() || labels.starts_with('{')).then(|| value.parse::<u64>().ok()).flatten()
        });
        values.sum()
    }

    /// What the proxy answers on its admin address; empty while it does not.
    pub(crate) fn admin(&self, path: &str) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
        let exchanged = async || {
            let mut answer = String::new();
            let mut stream = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, ADMIN_PORT)).await?;
            stream.write_all(request.as_bytes()).await?;
            stream.read_to_string(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        let limit = Duration::from_secs(5);
        let answered = self.netns.block_on(async || tokio::time::timeout(limit, exchanged()).await);
        answered.ok().and_then(Result::ok).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.proxy.take());
        drop(self.server.take());
        if let Err(error) = umount2(self.bpffs.path(), MntFlags::MNT_DETACH) {
            eprintln!("left mounted: {}: {error}", self.bpffs.path().display());
        }
    }
}
