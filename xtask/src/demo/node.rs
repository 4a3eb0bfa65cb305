//! Runs one control-plane node of the demo: a stand-in API server and the mvproxy in front of it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use super::manifest::ApiServer;
use super::place::Place;
use super::process::{Launch, Process};
use super::scrape;
use super::workdir::Cgroup;

/// A node; its processes end when it is dropped.
pub(crate) struct Node {
    /// Settings that do not change.
    pub(crate) plan: Plan,
    _server: Process,
    proxy: Option<Process>,
    /// Declared last: it can only be removed once the proxy in it is gone.
    cgroup: Option<Cgroup>,
}

/// What a node is made of.
pub(crate) struct Plan {
    /// `old` or `new`.
    pub(crate) name: &'static str,
    /// Which recorded documents its API server answers with.
    pub(crate) documents: &'static str,
    /// Its namespace.
    pub(crate) place: Place,
    /// Its address.
    pub(crate) ip: Ipv4Addr,
    /// Port of its API server.
    pub(crate) server_port: u16,
    /// Port that clients dial: the API server's where it is steered, else the proxy's own.
    pub(crate) client_port: u16,
    /// Admin address of its proxy.
    pub(crate) admin: SocketAddr,
    /// Flags of `mvproxy run` besides the manifest and the kubeconfig.
    pub(crate) proxy_flags: Vec<String>,
    /// Programs and folders that both nodes share.
    pub(crate) shared: Shared,
}

/// Programs and folders that both nodes share.
#[derive(Clone)]
pub(crate) struct Shared {
    /// `mvproxy`.
    pub(crate) mvproxy: PathBuf,
    /// `mvproxy-standin`.
    pub(crate) standin: PathBuf,
    /// Folder of the certificates.
    pub(crate) pki: PathBuf,
    /// Socket of the store.
    pub(crate) store: PathBuf,
    /// Folder of manifests.
    pub(crate) folder: PathBuf,
    /// Folder of logs.
    pub(crate) logs: PathBuf,
}

/// Longest wait for a program to be ready.
const START_LIMIT: Duration = Duration::from_secs(30);

impl Node {
    /// Starts the node's API server and waits until it serves.
    pub(crate) fn start(plan: Plan) -> Result<Self> {
        let server = plan.start_server()?;
        let cgroup = match plan.place {
            Place::Here => None,
            Place::Namespace(_) => Cgroup::create(plan.name),
        };
        Ok(Self { plan, _server: server, proxy: None, cgroup })
    }

    /// Starts the node's proxy and waits until it is ready.
    pub(crate) fn start_proxy(&mut self) -> Result<()> {
        let plan = &self.plan;
        let mut proxy = Launch {
            name: format!("mvproxy on {}", plan.name),
            program: &plan.shared.mvproxy,
            arguments: plan.proxy_arguments(),
            place: &plan.place,
            cgroup: self.cgroup.as_ref().map(Cgroup::path),
            log: plan.log("mvproxy"),
        }
        .start()?;
        proxy.wait_until("ready", START_LIMIT, |_| Ok(plan.proxy_is_ready()))?;
        self.proxy = Some(proxy);
        Ok(())
    }

    /// The running proxy.
    pub(crate) fn proxy(&self) -> Result<&Process> {
        self.proxy.as_ref().with_context(|| format!("no proxy runs on {}", self.plan.name))
    }

    /// Kills the proxy so that it cannot say good-bye.
    pub(crate) fn kill_proxy(&mut self) -> Result<()> {
        self.proxy.take().context("no proxy to kill")?.kill()
    }

    /// Sends the proxy a signal.
    pub(crate) fn signal_proxy(&self, signal: Signal) -> Result<()> {
        self.proxy()?.signal(signal)
    }

    /// Whether the proxy's sockets can be counted apart from all others.
    pub(crate) fn has_cgroup(&self) -> bool {
        self.cgroup.is_some()
    }

    /// URL of `path` as clients of this node use it.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://{}:{}{path}", self.plan.ip, self.plan.client_port)
    }

    /// URL of `path` at the API server itself, from the node.
    pub(crate) fn server_url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.plan.server_port)
    }

    /// The proxy's metrics.
    pub(crate) fn metrics(&self) -> Result<String> {
        scrape::get(&self.plan.place, self.plan.admin, "/metrics").map(|(_, body)| body)
    }
}

impl Plan {
    fn start_server(&self) -> Result<Process> {
        let mut server = Launch {
            name: format!("the API server on {}", self.name),
            program: &self.shared.standin,
            arguments: self.server_arguments(),
            place: &self.place,
            cgroup: None,
            log: self.log("apiserver"),
        }
        .start()?;
        server.wait_until("serving", START_LIMIT, |server| Ok(server.output()?.contains("serving on ")))?;
        Ok(server)
    }

    fn server_arguments(&self) -> Vec<String> {
        let bind = if matches!(self.place, Place::Here) { "127.0.0.1" } else { "0.0.0.0" };
        let mut arguments = vec![
            "serve".to_owned(),
            format!("--documents={}", self.documents),
            format!("--store={}", self.shared.store.display()),
            format!("--bind-address={bind}"),
            format!("--hostname={}", self.name),
            format!("--token-auth-file={}", self.shared.pki.join("tokens.csv").display()),
        ];
        arguments.extend(self.apiserver().flags());
        arguments
    }

    fn proxy_arguments(&self) -> Vec<String> {
        let kubeconfig = self.shared.pki.join(self.name).join("mvproxy.conf");
        let mut arguments = vec![
            "run".to_owned(),
            format!("--apiserver-manifest={}", self.manifest_path().display()),
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--state-dir={}", self.shared.folder.join(format!("state-{}", self.name)).display()),
            format!("--admin-address={}", self.admin),
            "--v=4".to_owned(),
        ];
        arguments.extend(self.proxy_flags.iter().cloned());
        arguments
    }

    /// Writes the node's static-pod manifest.
    pub(crate) fn write_manifest(&self) -> Result<()> {
        let path = self.manifest_path();
        fs::write(&path, self.apiserver().manifest())
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn manifest_path(&self) -> PathBuf {
        self.shared.folder.join(format!("kube-apiserver-{}.yaml", self.name))
    }

    /// Whether the proxy is ready and, where it steers, has begun to.
    ///
    /// Until it listens its admin address refuses connections, so no answer means "not yet".
    fn proxy_is_ready(&self) -> bool {
        let get = |path: &str| scrape::get(&self.place, self.admin, path);
        let ready = get("/readyz").is_ok_and(|(status, _)| status == 200);
        let steers = || get("/metrics").is_ok_and(|(_, text)| scrape::total(&text, "mvproxy_steering") > 0.0);
        ready && (matches!(self.place, Place::Here) || steers())
    }

    fn log(&self, program: &str) -> PathBuf {
        self.shared.logs.join(format!("{program}-{}.log", self.name))
    }

    fn apiserver(&self) -> ApiServer<'_> {
        ApiServer { pki: &self.shared.pki, node: self.name, address: self.ip, port: self.server_port }
    }
}
