//! Sets up steering in a namespace, with servers that say who they are.
#![allow(dead_code, reason = "every test binary uses its own part of this")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mvproxy::steering::{Canary, Heartbeat, LanePorts, Steering, SteeringOptions, XdpOptions};
use socket2::{Domain, SockAddr, Socket, Type};

pub(crate) const SECURE_PORT: u16 = 6443;
pub(crate) const EXEMPT_SOURCE: Ipv4Addr = Ipv4Addr::new(127, 64, 43, 1);
/// For tests in which no worker hangs: a busy machine must not make one look hung.
pub(crate) const PATIENT: Duration = Duration::from_secs(5);
/// For tests in which workers hang.
pub(crate) const STALE_AFTER: Duration = Duration::from_millis(400);

pub(crate) fn options(bpffs_dir: PathBuf, workers: usize) -> SteeringOptions {
    SteeringOptions {
        bpffs_dir,
        secure_port: SECURE_PORT,
        local_source_ip: EXEMPT_SOURCE.into(),
        cgroup: None,
        stale_after: PATIENT,
        canary: Canary::default(),
        lane: Some(LanePorts::DEFAULT),
        workers,
        xdp: XdpOptions::default(),
    }
}

/// Steering that notices hung workers after [`STALE_AFTER`].
pub(crate) fn open_impatient(bpffs_dir: &Path) -> Steering {
    let options = SteeringOptions { stale_after: STALE_AFTER, ..options(bpffs_dir.to_owned(), 2) };
    Steering::open(&options).expect("root may steer")
}

pub(crate) fn open(bpffs_dir: &Path) -> Steering {
    Steering::open(&options(bpffs_dir.to_owned(), 2)).expect("root may steer")
}

pub(crate) fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, SECURE_PORT).into()
}

const RUNNING: u8 = 0;
const HANG: u8 = 1;
const HUNG: u8 = 2;
const STOPPED: u8 = 3;

/// Accepts connections and answers each with its name and the address that was dialled.
pub(crate) struct Server {
    listener: Arc<TcpListener>,
    state: Arc<AtomicU8>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// A server that stands for kube-apiserver.
    pub(crate) fn api_server(address: impl Into<SocketAddr>) -> Self {
        Self::new("api", listen(address.into(), false), None)
    }

    /// A worker on a port of its own, beating.
    pub(crate) fn worker(name: &'static str, address: impl Into<SocketAddr>, heartbeat: Heartbeat) -> Self {
        Self::new(name, listen(address.into(), false), Some(heartbeat))
    }

    pub(crate) fn new(name: &'static str, listener: TcpListener, heartbeat: Option<Heartbeat>) -> Self {
        listener.set_nonblocking(true).expect("a socket can be non-blocking");
        let (listener, state) = (Arc::new(listener), Arc::new(AtomicU8::new(RUNNING)));
        if let Some(heartbeat) = &heartbeat {
            heartbeat.beat();
        }
        let thread = std::thread::spawn({
            let (listener, state) = (Arc::clone(&listener), Arc::clone(&state));
            move || serve(name, &listener, &state, heartbeat.as_ref())
        });
        Self { listener, state, thread: Some(thread) }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Neither accepts nor beats from now on, and keeps the listener.
    pub(crate) fn hang(&self) {
        self.state.store(HANG, Relaxed);
        eventually("the worker hangs", || self.state.load(Relaxed) == HUNG);
    }

    pub(crate) fn resume(&self) {
        self.state.store(RUNNING, Relaxed);
    }

    /// Closes the listener.
    pub(crate) fn close(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        self.state.store(STOPPED, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the accept loop does not panic");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn serve(name: &str, listener: &TcpListener, state: &AtomicU8, heartbeat: Option<&Heartbeat>) {
    loop {
        match state.load(Relaxed) {
            STOPPED => return,
            HANG => state.store(HUNG, Relaxed),
            HUNG => {}
            _ => {
                if let Some(heartbeat) = heartbeat {
                    heartbeat.beat();
                }
                match listener.accept() {
                    Ok((mut stream, _)) => {
                        let dialled = stream.local_addr().expect("an accepted socket has an address");
                        // A client that has gone is no concern of a server.
                        let _ = write!(stream, "{name} {}", canonical(dialled));
                        continue;
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => panic!("accept: {error}"),
                }
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Listens; `::` also takes IPv4 unless `v6_only`.
pub(crate) fn listen(address: SocketAddr, v6_only: bool) -> TcpListener {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    if address.is_ipv6() {
        socket.set_only_v6(v6_only).expect("an IPv6 socket has this option");
    }
    socket.set_reuse_address(true).expect("a socket has this option");
    socket.bind(&address.into()).expect("the address is free");
    socket.listen(128).expect("a bound socket can listen");
    socket.into()
}

/// Any IPv4 address, kernel-chosen port.
pub(crate) fn any_v4() -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, 0).into()
}

/// Any address of both families, kernel-chosen port.
pub(crate) fn any_dual_stack() -> SocketAddr {
    (Ipv6Addr::UNSPECIFIED, 0).into()
}

/// Connects and returns the name of who answered.
pub(crate) fn ask(address: impl Into<SocketAddr>) -> String {
    answer(address).split(' ').next().unwrap_or_default().to_owned()
}

/// Connects and returns the whole answer, or why there was none.
pub(crate) fn answer(address: impl Into<SocketAddr>) -> String {
    let stream = TcpStream::connect_timeout(&address.into(), Duration::from_secs(2));
    stream.map_or_else(|error| format!("no-connection {error}"), read_answer)
}

/// Like [`ask`], from a source address.
pub(crate) fn ask_from(source: impl Into<SocketAddr>, address: impl Into<SocketAddr>) -> String {
    let (source, address) = (source.into(), address.into());
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    socket.bind(&SockAddr::from(source)).expect("the source address exists here");
    match socket.connect_timeout(&address.into(), Duration::from_secs(2)) {
        Ok(()) => read_answer(socket.into()).split(' ').next().unwrap_or_default().to_owned(),
        Err(error) => format!("no-connection {error}"),
    }
}

fn read_answer(mut stream: TcpStream) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(2))).expect("two seconds are a valid timeout");
    let mut text = String::new();
    match stream.read_to_string(&mut text) {
        Ok(_) => text,
        Err(error) => format!("no-answer {error}"),
    }
}

/// Waits until `done` holds; returns how long that took.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(5), "waited 5 s in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    start.elapsed()
}
