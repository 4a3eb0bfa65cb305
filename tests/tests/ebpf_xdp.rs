//! Puts the program for interfaces on real ones: what it counts and drops, and whom it gives way to.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ebpf_support;

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::path::Path;
use std::time::{Duration, Instant};

use aya::programs::{Xdp, XdpMode as Mode};
use aya::{Ebpf, EbpfLoader};
use ebpf_support::{SECURE_PORT, Server, any_v4, ask, ask_from, eventually, loopback, options};
use mvproxy::steering::xdp::{Device, REFRESH_EVERY, XdpCounts, XdpMode, object, programs_on};
use mvproxy::steering::{Canary, Steering, SteeringOptions, XdpOptions, uninstall};
use mvproxy_common::XdpStats;
use mvproxy_tests::netns::{BpfFs, Netns, stdout_of};
use socket2::{Domain, Socket, Type};

const NODE: Ipv4Addr = Ipv4Addr::new(10, 82, 1, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 82, 1, 2);
const OTHER_CLIENT: Ipv4Addr = Ipv4Addr::new(10, 82, 1, 3);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 82, 1, 4);
/// The interface between node and clients, on both sides.
const WIRE: &str = "wire.82";
const API: SocketAddr = SocketAddr::new(IpAddr::V4(NODE), SECURE_PORT);

fn wire_options(dir: &Path, interfaces: &[&str], syn_rate: u32) -> SteeringOptions {
    let interfaces = interfaces.iter().map(ToString::to_string).collect();
    let xdp = XdpOptions { interfaces, syn_rate: NonZeroU32::new(syn_rate) };
    SteeringOptions { xdp, ..options(dir.to_owned(), 2) }
}

/// Steering with the program on interfaces, and peers known.
fn open_on(dir: &Path, interfaces: &[&str], syn_rate: u32) -> Steering {
    let steering = Steering::open(&wire_options(dir, interfaces, syn_rate)).unwrap();
    steering.xdp().unwrap().refresh(Some(&[PEER.into()])).unwrap();
    steering
}

/// A node and its clients, three addresses on one wire; runs the test on the node.
fn on_a_node(label: &str, test: impl FnOnce(&Path, &Netns) + Send) {
    let (node, clients) = (Netns::new(label).unwrap(), Netns::new("clients").unwrap());
    node.connect(NODE.into(), &clients, CLIENT.into(), WIRE).unwrap();
    for address in [OTHER_CLIENT, PEER] {
        clients.ip(&["address", "add", &format!("{address}/24"), "dev", WIRE]).unwrap();
    }
    node.run(|| {
        let bpffs = BpfFs::mount().unwrap();
        test(&bpffs.path(), &clients);
    });
}

/// Takes connections and keeps them until the other side ends.
struct ApiServer {
    _listener: TcpListener,
}

impl ApiServer {
    fn start() -> Self {
        let listener = ebpf_support::listen((Ipv4Addr::UNSPECIFIED, SECURE_PORT).into(), false);
        let accepting = listener.try_clone().unwrap();
        std::thread::spawn(move || {
            for stream in accepting.incoming().map_while(Result::ok) {
                std::thread::spawn(move || (&stream).read_to_end(&mut Vec::new()));
            }
        });
        Self { _listener: listener }
    }
}

/// Connects, or says that it took too long.
fn connect_from(source: Ipv4Addr, limit: Duration) -> Option<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect_timeout(&API.into(), limit).ok().map(|()| socket.into())
}

/// Begins to connect and leaves the rest to the kernel.
fn begin_from(source: Ipv4Addr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.set_nonblocking(true).unwrap();
    let begun = socket.connect(&API.into());
    assert!(begun.is_err_and(|error| error.raw_os_error() == Some(nix::libc::EINPROGRESS)));
    socket
}

fn counts(steering: &Steering) -> XdpCounts {
    steering.xdp().unwrap().counts().unwrap()
}

fn class(steering: &Steering, name: &str) -> XdpStats {
    let counts = counts(steering);
    counts.classes.iter().find(|(class, _)| *class == name).unwrap().1
}

fn mode(steering: &Steering) -> Result<XdpMode, String> {
    steering.xdp().unwrap().state()[0].attached.clone()
}

