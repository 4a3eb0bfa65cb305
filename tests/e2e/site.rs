//! Puts nodes with real API servers and steering proxies into namespaces of their own, over one etcd.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http::{Method, Request};
use mvproxy_tests::client::{Answer, Client, ClientOptions, Trust};
use mvproxy_tests::netns::Netns;
use mvproxy_tests::pki::{Identity, Pki, Subject};
use serde_json::Value;
use tempfile::TempDir;

use crate::apiserver::{AUDIT_POLICY, ApiServer, BuiltIn, Kind, SECURE_PORT};
use crate::assets::Assets;
use crate::cluster_support::Process;
use crate::etcd;
use crate::node::Node;

/// The source that the kernel never steers.
pub(crate) const EXEMPT_SOURCE: Ipv4Addr = Ipv4Addr::new(127, 64, 43, 1);
/// Where clients are that are on no node.
pub(crate) const CLIENTS: Ipv4Addr = Ipv4Addr::new(10, 62, 0, 100);
/// A kube-apiserver on a busy machine takes its time.
const START_LIMIT: Duration = Duration::from_mins(2);

/// How a site is set up.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Names logs and reports.
    pub(crate) name: &'static str,
    /// One API server each.
    pub(crate) nodes: Vec<(Kind, BuiltIn)>,
    /// `--steering` of the proxies; none without.
    pub(crate) steering: Option<&'static str>,
}

/// Nodes, clients and an etcd.
pub(crate) struct Site {
    pub(crate) nodes: Vec<Node>,
    pub(crate) elsewhere: Arc<Netns>,
    pub(crate) pki: Pki,
    pub(crate) admin: Identity,
    pub(crate) trust: Trust,
    pub(crate) assets: Assets,
    pub(crate) files: TempDir,
    plan: Plan,
    _etcd: Process,
}

impl Site {
    /// Starts everything and waits until all of it is ready.
    pub(crate) fn start(assets: &Assets, plan: &Plan, logs: &Path) -> Result<Self> {
        let logs = logs.join(plan.name);
        std::fs::create_dir_all(&logs)?;
        let elsewhere = Arc::new(Netns::new("clients")?);
        elsewhere.ip(&["link", "add", "nodes", "type", "bridge"])?;
        elsewhere.ip(&["address", "add", &format!("{CLIENTS}/24"), "dev", "nodes"])?;
        elsewhere.ip(&["link", "set", "nodes", "up"])?;
        let nodes = (1..)
            .zip(&plan.nodes)
            .map(|(number, (kind, built_in))| Node::new(number, &elsewhere, &logs, *kind, *built_in));
        let nodes: Vec<Node> = nodes.collect::<Result<_>>()?;

        let files = tempfile::tempdir()?;
        let pki = Pki::generate()?;
        let named: Vec<_> = nodes.iter().map(|node| (node.name.clone(), IpAddr::V4(node.ip))).collect();
        pki.write_to(files.path(), &named)?;
        std::fs::write(files.path().join("audit.yaml"), AUDIT_POLICY)?;
        let accounts = rcgen::KeyPair::generate()?;
        std::fs::write(files.path().join("sa.key"), accounts.serialize_pem())?;
        std::fs::write(files.path().join("sa.pub"), accounts.public_key_pem())?;
        let subject =
            Subject { common_name: "kubernetes-admin", organizations: &["system:masters"], uid: None };
        let admin = pki.client(&subject)?;
        let data = files.path().join("etcd");
        let etcd = elsewhere.run(|| etcd::start(&assets.etcd, &data, &logs.join("etcd.log")));
        let mut site = Self {
            nodes,
            elsewhere,
            trust: Trust::Ca(pki.ca_pem().to_owned()),
            pki,
            admin,
            assets: assets.clone(),
            files,
            plan: plan.clone(),
            _etcd: etcd,
        };
        // As kubeadm does: of two that find an empty store one may give up.
        site.start_server(0)?;
        site.wait_for_server(0)?;
        (1..site.nodes.len()).try_for_each(|node| site.start_server(node))?;
        (1..site.nodes.len()).try_for_each(|node| site.wait_for_server(node))?;
        site.grant()?;
        if site.plan.steering.is_some() {
            for node in &mut site.nodes {
                node.log_before = std::fs::read(&node.server_log)?.len();
            }
            for node in 0..site.nodes.len() {
                site.start_proxy(node)?;
            }
            for node in 0..site.nodes.len() {
                site.wait_for_proxy(node)?;
            }
        }
        Ok(site)
    }

