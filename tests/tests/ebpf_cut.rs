//! Cuts connections that go straight to the API server, and leaves those alone that must live.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ebpf_support;

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ebpf_support::{EXEMPT_SOURCE, SECURE_PORT, loopback};
use mvproxy::cut::{Cutter, Rules};
use mvproxy::steering::{Canary, LanePorts};
use mvproxy_tests::netns::Netns;
use socket2::{Domain, SockAddr, Socket, Type};

/// Tells this binary, started by itself, what to be: a server on all addresses, or a client of `FROM-COUNT`.
const ROLE: &str = "MVPROXY_TEST_CUT_ROLE";
/// Where cgroup2 may be mounted.
const CGROUPS: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
const NODE: Ipv4Addr = Ipv4Addr::new(10, 78, 1, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 78, 1, 2);
/// Far more than a cut of a few connections takes, which have to be quiet for some seconds.
const SOON: Duration = Duration::from_secs(20);
/// Where a proxy listens that is being replaced.
const PREDECESSOR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// The process under test; does nothing in an ordinary test run.
#[test]
fn cut_process() {
    match std::env::var(ROLE).ok().as_deref() {
        None => {}
        Some("server") => serve(),
        Some("predecessor") => serve_as_predecessor(),
        Some(client) => {
            let (from, count) = client.split_once('-').expect("FROM-COUNT");
            be_client(from.parse().expect("an address"), count.parse().expect("a number"));
        }
    }
}

/// An API server: accepts and holds connections, one to itself among them, and tells which were cut.
fn serve() {
    let listener = listen_beside((Ipv6Addr::UNSPECIFIED, SECURE_PORT).into());
    let own = TcpStream::connect(loopback()).expect("it listens");
    let own_name = own.local_addr().expect("it is connected");
    let (_held, _) = listener.accept().expect("its own connection comes first");
    println!("process: serving");
    std::thread::spawn(move || tell_end(own, &format!("own {own_name}")));
    hold_all(&listener);
}

/// A proxy that drains: what it accepted on the API server's port is in no slot any more.
fn serve_as_predecessor() {
    let listener = mvproxy::accept::listen((PREDECESSOR, SECURE_PORT).into(), true).expect("it may listen");
    listener.set_nonblocking(false).expect("a socket can block");
    println!("process: serving");
    hold_all(&listener);
}

/// Listens although another process may listen on some of the addresses.
fn listen_beside(address: SocketAddr) -> TcpListener {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    socket.set_only_v6(false).expect("an IPv6 socket has this option");
    socket.set_reuse_port(true).expect("a socket has this option");
    socket.bind(&address.into()).expect("the address is free");
    socket.listen(128).expect("a bound socket can listen");
    socket.into()
}

fn hold_all(listener: &TcpListener) {
    for stream in listener.incoming() {
        let mut stream = stream.expect("accept");
        stream.write_all(b"hello").expect("the client is there");
        // Held until the client is gone, or it is cut.
        std::thread::spawn(move || stream.read(&mut [0]));
    }
}

/// Connects and tells when a connection ends.
fn be_client(from: SocketAddr, count: usize) {
    let target = match from.ip() {
        IpAddr::V4(PREDECESSOR) => (PREDECESSOR, SECURE_PORT).into(),
        ip if ip.is_loopback() => loopback(),
        _ => (NODE, SECURE_PORT).into(),
    };
    let mut threads = Vec::new();
    for number in 0..count {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SockAddr::from(from)).expect("the source exists here");
        socket.connect(&target.into()).expect("the server listens");
        let mut stream = TcpStream::from(socket);
        stream.read_exact(&mut [0; 5]).expect("the server says hello");
        threads.push(std::thread::spawn(move || tell_end(stream, &number.to_string())));
    }
    println!("process: connected");
    for thread in threads {
        thread.join().expect("no panic");
    }
}

fn tell_end(mut stream: TcpStream, name: &str) {
    let ended = stream.read(&mut [0]).map_err(|error| error.kind());
    println!("process: ended {name} {ended:?}");
}

/// A process of this binary, killed on drop.
struct Process {
    child: Child,
    lines: std::sync::mpsc::Receiver<(Instant, String)>,
}