/// Segments that this end's sockets with the API server have sent, as the sockets themselves count them.
fn segments_sent() -> u64 {
    let text = stdout_of("ss", &["-tinH", "dst", &API.to_string()]).unwrap();
    let words = text.split_whitespace();
    words.filter_map(|word| word.strip_prefix("segs_out:")?.parse::<u64>().ok()).sum()
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn segments_and_attempts_are_counted_to_the_last_one() {
    on_a_node("count", |dir, clients| {
        let steering = open_on(dir, &[WIRE], 0);
        assert_eq!(mode(&steering), Ok(XdpMode::Native), "veth can do it in its driver");
        let _server = ApiServer::start();
        clients.run(|| {
            let connect = |source| connect_from(source, Duration::from_secs(5)).unwrap();
            let strangers = [CLIENT, CLIENT, OTHER_CLIENT, CLIENT, OTHER_CLIENT].map(connect);
            eventually("all segments are counted", || class(&steering, "other").packets == segments_sent());
            let stats = class(&steering, "other");
            assert_eq!((stats.syns, stats.dropped), (5, 0));
            // A SYN has 74 bytes here, what follows at least 66.
            assert!(stats.bytes >= 5 * 74 + (stats.packets - 5) * 66, "{stats:?}");
            drop(strangers);

            let _peers = [PEER, PEER].map(connect);
            let stats = class(&steering, "peer");
            assert_eq!((stats.syns, stats.dropped), (2, 0));
            let peers: Vec<_> = counts(&steering).peers.iter().map(|(ip, stats)| (*ip, stats.syns)).collect();
            assert_eq!(peers, [(IpAddr::V4(PEER), 2)]);
        });
        // By loopback nothing comes over the wire.
        let before = counts(&steering);
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, SECURE_PORT)).unwrap());
        assert_eq!(class(&steering, "node"), XdpStats::default());
        assert_eq!(before.classes[2], counts(&steering).classes[2]);
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn a_flood_from_one_source_is_dropped_and_keeps_nobody_else_out() {
    const FLOOD: u32 = 300;
    const RATE: u32 = 10;
    on_a_node("flood", |dir, clients| {
        let steering = open_on(dir, &[WIRE], RATE);
        let _server = ApiServer::start();
        clients.run(|| {
            let begun = Instant::now();
            let flood: Vec<_> = (0..FLOOD).map(|_| begin_from(CLIENT)).collect();
            let stats = class(&steering, "other");
            let came_back = u64::try_from(begun.elapsed().as_millis()).unwrap() * u64::from(RATE) / 1000;
            let most = u64::from(RATE) + came_back + 1;
            println!("{stats:?} after {:?}", begun.elapsed());
            assert_eq!(stats.syns, u64::from(FLOOD));
            let admitted = stats.syns - stats.dropped;
            assert!((u64::from(RATE)..=most).contains(&admitted), "{admitted} admitted of {FLOOD}");

            // At once: a SYN that was dropped would be sent again only after a second.
            let soon = Duration::from_millis(900);
            for _ in 0..RATE {
                assert!(connect_from(OTHER_CLIENT, soon).is_some(), "another source");
            }
            for _ in 0..5 * RATE {
                assert!(connect_from(PEER, soon).is_some(), "a peer");
            }
            assert_eq!(class(&steering, "peer").dropped, 0);
            drop(flood);
        });
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn whoever_was_dropped_comes_through_by_trying_again() {
    on_a_node("again", |dir, clients| {
        let steering = open_on(dir, &[WIRE], 6);
        let _server = ApiServer::start();
        clients.run(|| {
            let sockets: Vec<_> = (0..9).map(|_| begin_from(CLIENT)).collect();
            assert!(class(&steering, "other").dropped > 0, "nine are more than six");
            let is_connected = |socket: &Socket| socket.peer_addr().is_ok();
            // TCP tries again after one second.
            eventually("all are connected", || sockets.iter().all(is_connected));
        });
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn nobody_is_dropped_while_it_is_not_known_who_the_peers_are() {
    on_a_node("unknown", |dir, clients| {
        let steering = Steering::open(&wire_options(dir, &[WIRE], 1)).unwrap();
        let xdp = steering.xdp().unwrap();
        let _server = ApiServer::start();
        let all_connect = || clients.run(|| (0..5).all(|_| connect_from(PEER, REFRESH_EVERY).is_some()));
        xdp.refresh(None).unwrap();
        assert!(all_connect());
        assert_eq!((class(&steering, "other").syns, class(&steering, "other").dropped), (5, 0));
        xdp.refresh(Some(&[PEER.into()])).unwrap();
        // Once known, a peer stays one.
        xdp.refresh(None).unwrap();
        assert!(all_connect());
        assert_eq!(class(&steering, "peer").syns, 5);
        // A proxy that is about to end leaves the maps alone.
        steering.release();
        xdp.refresh(Some(&[])).unwrap();
        assert!(all_connect());
        assert_eq!(class(&steering, "peer").syns, 10);
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn clients_of_a_canary_are_counted_apart() {
    on_a_node("listed", |dir, clients| {
        let sources =
            vec![format!("{OTHER_CLIENT}/32").parse().unwrap(), format!("{PEER}/32").parse().unwrap()];
        let canary = Canary { sources, percent: 100 };
        let steering = Steering::open(&SteeringOptions { canary, ..wire_options(dir, &[WIRE], 1) }).unwrap();
        let worker = Server::worker("w0", any_v4(), steering.heartbeat(0));
        steering.register(&[worker.fd()]).unwrap();
        steering.xdp().unwrap().refresh(Some(&[PEER.into()])).unwrap();
        clients.run(|| {
            drop([OTHER_CLIENT, OTHER_CLIENT, OTHER_CLIENT, CLIENT, PEER].map(begin_from));
        });
        let counted = ["listed", "other", "peer", "node"].map(|name| class(&steering, name));
        assert_eq!(counted.map(|stats| stats.syns), [3, 1, 1, 0]);
        assert_eq!(counted.map(|stats| stats.dropped), [2, 0, 0, 0], "they have budgets too");
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn loopback_takes_it_in_generic_mode_and_is_never_dropped() {
    on_a_node("generic", |dir, _| {
        let steering = open_on(dir, &["lo"], 1);
        assert_eq!(mode(&steering), Ok(XdpMode::Generic));
        let _server = ApiServer::start();
        for _ in 0..5 {
            assert!(TcpStream::connect_timeout(&API, Duration::from_millis(900)).is_ok());
        }
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, SECURE_PORT)).is_ok());
        let stats = class(&steering, "node");
        assert_eq!((stats.syns, stats.dropped), (6, 0));
    });
}

/// Somebody else's XDP program.
struct Foreign {
    _ebpf: Ebpf,
}

impl Foreign {
    fn on(interface: &str, mode: Mode) -> Self {
        let mut ebpf = EbpfLoader::new().load(object().unwrap()).unwrap();
        let program: &mut Xdp = ebpf.program_mut("peer_xdp").unwrap().try_into().unwrap();
        program.load().unwrap();
        program.attach(interface, mode).unwrap();
        Self { _ebpf: ebpf }
    }
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn an_interface_that_somebody_has_is_left_to_them_and_the_proxy_steers() {
    on_a_node("busy", |dir, _| {
        for (mode_of_theirs, shown) in [(Mode::Driver, XdpMode::Native), (Mode::Skb, XdpMode::Generic)] {
            let foreign = Foreign::on(WIRE, mode_of_theirs);
            let theirs = Device::find(WIRE).unwrap().program;
            assert_eq!(theirs.map(|(_, mode)| mode), Some(shown));
            let steering = open_on(dir, &[WIRE, "lo", "no-such-wire"], 0);
            let states = steering.xdp().unwrap().state();
            let reason = states[0].attached.as_ref().unwrap_err();
            assert!(reason.contains("another XDP program is on interface wire.82"), "{reason}");
            assert!(reason.contains("ip link set dev wire.82 xdp off"), "{reason}");
            assert_eq!(states[1].attached, Ok(XdpMode::Generic), "the others are not concerned");
            let reason = states[2].attached.as_ref().unwrap_err();
            assert!(reason.contains("no interface no-such-wire"), "{reason}");
            let device = Device::find(WIRE).unwrap();
            assert_eq!(device.program, theirs, "it stays where it is");
            assert_eq!(programs_on(dir, &device), (theirs.map(|(program, _)| program), None));

            let worker = Server::worker("w0", any_v4(), steering.heartbeat(0));
            steering.register(&[worker.fd()]).unwrap();
            steering.set_steering(true).unwrap();
            assert_eq!(ask(loopback()), "w0");
            drop((foreign, worker, steering));
            uninstall(dir).unwrap();
            eventually("it is off", || Device::find(WIRE).unwrap().program.is_none());
        }
    });
}

fn link_id(dir: &Path) -> String {
    let index = Device::find(WIRE).unwrap().index;
    let pin = dir.join(format!("xdp_link_{index}"));
    let text = stdout_of("bpftool", &["link", "show", "pinned", pin.to_str().unwrap()]).unwrap();
    text.split(':').next().unwrap().to_owned()
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn a_successor_takes_the_interface_over_and_misses_no_attempt() {
    const CONNECTIONS: u64 = 300;
    on_a_node("takeover", |dir, clients| {
        let mut steering = open_on(dir, &[WIRE], 0);
        let (link, first) = (link_id(dir), Device::find(WIRE).unwrap().program.unwrap());
        let _server = Server::api_server((Ipv4Addr::UNSPECIFIED, SECURE_PORT));
        // Each waits for its answer: a queue that overflows would lose SYNs too.
        let client = clients.spawn(|| (0..CONNECTIONS).all(|_| ask_from((CLIENT, 0), API) == "api"));
        let mut takeovers = 0;
        while !client.is_finished() {
            // Also of a proxy that was killed: dropping one changes nothing in the kernel.
            steering = open_on(dir, &[WIRE], 0);
            takeovers += 1;
        }
        assert!(client.join().unwrap());
        println!("{takeovers} takeovers");
        assert!(takeovers > 1);
        assert_eq!(class(&steering, "other").syns, CONNECTIONS);
        assert_eq!(link_id(dir), link, "the same link all the time");
        let device = Device::find(WIRE).unwrap();
        assert_ne!(device.program.unwrap().0, first.0, "but another program");
        let (there, own) = programs_on(dir, &device);
        assert_eq!(there, own);

        // One that has no use for the interface takes its predecessor's program off.
        let plain = Steering::open(&options(dir.to_owned(), 2)).unwrap();
        assert!(plain.xdp().is_none());
        eventually("it is off", || Device::find(WIRE).unwrap().program.is_none());
        assert!(mode(&steering).unwrap_err().contains("detached after start-up"));
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn without_interfaces_nothing_is_there_and_uninstalling_takes_all_away() {
    on_a_node("none", |dir, _| {
        let names = || {
            let entries = std::fs::read_dir(dir).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
        };
        let is_of_wire = |name: &String| name.to_lowercase().starts_with("xdp") || name == "SYN_BUDGETS";
        let plain = Steering::open(&options(dir.to_owned(), 2)).unwrap();
        assert!(!names().iter().any(is_of_wire), "{:?}", names());
        drop(plain);

        let steering = open_on(dir, &[WIRE, "lo"], 5);
        assert_eq!(names().iter().filter(|name| is_of_wire(name)).count(), 5 + 2, "{:?}", names());
        let removed = uninstall(dir).unwrap();
        assert!(
            !dir.exists()
                && removed.iter().filter(|path| path.to_string_lossy().contains("xdp_link_")).count() == 2
        );
        for interface in [WIRE, "lo"] {
            eventually("it is off", || Device::find(interface).unwrap().program.is_none());
        }
        drop(steering);
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn a_wire_that_comes_back_with_another_program_is_taken_up_again() {
    on_a_node("again", |dir, _| {
        let steering = open_on(dir, &[WIRE], 0);
        stdout_of("ip", &["link", "delete", WIRE]).unwrap();
        assert!(mode(&steering).is_err());
        let index = stdout_of("ip", &["link", "add", WIRE, "type", "veth", "peer", "name", "far"]);
        index.unwrap();
        let steering = open_on(dir, &[WIRE], 0);
        assert_eq!(mode(&steering), Ok(XdpMode::Native));
        let links = std::fs::read_dir(dir)
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("xdp_link_"));
        assert_eq!(links.count(), 1, "the link of what went away is gone");
    });
}
