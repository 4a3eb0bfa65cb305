//! Sets up the demo's cluster: certificates, one store, two nodes and a place for clients.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::caller::Caller;
use super::logs::Logs;
use super::network::Network;
use super::node::{Node, Plan, Shared};
use super::place::Place;
use super::process::{Launch, Process};
use super::workdir::{BpfMount, WorkDir};
use crate::command;
use crate::workspace::Workspace;

/// Everything the demo started; fields are dropped in this order, users before what they use.
pub(crate) struct Site {
    /// Node with the API server that is to be upgraded.
    pub(crate) old: Node,
    /// Node with the upgraded API server.
    pub(crate) new: Node,
    _store: Process,
    /// Sends requests.
    pub(crate) caller: Caller,
    /// Where clients run.
    pub(crate) client: Place,
    bpf: Option<BpfMount>,
    _network: Option<Network>,
    workdir: WorkDir,
    logs: Logs,
}

/// Documents of the old API server.
const OLD: &str = "v1.34";
/// Documents of the new one: 1.36 with every API switched on.
const NEW: &str = "v1.36-all";

impl Site {
    /// Starts the API servers; the proxies come later, so that the demo can show the difference.
    pub(crate) fn set_up(workspace: &Workspace, kubectl: PathBuf, steered: bool) -> Result<Self> {
        let logs = Logs::take(workspace.target.join("demo"))?;
        let workdir = WorkDir::create()?;
        let folder = workdir.path();
        let shared = Shared {
            mvproxy: workspace.binary("mvproxy"),
            standin: workspace.binary("mvproxy-standin"),
            pki: folder.join("pki"),
            store: folder.join("store.sock"),
            folder: folder.to_owned(),
            logs: logs.folder().to_owned(),
        };
        let bpf = if steered { Some(BpfMount::create(folder)?) } else { None };
        let (network, plans) = match &bpf {
            Some(bpf) => steered_plans(&shared, bpf.path())?,
            None => (None, loopback_plans(&shared)?),
        };
        let client = network.as_ref().map_or(Place::Here, Network::client);
        make_pki(&shared, &plans)?;
        let caller = make_caller(kubectl, &shared, &plans[0])?;
        let store = start_store(&shared)?;
        let [old, new] = plans;
        let (old, new) = (Node::start(old)?, Node::start(new)?);
        Ok(Self { old, new, _store: store, caller, client, bpf, _network: network, workdir, logs })
    }

    /// Whether connections are steered in the kernel.
    pub(crate) fn is_steered(&self) -> bool {
        self.bpf.is_some()
    }

    /// Folder of the logs.
    pub(crate) fn logs(&self) -> &Path {
        self.logs.folder()
    }

    /// Folder of manifests, certificates and files for kubectl.
    pub(crate) fn folder(&self) -> &Path {
        self.workdir.path()
    }

    /// Folder of the maps that a node's proxy pinned.
    pub(crate) fn pins(&self, node: &Node) -> Option<PathBuf> {
        self.bpf.as_ref().map(|bpf| bpf.path().join(node.plan.name))
    }

    /// The first lines of the demo: who is where.
    pub(crate) fn description(&self) -> String {
        let line = |node: &Node| {
            let (name, documents) = (node.plan.name, node.plan.documents);
            format!("  {name}  {:<22} API server with the {documents} documents", node.url(""))
        };
        let clients = match &self.client {
            Place::Here => "One process tree on loopback, with --steering=off:".to_owned(),
            place @ Place::Namespace(_) => format!(
                "Two nodes and a client as network namespaces; `client$ x` means `{} x`, and so on:",
                place.prefix().join(" ")
            ),
        };
        format!(
            "\n{clients}\n{}\n{}\n  for the same commands: {}",
            line(&self.old),
            line(&self.new),
            self.caller.exports()
        )
    }

    /// What a user can try while the nodes stay up.
    pub(crate) fn invitation(&self) -> String {
        let enter = self.client.prefix().join(" ");
        let get = "kubectl get mutatingadmissionpolicies";
        format!("\nThe nodes stay up until Ctrl-C. Try:\n  {}\n  {enter} {get}", self.caller.exports())
    }
}

