//! Puts two nodes and a place for clients into network namespaces of their own.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mvproxy_tests::client::{ClientOptions, Trust};
use mvproxy_tests::netns::{Netns, stdout_of};
use mvproxy_tests::pki::{Identity, Pki, Subject};
use nix::mount::{MsFlags, mount};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::process::Process;

/// Names of the nodes.
pub const NODES: [&str; 2] = ["a", "b"];
/// Name of the interface between the nodes.
const BETWEEN: &str = "between";
/// kube-apiserver's port.
const SECURE_PORT: u16 = 6443;
/// The source that the kernel never steers.
const EXEMPT_SOURCE: Ipv4Addr = Ipv4Addr::new(127, 64, 43, 1);
const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9643);
const ADMIN_OF_SECOND: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9644);
/// Longest wait for an answer on the admin address.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Longest wait for a proxy to be ready.
const START_LIMIT: Duration = Duration::from_secs(20);

/// One control-plane node.
pub struct Node {
    pub name: &'static str,
    /// Its address on the network between the nodes.
    pub ip: Ipv4Addr,
    /// Its address as clients elsewhere dial it.
    pub client_ip: Ipv4Addr,
    server: Option<Process>,
    proxy: Option<Process>,
    pub netns: Arc<Netns>,
    bpffs: TempDir,
}

/// Two nodes that share a store, and clients.
pub struct Cluster {
    pub nodes: [Node; 2],
    /// Where clients are that are on no node.
    pub elsewhere: Arc<Netns>,
    pub admin: Identity,
    pub trust: Trust,
    /// Socket of the store.
    pub store: PathBuf,
    /// Logs outlive the test.
    pub logs: PathBuf,
    files: TempDir,
    /// More flags for the first node's proxy.
    flags: Vec<String>,
    /// Killed with the cluster.
    _store_process: Process,
}

impl Cluster {
    /// The API servers serve `documents`; a steering proxy stands before each. `label` names the folder of logs.
    pub fn start(label: &str, documents: [&str; 2]) -> Self {
        Self::start_with(label, documents, &[])
    }

    /// The same with more flags for the first node's proxy.
    pub fn start_with(label: &str, documents: [&str; 2], flags: &[&str]) -> Self {
        let elsewhere = Arc::new(Netns::new("clients").unwrap());
        let nodes = [1, 2].map(|number| Node::new(number, &elsewhere));
        nodes[0].netns.connect(nodes[0].ip.into(), &nodes[1].netns, nodes[1].ip.into(), BETWEEN).unwrap();

        let files = tempfile::tempdir().unwrap();
        let pki = Pki::generate().unwrap();
        let named = [0, 1].map(|index| (NODES[index].to_owned(), IpAddr::V4(nodes[index].ip)));
        pki.write_to(files.path(), &named).unwrap();
        let subject =
            Subject { common_name: "kubernetes-admin", organizations: &["system:masters"], uid: None };
        let logs = Path::new(env!("CARGO_TARGET_TMPDIR")).join(label);
        let _ = std::fs::remove_dir_all(&logs);
        std::fs::create_dir_all(&logs).unwrap();

        let store = files.path().join("store.sock");
        let arguments = ["store".to_owned(), format!("--listen={}", store.display())];
        let store_process =
            Process::start_here(&standin_program(), &arguments, &logs.join("store.log")).serving();
        let mut cluster = Self {
            nodes,
            elsewhere,
            admin: pki.client(&subject).unwrap(),
            trust: Trust::Ca(pki.ca_pem().to_owned()),
            store,
            logs,
            files,
            flags: flags.iter().map(ToString::to_string).collect(),
            _store_process: store_process,
        };
        for (node, documents) in documents.into_iter().enumerate() {
            cluster.start_server(node, documents);
        }
        for node in 0..NODES.len() {
            cluster.start_proxy(node);
        }
        cluster
    }

    /// Starts a node's API server and waits until it serves.
    pub fn start_server(&mut self, node: usize, documents: &str) {
        let arguments = self.server_arguments(node, documents);
        let node = &mut self.nodes[node];
        let log = self.logs.join(format!("apiserver-{}.log", node.name));
        let server = Process::start(&node.netns, &standin_program(), &arguments, &log).serving();
        node.server = Some(server);
    }

    /// Takes a node's API server, to be stopped.
    pub fn take_server(&mut self, node: usize) -> Process {
        self.nodes[node].server.take().expect("it runs")
    }