impl Process {
    /// Starts it in a cgroup, if one is given, and waits until it says `ready`.
    fn start(role: &str, cgroup: Option<&Path>, ready: &str) -> Self {
        let own = std::env::current_exe().unwrap();
        let enter =
            cgroup.map_or(String::new(), |dir| format!("echo $$ > {}/cgroup.procs && ", dir.display()));
        let mut child = Command::new("sh")
            .args(["-c", &format!("{enter}exec \"$0\" --exact cut_process --nocapture")])
            .arg(own)
            .env(ROLE, role)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // libtest may have written the test's name on the same line.
                let Some((_, line)) = line.split_once("process: ") else { continue };
                if sender.send((Instant::now(), line.to_owned())).is_err() {
                    return;
                }
            }
        });
        let process = Self { child, lines };
        let (_, line) = process.lines.recv_timeout(SOON).expect("it starts");
        assert_eq!(line, ready);
        process
    }

    fn server(cgroup: Option<&Path>) -> Self {
        Self::start("server", cgroup, "serving")
    }

    fn clients(from: Ipv4Addr, count: usize, cgroup: Option<&Path>) -> Self {
        Self::start(&format!("{from}:0-{count}"), cgroup, "connected")
    }

    /// When its connections ended, so far.
    fn ends(&self) -> Vec<(Instant, String)> {
        self.lines.try_iter().collect()
    }

    /// Waits until so many have ended.
    fn wait_for_ends(&self, count: usize) -> Vec<(Instant, String)> {
        (0..count).map(|_| self.lines.recv_timeout(SOON).expect("it is cut")).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("a killed child can be waited for");
    }
}

/// A cgroup2 folder, gone on drop.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Self {
        let root = CGROUPS.iter().map(Path::new).find(|root| root.join("cgroup.controllers").exists());
        let dir = root.expect("cgroup2 is mounted").join(format!("mvp-{}-{name}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The kernel takes a moment to let go of processes that were killed.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!("left behind: {}", self.0.display());
    }
}

fn rules() -> Rules {
    Rules {
        secure_port: SECURE_PORT,
        own_source: EXEMPT_SOURCE.into(),
        canary: Canary::default(),
        lane: Some(LanePorts::DEFAULT),
    }
}

fn cutter(rules: Rules, per_second: u32) -> Arc<Cutter> {
    Arc::new(Cutter::new(rules, NonZeroU32::new(per_second).unwrap()))
}

/// Runs a cut to its end, and returns how many it cut.
fn cut(rules: Rules) -> u64 {
    let cutter = cutter(rules, 1000);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(Arc::clone(&cutter).run(vec![CLIENT.into()], || true));
    assert_eq!(cutter.failure(), None);
    cutter.count()
}

