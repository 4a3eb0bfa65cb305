//! Compares what the kernel counts of connections to peers with what the sockets themselves report.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ebpf_support;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use ebpf_support::{eventually, open, options};
use mvproxy::steering::{PeerOps, Steering};
use mvproxy_common::PeerL4;
use mvproxy_tests::netns::{BpfFs, Netns, stdout_of};

const UPLOAD: usize = 1_300_000;
const DOWNLOAD: usize = 300_000;

fn in_namespace(label: &str, test: impl FnOnce(&Path) + Send) {
    Netns::new(label).unwrap().run(|| {
        let bpffs = BpfFs::mount().unwrap();
        test(&bpffs.path());
    });
}

/// What was counted for a peer that has a slot.
fn counted(steering: &Steering, peer: SocketAddr) -> PeerL4 {
    let all = steering.peer_l4();
    all.into_iter().find(|(address, _)| *address == peer).expect("the peer is counted").1
}

/// A peer that reads an upload, answers it with a download, and then waits for the other side to close.
fn start_peer(listener: TcpListener) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut vec![0; UPLOAD]).unwrap();
        stream.write_all(&vec![1; DOWNLOAD]).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
    })
}

fn transfer(stream: &mut TcpStream) {
    stream.write_all(&vec![0; UPLOAD]).unwrap();
    stream.read_exact(&mut vec![0; DOWNLOAD]).unwrap();
}

/// A number of `TCP_INFO` of the client's socket to `peer`, as `ss` names it.
fn tcp_info(peer: SocketAddr, field: &str) -> u64 {
    let text = stdout_of("ss", &["-tinH", "dst", &peer.to_string()]).unwrap();
    let value = text.split_whitespace().find_map(|word| word.strip_prefix(field)?.strip_prefix(':'));
    value.map_or(0, |value| value.rsplit('/').next().unwrap().parse().unwrap())
}