    /// Starts a node's proxy and waits until it is ready and steers.
    fn start_proxy(&mut self, node: usize) {
        let arguments = self.proxy_arguments(node);
        let on_skew = arguments.iter().any(|argument| argument == "--steering=on-skew");
        let log = self.logs.join(format!("mvproxy-{}.log", NODES[node]));
        let node = &mut self.nodes[node];
        let dir = node.bpffs.path();
        let proxy = node.netns.run(|| {
            // The mount lives in the mount namespace of this thread and of what it starts.
            mount(Some("bpf"), dir, Some("bpf"), MsFlags::empty(), None::<&str>)
                .expect("root may mount bpffs");
            Process::start_here(&proxy_program(), &arguments, &log)
        });
        // In mode on-skew it steers only when there is a reason to.
        let sign = if on_skew { "\nmvproxy_local_known 1" } else { "\nmvproxy_steering 1" };
        let begun = Instant::now();
        while !(node.metrics().contains(sign) && knows_its_peer(&log)) {
            assert!(begun.elapsed() < START_LIMIT, "the proxy is not ready: {}", proxy.last_lines());
            std::thread::sleep(Duration::from_millis(50));
        }
        node.proxy = Some(proxy);
    }

    /// Starts another proxy beside a node's own, on the same pins, and does not wait for it.
    pub fn start_second_proxy(&self, node: usize, flags: &[&str]) -> Process {
        let own = self.nodes[node].proxy().id();
        // The proxy's bpffs is mounted for its own mount namespace only.
        let mut arguments = vec![format!("--target={own}"), "--mount".to_owned(), "--net".to_owned()];
        arguments.push(proxy_program().display().to_string());
        arguments.extend(self.proxy_arguments(node));
        arguments.push(format!("--admin-address={ADMIN_OF_SECOND}"));
        arguments.extend(flags.iter().map(ToString::to_string));
        let log = self.logs.join(format!("mvproxy-{}-second.log", NODES[node]));
        Process::start_here(Path::new("nsenter"), &arguments, &log)
    }