/// The two nodes behind a bridge; they are steered, so clients dial the API server's port.
fn steered_plans(shared: &Shared, bpffs: &Path) -> Result<(Option<Network>, [Plan; 2])> {
    let mut network = Network::create("10.43.7.1")?;
    let mut plan = |name: &'static str, documents, last_byte| -> Result<Plan> {
        let ip = Ipv4Addr::new(10, 43, 7, last_byte);
        Ok(Plan {
            name,
            documents,
            place: network.add_node(name, &ip.to_string())?,
            ip,
            server_port: 6443,
            client_port: 6443,
            admin: SocketAddr::from(([127, 0, 0, 1], 9643)),
            proxy_flags: vec![
                "--steering=always".to_owned(),
                format!("--bpffs-dir={}", bpffs.join(name).display()),
            ],
            shared: shared.clone(),
        })
    };
    let plans = [plan("old", OLD, 11)?, plan("new", NEW, 12)?];
    Ok((Some(network), plans))
}

/// The two nodes on loopback; clients dial the proxies' own ports.
fn loopback_plans(shared: &Shared) -> Result<[Plan; 2]> {
    let [old, new, old_proxy, new_proxy, old_admin, new_admin] = free_ports()?;
    let plan = |name, documents, server_port, proxy, admin: u16, peer| Plan {
        name,
        documents,
        place: Place::Here,
        ip: Ipv4Addr::LOCALHOST,
        server_port,
        client_port: proxy,
        admin: SocketAddr::from(([127, 0, 0, 1], admin)),
        proxy_flags: vec![
            "--steering=off".to_owned(),
            format!("--listen=127.0.0.1:{proxy}"),
            // An EndpointSlice has one port for all its addresses, so it cannot tell these two apart.
            format!("--peers=127.0.0.1:{peer}"),
        ],
        shared: shared.clone(),
    };
    Ok([plan("old", OLD, old, old_proxy, old_admin, new), plan("new", NEW, new, new_proxy, new_admin, old)])
}

/// Ports that were free a moment ago, all different.
fn free_ports() -> Result<[u16; 6]> {
    let listeners = (0..6).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<Vec<_>>>()?;
    let ports = listeners.iter().map(|listener| Ok(listener.local_addr()?.port()));
    let ports = ports.collect::<std::io::Result<Vec<_>>>()?;
    Ok(ports.try_into().expect("six listeners have six ports"))
}

fn make_pki(shared: &Shared, plans: &[Plan; 2]) -> Result<()> {
    let mut pki = Command::new(&shared.standin);
    pki.arg("pki").arg("--dir").arg(&shared.pki);
    for plan in plans {
        pki.arg("--node").arg(format!("{}={}", plan.name, plan.ip));
        plan.write_manifest()?;
    }
    command::quiet(&mut pki).map(drop)
}

/// kubectl's configuration is the old node's admin.conf, with the port that clients dial.
fn make_caller(kubectl: PathBuf, shared: &Shared, old: &Plan) -> Result<Caller> {
    let path = shared.pki.join(old.name).join("admin.conf");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let server = format!("{}:{}", old.ip, old.client_port);
    let text = text.replace(&format!("{}:6443", old.ip), &server);
    anyhow::ensure!(text.contains(&server), "{} does not name the server {server}", path.display());
    Caller::set_up(kubectl, &shared.folder, &shared.pki, &text)
}

fn start_store(shared: &Shared) -> Result<Process> {
    let mut store = Launch {
        name: "the store".to_owned(),
        program: &shared.standin,
        arguments: vec!["store".to_owned(), format!("--listen={}", shared.store.display())],
        place: &Place::Here,
        cgroup: None,
        log: shared.logs.join("store.log"),
    }
    .start()?;
    store.wait_until("listening", Duration::from_secs(10), |_| {
        Ok(UnixStream::connect(&shared.store).is_ok())
    })?;
    Ok(store)
}