#[track_caller]
fn assert_close(counted: u64, reported: u64) {
    let limit = reported / 100;
    assert!(reported > 0 && counted.abs_diff(reported) <= limit, "counted {counted}, TCP_INFO {reported}");
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn bytes_of_a_connection_match_tcp_info() {
    in_namespace("bytes", |dir| {
        let steering = open(dir);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        steering.counters().slot(address);
        let peer = start_peer(listener);

        let mut stream = TcpStream::connect(address).unwrap();
        assert_eq!(counted(&steering, address).opened, 1);
        transfer(&mut stream);
        let open = counted(&steering, address);
        assert!(open.bytes_out > 0 && open.closed == 0, "bytes are counted before the end: {open:?}");
        // Everything that was sent is acknowledged when nothing is left in the queue.
        eventually("all bytes acknowledged", || {
            tcp_info(address, "bytes_acked") > u64::try_from(UPLOAD).unwrap()
        });
        let (received, acked) = (tcp_info(address, "bytes_received"), tcp_info(address, "bytes_acked"));
        drop(stream);
        peer.join().unwrap();

        eventually("the connection is closed", || counted(&steering, address).closed == 1);
        let l4 = counted(&steering, address);
        assert_close(l4.bytes_in, received);
        assert_close(l4.bytes_out, acked);
        assert_eq!((l4.opened, l4.failed), (1, 0));
        assert!(l4.rtt_samples > 0 && l4.srtt_us_min > 0, "{l4:?}");
        assert!(l4.srtt_us_min <= l4.srtt_us_last && l4.srtt_us_last < 1_000_000, "{l4:?}");
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn ipv6_and_several_connections_add_up() {
    in_namespace("several", |dir| {
        let steering = open(dir);
        let listener = TcpListener::bind("[::1]:0").unwrap();
        let address = listener.local_addr().unwrap();
        steering.counters().slot(address);
        for _ in 0..3 {
            let peer = start_peer(listener.try_clone().unwrap());
            transfer(&mut TcpStream::connect(address).unwrap());
            peer.join().unwrap();
        }
        eventually("all are closed", || counted(&steering, address).closed == 3);
        let l4 = counted(&steering, address);
        assert_eq!((l4.opened, l4.failed), (3, 0));
        assert_close(l4.bytes_in, 3 * u64::try_from(DOWNLOAD).unwrap());
        assert_close(l4.bytes_out, 3 * u64::try_from(UPLOAD).unwrap());
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn refused_connections_count_as_failed() {
    in_namespace("failed", |dir| {
        let steering = open(dir);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        steering.counters().slot(address);
        for _ in 0..2 {
            TcpStream::connect(address).unwrap_err();
        }
        let l4 = counted(&steering, address);
        assert_eq!((l4.opened, l4.closed, l4.failed), (0, 0, 2));
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn strangers_and_incoming_connections_are_not_counted() {
    in_namespace("strangers", |dir| {
        let steering = open(dir);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (stranger, peer) = (listener.local_addr().unwrap(), SocketAddr::from(([192, 0, 2, 1], 6443)));
        steering.counters().slot(peer);
        drop((TcpStream::connect(stranger).unwrap(), listener.accept().unwrap()));
        assert_eq!(steering.peer_l4(), [(peer, PeerL4::default())]);
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn retransmits_match_tcp_info() {
    let (near, far) = (Netns::new("near").unwrap(), Netns::new("far").unwrap());
    let [here, there] = [1, 2].map(|last| IpAddr::from([10, 77, 2, last]));
    near.connect(here, &far, there, "v0").unwrap();
    let address = SocketAddr::new(there, 7000);
    let listener = far.run(|| TcpListener::bind(address).unwrap());
    near.run(|| {
        let bpffs = BpfFs::mount().unwrap();
        let steering = open(&bpffs.path());
        steering.counters().slot(address);
        let peer = start_peer(listener);
        let mut stream = TcpStream::connect(address).unwrap();
        // Acknowledgements vanish on their way back, as if the network lost them.
        far.ip(&["route", "add", "blackhole", &format!("{here}/32")]).unwrap();
        stream.write_all(&[0; 1000]).unwrap();
        eventually("segments are sent again", || tcp_info(address, "retrans") >= 2);
        far.ip(&["route", "delete", "blackhole", &format!("{here}/32")]).unwrap();
        stream.write_all(&vec![0; UPLOAD - 1000]).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.read_exact(&mut vec![0; DOWNLOAD]).unwrap();
        let reported = tcp_info(address, "retrans");
        drop(stream);
        peer.join().unwrap();
        eventually("the connection is closed", || counted(&steering, address).closed == 1);
        assert_eq!(counted(&steering, address).retransmits, reported);
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn only_the_given_cgroup_is_counted() {
    in_namespace("scope", |dir| {
        let PeerOps::Attached { cgroup } = open(dir).state().peer_ops else {
            panic!("the own cgroup is the default");
        };
        let other = cgroup.join(format!("mvp-{}", std::process::id()));
        std::fs::create_dir(&other).unwrap();
        let mut options = options(dir.join("other"), 1);
        options.cgroup = Some(other.clone());
        let steering = Steering::open(&options).unwrap();
        assert_eq!(steering.state().peer_ops, PeerOps::Attached { cgroup: other.clone() });
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        steering.counters().slot(address);
        TcpStream::connect(address).unwrap_err();
        assert_eq!(counted(&steering, address).failed, 0, "this process is not in that cgroup");
        std::fs::remove_dir(&other).unwrap();
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn connection_that_outlives_a_proxy_is_counted_once() {
    in_namespace("handover", |dir| {
        let old = open(dir);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        old.counters().slot(address);
        let peer = start_peer(listener);
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&vec![0; UPLOAD]).unwrap();
        let new = open(dir);
        drop(old);
        stream.read_exact(&mut vec![0; DOWNLOAD]).unwrap();
        drop(stream);
        peer.join().unwrap();
        eventually("the connection is closed", || counted(&new, address).closed == 1);
        let l4 = counted(&new, address);
        assert_eq!((l4.opened, l4.closed), (1, 1));
        assert_close(l4.bytes_in, u64::try_from(DOWNLOAD).unwrap());
        assert_close(l4.bytes_out, u64::try_from(UPLOAD).unwrap());
    });
}