    /// What `mvproxy check -o json` says with the flags of a node's proxy, and more.
    pub fn check(&self, node: usize, flags: &[&str]) -> String {
        let mut check = Command::new("nsenter");
        check.arg(format!("--target={}", self.nodes[node].proxy().id())).args(["--mount", "--net"]);
        check.arg(proxy_program()).args(["check", "--output=json"]).args(&self.proxy_arguments(node)[1..]);
        let output = check.args(flags).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Replaces a node's proxy for the `number`th time, from 1, as a rolling update with surge does: the next one steers
    /// before this one is told to stop. Returns when this one has ended.
    pub fn replace_proxy(&mut self, node: usize, number: usize) {
        // Admin addresses take turns: both run at one time.
        let admin = format!("--admin-address={}", [ADMIN, ADMIN_OF_SECOND][number % 2]);
        let successor = self.start_second_proxy(node, &[&admin]);
        let log = self.logs.join(format!("mvproxy-{}-second.log", NODES[node]));
        let steering = || std::fs::read_to_string(&log).unwrap_or_default().matches("steers=true").count();
        let begun = Instant::now();
        while steering() < number {
            assert!(begun.elapsed() < START_LIMIT, "no successor steers: {}", successor.last_lines());
            std::thread::sleep(Duration::from_millis(10));
        }
        let former = self.nodes[node].proxy.replace(successor).expect("it runs");
        former.terminate();
    }

    /// An administrator's connection to `address`.
    pub fn options(&self, address: SocketAddr) -> ClientOptions {
        ClientOptions::new(address, self.trust.clone()).with_identity(&self.admin)
    }

    /// An administrator's connection to the API server's port, from within the node.
    pub fn options_on_node(&self) -> ClientOptions {
        self.options((Ipv4Addr::LOCALHOST, SECURE_PORT).into())
    }

    /// An administrator's connection that goes to the API server itself, from within the node.
    pub fn straight_options(&self) -> ClientOptions {
        self.options_on_node().from_source(EXEMPT_SOURCE.into())
    }

    fn server_arguments(&self, node: usize, documents: &str) -> Vec<String> {
        let Node { name, ip, .. } = &self.nodes[node];
        let mut arguments = vec![
            "serve".to_owned(),
            format!("--documents={documents}"),
            format!("--store={}", self.store.display()),
            format!("--advertise-address={ip}"),
            format!("--hostname={name}"),
            "--bookmark-interval=2".to_owned(),
            // Whoever sends a write again whose server was killed doubles it.
            "--answer-delay=40".to_owned(),
            "--requestheader-username-headers=X-Remote-User".to_owned(),
            "--requestheader-group-headers=X-Remote-Group".to_owned(),
            "--requestheader-uid-headers=X-Remote-Uid".to_owned(),
            "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        ];
        arguments.extend(self.certificate_flags(name));
        arguments
    }

    fn proxy_arguments(&self, node: usize) -> Vec<String> {
        let Node { name, ip, bpffs, .. } = &self.nodes[node];
        let file = |name: &str| self.files.path().join(name).display().to_string();
        let mut arguments = vec![
            "run".to_owned(),
            "--steering=always".to_owned(),
            format!("--state-dir={}", file(&format!("{name}/state"))),
            format!("--bpffs-dir={}", bpffs.path().join("mvproxy").display()),
            format!("--peer-advertise-ip={ip}"),
            format!("--kubeconfig={}", file(&format!("{name}/mvproxy.conf"))),
            format!("--proxy-client-cert-file={}", file("front-proxy-client.crt")),
            format!("--proxy-client-key-file={}", file("front-proxy-client.key")),
            "--v=4".to_owned(),
        ];
        arguments.extend(self.certificate_flags(name));
        if node == 0 {
            arguments.extend(self.flags.iter().cloned());
        }
        arguments
    }

    /// The flags that API server and proxy have in common.
    fn certificate_flags(&self, node: &str) -> Vec<String> {
        let file = |flag: &str, name: &str| format!("--{flag}={}", self.files.path().join(name).display());
        vec![
            file("tls-cert-file", &format!("{node}/apiserver.crt")),
            file("tls-private-key-file", &format!("{node}/apiserver.key")),
            file("client-ca-file", "ca.crt"),
            file("requestheader-client-ca-file", "front-proxy-ca.crt"),
            "--requestheader-allowed-names=front-proxy-client".to_owned(),
        ]
    }
}

impl Node {
    /// `number` is its place in all addresses.
    fn new(number: u8, elsewhere: &Netns) -> Self {
        let name = NODES[usize::from(number) - 1];
        let netns = Arc::new(Netns::new(name).unwrap());
        let client_ip = Ipv4Addr::new(10, 61, number, 1);
        let client = Ipv4Addr::new(10, 61, number, 9);
        netns.connect(client_ip.into(), elsewhere, client.into(), &format!("clients{number}")).unwrap();
        Self {
            name,
            ip: Ipv4Addr::new(10, 61, 0, number),
            client_ip,
            server: None,
            proxy: None,
            netns,
            bpffs: tempfile::tempdir().unwrap(),
        }
    }

    /// Takes the node off the network between the nodes, or puts it back. The other node hears nothing of it: what it sends
    /// is lost.
    pub fn set_link(&self, up: bool) {
        self.netns.ip(&["link", "set", BETWEEN, if up { "up" } else { "down" }]).unwrap();
    }

    /// Where clients elsewhere dial it.
    pub fn address(&self) -> SocketAddr {
        (self.client_ip, SECURE_PORT).into()
    }

    /// What the steering program decided, as bpftool shows it: one line for each counter that is not zero.
    pub fn steering(&self) -> String {
        let (target, map) =
            (format!("--target={}", self.proxy().id()), self.bpffs.path().join("mvproxy/STEER_STATS"));
        let map = map.display().to_string();
        // The proxy's bpffs is mounted for its own mount namespace only.
        let arguments = [&target, "--mount", "bpftool", "--json", "map", "dump", "pinned", &map];
        let text = stdout_of("nsenter", &arguments).expect("root may read the map");
        let dump: Value = serde_json::from_str(&text).expect("bpftool prints JSON");
        let mut sums: BTreeMap<String, u64> = BTreeMap::new();
        for cpu in dump[0]["formatted"]["values"].as_array().into_iter().flatten() {
            for (name, count) in cpu["value"].as_object().into_iter().flatten() {
                *sums.entry(name.clone()).or_default() += count.as_u64().unwrap_or_default();
            }
        }
        sums.retain(|_, count| *count > 0);
        format!("{sums:?}")
    }

    /// Where its proxy, and nobody else, has a BPF file system.
    pub fn bpffs(&self) -> &Path {
        self.bpffs.path()
    }

    /// Its proxy.
    pub fn proxy(&self) -> &Process {
        self.proxy.as_ref().expect("it runs")
    }

    /// The proxy's metrics; empty while it does not answer.
    pub fn metrics(&self) -> String {
        self.admin("/metrics")
    }

    /// What the proxy answers on its admin address; empty while it does not.
    pub fn admin(&self, path: &str) -> String {
        self.get(ADMIN, path)
    }

    /// The same of a second proxy.
    pub fn admin_of_second(&self, path: &str) -> String {
        self.get(ADMIN_OF_SECOND, path)
    }

    fn get(&self, address: SocketAddr, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
        let exchanged = async || {
            let mut answer = String::new();
            let mut stream = tokio::net::TcpStream::connect(address).await?;
            stream.write_all(request.as_bytes()).await?;
            stream.read_to_string(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        let answered = self.netns.block_on(async || timeout(ANSWER_LIMIT, exchanged()).await);
        answered.ok().and_then(Result::ok).unwrap_or_default()
    }
}

/// Whether the proxy has published a snapshot with its peer on the list, and another when the peer had said what it serves.
fn knows_its_peer(log: &Path) -> bool {
    std::fs::read_to_string(log).unwrap_or_default().matches("peers=1").count() >= 2
}

fn standin_program() -> PathBuf {
    env!("CARGO_BIN_EXE_mvproxy-standin").into()
}

fn proxy_program() -> PathBuf {
    let program = standin_program().with_file_name("mvproxy");
    assert!(program.exists(), "{} is missing: cargo build -p mvproxy", program.display());
    program
}