    /// Starts a node's API server, as whatever kind the node is now, and does not wait for it.
    pub(crate) fn start_server(&mut self, node: usize) -> Result<()> {
        let program = self.assets.apiserver.clone();
        let at = &self.nodes[node];
        let server = self.apiserver(at);
        std::fs::write(self.manifest(at), server.manifest())?;
        let flags = server.flags();
        let process = at.run(|| Process::start_here(&program, &flags, &at.server_log));
        at.cgroup.take(process.id())?;
        self.nodes[node].server = Some(process);
        Ok(())
    }

    /// Waits until a node's API server says that it is ready.
    pub(crate) fn wait_for_server(&self, node: usize) -> Result<()> {
        let begun = Instant::now();
        let at = &self.nodes[node];
        loop {
            let answer = self.straight(node, Method::GET, "/readyz", None);
            if answer.as_ref().is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            ensure!(
                begun.elapsed() < START_LIMIT,
                "{}: the API server is not ready: {}, log {}",
                at.name,
                answer.map_or_else(|error| format!("{error:#}"), |answer| answer.text()),
                at.server_log.display()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Takes a node's API server, to be stopped.
    pub(crate) fn take_server(&mut self, node: usize) -> Result<Process> {
        self.nodes[node].server.take().context("no API server runs there")
    }

    /// Takes a node's proxy, to be stopped.
    pub(crate) fn take_proxy(&mut self, node: usize) -> Result<Process> {
        self.nodes[node].proxy.take().context("no proxy runs there")
    }

    /// Starts a node's proxy and does not wait for it.
    pub(crate) fn start_proxy(&mut self, node: usize) -> Result<()> {
        let at = &self.nodes[node];
        let file = |name: &str| self.files.path().join(&at.name).join(name).display().to_string();
        let arguments = [
            "run".to_owned(),
            format!("--apiserver-manifest={}", self.manifest(at).display()),
            format!("--kubeconfig={}", file("mvproxy.conf")),
            format!("--steering={}", self.plan.steering.unwrap_or("auto")),
            format!("--bpffs-dir={}", at.bpffs.path().join("mvproxy").display()),
            format!("--state-dir={}", file("state")),
            "--v=4".to_owned(),
        ];
        let program = proxy_program()?;
        let process = at.run(|| Process::start_here(&program, &arguments, &at.proxy_log));
        self.nodes[node].proxy = Some(process);
        Ok(())
    }

    /// Waits until a node's proxy is ready and knows all its peers.
    pub(crate) fn wait_for_proxy(&self, node: usize) -> Result<()> {
        let begun = Instant::now();
        let at = &self.nodes[node];
        loop {
            if at.admin("/readyz").contains("200 OK") && self.knows_everybody(at) {
                return Ok(());
            }
            ensure!(
                begun.elapsed() < START_LIMIT,
                "{}: the proxy is not ready: {}, log {}",
                at.name,
                at.admin("/readyz?verbose"),
                at.proxy_log.display()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn knows_everybody(&self, at: &Node) -> bool {
        let skew = at.admin("/skew");
        let Some((_, body)) = skew.split_once("\r\n\r\n") else { return false };
        let report: Value = serde_json::from_str(body).unwrap_or_default();
        let versions = report["servers"].as_array().into_iter().flatten();
        versions.filter(|server| server["version"].is_string()).count() == self.nodes.len()
    }

    /// One administrator's request to a node's API server itself, past the proxy.
    pub(crate) fn straight(
        &self,
        node: usize,
        method: Method,
        target: &str,
        body: Option<&Value>,
    ) -> Result<Answer> {
        let options = self.options_on_node().from_source(EXEMPT_SOURCE.into());
        let request = json_request(method, target, body)?;
        self.nodes[node].netns.block_on(|| async {
            tokio::time::timeout(Duration::from_secs(10), send(&options, request))
                .await
                .context("no answer in 10 s")?
        })
    }

    /// One administrator's request from elsewhere to a node's port.
    pub(crate) fn request(
        &self,
        node: usize,
        method: Method,
        target: &str,
        body: Option<&Value>,
    ) -> Result<Answer> {
        let options = self.options(node);
        let request = json_request(method, target, body)?;
        self.elsewhere.block_on(|| async {
            tokio::time::timeout(Duration::from_secs(30), send(&options, request))
                .await
                .context("no answer in 30 s")?
        })
    }

    /// The same with an `Accept` header and without a body.
    pub(crate) fn request_as(
        &self,
        node: usize,
        method: Method,
        target: &str,
        accept: &'static str,
    ) -> Result<Answer> {
        let options = self.options(node);
        let mut request = json_request(method, target, None)?;
        request.headers_mut().insert("accept", accept.parse()?);
        self.elsewhere.block_on(|| send(&options, request))
    }

    /// An administrator's connection to a node from elsewhere.
    pub(crate) fn options(&self, node: usize) -> ClientOptions {
        ClientOptions::new(self.nodes[node].address(), self.trust.clone()).with_identity(&self.admin)
    }

    /// An administrator's connection from within a node.
    pub(crate) fn options_on_node(&self) -> ClientOptions {
        ClientOptions::new((Ipv4Addr::LOCALHOST, SECURE_PORT).into(), self.trust.clone())
            .with_identity(&self.admin)
    }

    fn apiserver<'a>(&'a self, node: &'a Node) -> ApiServer<'a> {
        ApiServer {
            node: &node.name,
            address: node.ip,
            etcd: format!("http://{CLIENTS}:{}", etcd::PORT),
            files: self.files.path(),
            audit_log: &node.audit_log,
            kind: node.kind,
            built_in: node.built_in,
        }
    }

    fn manifest(&self, node: &Node) -> PathBuf {
        self.files.path().join(&node.name).join("kube-apiserver.yaml")
    }

    /// Gives the proxies' user the rights that the README tells operators to give.
    fn grant(&self) -> Result<()> {
        for (target, body) in crate::rights::objects() {
            let answer = self.straight(0, Method::POST, &target, Some(&body))?;
            if !(answer.status.is_success() || answer.status == 409) {
                bail!("{target}: {} {}", answer.status, answer.text());
            }
        }
        Ok(())
    }
}

/// Sends one request on a connection of its own.
pub(crate) async fn send(options: &ClientOptions, request: Request<Bytes>) -> Result<Answer> {
    Client::connect(options).await?.fetch(request).await
}

/// A request with a JSON body, or none.
pub(crate) fn json_request(method: Method, target: &str, body: Option<&Value>) -> Result<Request<Bytes>> {
    let request = Request::builder().method(method).uri(target).header("accept", "application/json");
    Ok(match body {
        Some(body) => request.header("content-type", "application/json").body(body.to_string().into())?,
        None => request.body(Bytes::new())?,
    })
}

fn proxy_program() -> Result<PathBuf> {
    let program = Path::new(env!("CARGO_BIN_EXE_mvproxy-standin")).with_file_name("mvproxy");
    ensure!(program.exists(), "{} is missing: cargo build -p mvproxy", program.display());
    Ok(program)
}