/// A node with an API server in a cgroup of its own, and a host beside it.
fn with_api_server(label: &str, test: impl FnOnce(&Netns, &Cgroup, &Process) + Send) {
    let (node, host) = (Netns::new(label).unwrap(), Netns::new("host").unwrap());
    node.connect(IpAddr::V4(NODE), &host, IpAddr::V4(CLIENT), "v0").unwrap();
    let cgroup = Cgroup::new(label);
    node.run(|| {
        let server = Process::server(Some(&cgroup.0));
        test(&host, &cgroup, &server);
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn clients_on_and_off_the_node_are_cut_and_nobody_else() {
    with_api_server("cut", |host, cgroup, server| {
        let elsewhere = host.run(|| Process::clients(CLIENT, 3, None));
        let on_node = Process::clients(Ipv4Addr::LOCALHOST, 2, None);
        let by_address = Process::clients(NODE, 1, None);
        let own_source = Process::clients(EXEMPT_SOURCE, 1, None);
        let peer = format!("{CLIENT}:{}-1", LanePorts::DEFAULT.last);
        let peer = host.run(|| Process::start(&peer, None, "connected"));
        let no_peer = format!("{NODE}:{}-1", LanePorts::DEFAULT.last);
        let no_peer = Process::start(&no_peer, None, "connected");
        let beside_the_server = Process::clients(Ipv4Addr::LOCALHOST, 1, Some(&cgroup.0));
        // This process stands for the proxy.
        let mut own = TcpStream::connect(loopback()).unwrap();
        own.read_exact(&mut [0; 5]).unwrap();

        assert_eq!(cut(rules()), 7);
        for (clients, count) in [(&elsewhere, 3), (&on_node, 2), (&by_address, 1), (&no_peer, 1)] {
            for (_, end) in clients.wait_for_ends(count) {
                assert!(end.ends_with("Err(ConnectionReset)"), "{end}");
            }
        }
        for (who, spared) in [
            ("own source", &own_source),
            ("a peer's proxy", &peer),
            ("API server's cgroup", &beside_the_server),
            ("API server", server),
        ] {
            assert_eq!(spared.ends(), [], "{who}");
        }
        own.set_nonblocking(true).unwrap();
        assert_eq!(own.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        assert_eq!(cut(rules()), 0, "nothing is left to be cut");
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn where_cgroups_tell_nothing_local_clients_are_left_alone() {
    let netns = Netns::new("same").unwrap();
    netns.run(|| {
        let server = Process::server(None);
        let on_node = Process::clients(Ipv4Addr::LOCALHOST, 2, None);
        assert_eq!(cut(rules()), 0, "each of them could be the API server's own");
        assert_eq!((on_node.ends(), server.ends()), (vec![], vec![]));
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn clients_of_a_proxy_that_drains_are_left_alone_in_whatever_cgroup_it_is() {
    with_api_server("drains", |host, cgroup, _| {
        let predecessor = Process::start("predecessor", Some(&cgroup.0), "serving");
        let clients = Process::clients(PREDECESSOR, 2, None);
        let elsewhere = host.run(|| Process::clients(CLIENT, 1, None));
        assert_eq!(cut(rules()), 1);
        elsewhere.wait_for_ends(1);
        assert_eq!((clients.ends(), predecessor.ends()), (vec![], vec![]));
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn while_the_proxy_takes_nobody_nobody_is_cut() {
    with_api_server("waits", |host, _, _| {
        let clients = host.run(|| Process::clients(CLIENT, 2, None));
        let cutter = cutter(rules(), 1000);
        let serves = Arc::new(AtomicBool::new(false));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let may_cut = Arc::clone(&serves);
            let cut = tokio::spawn(Arc::clone(&cutter).run(Vec::new(), move || may_cut.load(Relaxed)));
            // Those are quiet for long enough by then.
            tokio::time::sleep(Duration::from_secs(5)).await;
            assert_eq!((cutter.count(), clients.ends()), (0, vec![]));
            serves.store(true, Relaxed);
            cut.await.unwrap();
        });
        assert_eq!(cutter.count(), 2);
        clients.wait_for_ends(2);
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn whoever_would_not_be_steered_is_not_cut() {
    with_api_server("canary", |host, _, _| {
        let elsewhere = host.run(|| Process::clients(CLIENT, 2, None));
        let on_node = Process::clients(Ipv4Addr::LOCALHOST, 2, None);
        let canary = Canary { sources: vec!["10.78.0.0/16".parse().unwrap()], percent: 100 };
        assert_eq!(cut(Rules { canary, ..rules() }), 2);
        elsewhere.wait_for_ends(2);
        assert_eq!(on_node.ends(), []);
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn no_more_are_cut_each_second_than_allowed_and_in_no_order() {
    const CLIENTS: usize = 60;
    const PER_SECOND: usize = 50;
    with_api_server("rate", |host, _, _| {
        let clients = host.run(|| Process::clients(CLIENT, CLIENTS, None));
        let cutter = cutter(rules(), u32::try_from(PER_SECOND).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let begun = Instant::now();
        runtime.block_on(Arc::clone(&cutter).run(Vec::new(), || true));
        assert_eq!(cutter.count(), CLIENTS as u64);
        let ends = clients.wait_for_ends(CLIENTS);
        // A tenth of a second's worth at most comes at once.
        let mut seconds: HashMap<u64, usize> = HashMap::new();
        for (at, _) in &ends {
            *seconds.entry(at.duration_since(begun).as_secs()).or_default() += 1;
        }
        println!("cut in each second: {seconds:?}, all in {:?}", begun.elapsed());
        assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
        assert!(seconds.values().all(|count| *count <= PER_SECOND + PER_SECOND / 5), "{seconds:?}");
        let order: Vec<_> = ends.iter().map(|(_, end)| end.clone()).collect();
        let mut sorted = order.clone();
        sorted.sort_by_key(|end| end.split(' ').nth(1).and_then(|number| number.parse::<usize>().ok()));
        assert_ne!(order, sorted, "as they connected");
    });
}
