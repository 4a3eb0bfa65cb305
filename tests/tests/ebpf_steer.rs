//! Steers real connections in a network namespace: who gets which one, and who when workers are gone.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ebpf_support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ebpf_support::{
    EXEMPT_SOURCE, SECURE_PORT, STALE_AFTER, Server, answer, any_dual_stack, any_v4, ask, ask_from,
    eventually, listen, loopback, open, open_impatient,
};
use mvproxy::steering::Steering;
use mvproxy_tests::netns::{BpfFs, Netns, command};
use socket2::{Domain, Socket, Type};

const NODE: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);

/// Runs `test` in a namespace with a BPF file system and an API server on all addresses.
fn with_api_server(label: &str, test: impl FnOnce(&BpfFs) + Send) {
    let netns = Netns::new(label).expect("root may create namespaces");
    netns.run(|| {
        let bpffs = BpfFs::mount().expect("root may mount");
        let _api_server = Server::api_server((Ipv6Addr::UNSPECIFIED, SECURE_PORT));
        test(&bpffs);
    });
}

/// Starts one IPv4 worker and steers to it.
fn one_worker(steering: &Steering) -> Server {
    let worker = Server::worker("w0", any_v4(), steering.heartbeat(0));
    steering.register(&[worker.fd()]).expect("a listener can be registered");
    steering.set_steering(true).expect("the mode word can be written");
    worker
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn steers_loopback_node_address_and_other_hosts() {
    let (node, host) = (Netns::new("node").unwrap(), Netns::new("host").unwrap());
    node.connect(IpAddr::V4(NODE), &host, IpAddr::V4(CLIENT), "v0").unwrap();
    node.run(|| {
        let bpffs = BpfFs::mount().unwrap();
        let _api_server = Server::api_server((Ipv4Addr::UNSPECIFIED, SECURE_PORT));
        let steering = open(&bpffs.path());
        assert_eq!(ask(loopback()), "api", "nothing is steered before set_steering");
        let _worker = one_worker(&steering);
        assert_eq!(answer(loopback()), format!("w0 127.0.0.1:{SECURE_PORT}"), "dialled address is kept");
        assert_eq!(ask((Ipv4Addr::new(127, 0, 0, 9), SECURE_PORT)), "w0");
        assert_eq!(answer((NODE, SECURE_PORT)), format!("w0 {NODE}:{SECURE_PORT}"));
        assert_eq!(host.run(|| answer((NODE, SECURE_PORT))), format!("w0 {NODE}:{SECURE_PORT}"));
        let other = Server::new("other", listen((Ipv4Addr::LOCALHOST, 8443).into(), false), None);
        assert_eq!(ask((Ipv4Addr::LOCALHOST, 8443)), "other", "other ports are left alone");
        drop(other);
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn dual_stack_worker_gets_both_families() {
    with_api_server("dual", |bpffs| {
        let steering = open(&bpffs.path());
        let worker = Server::worker("w0", any_dual_stack(), steering.heartbeat(0));
        steering.register(&[worker.fd()]).unwrap();
        steering.set_steering(true).unwrap();
        assert_eq!(ask(loopback()), "w0");
        assert_eq!(ask((Ipv6Addr::LOCALHOST, SECURE_PORT)), "w0");
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn listener_of_the_wrong_family_leaves_the_client_to_the_api_server() {
    with_api_server("family", |bpffs| {
        let steering = open(&bpffs.path());
        let v6_only = Server::new("w0", listen(any_dual_stack(), true), Some(steering.heartbeat(0)));
        steering.register(&[v6_only.fd()]).unwrap();
        steering.set_steering(true).unwrap();
        assert_eq!(ask((Ipv6Addr::LOCALHOST, SECURE_PORT)), "w0");
        assert_eq!(ask(loopback()), "api");
        assert_eq!(steering.stats().unwrap().refused, 1);
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn exempt_source_reaches_the_api_server() {
    with_api_server("exempt", |bpffs| {
        let steering = open(&bpffs.path());
        let _worker = one_worker(&steering);
        assert_eq!(ask_from((EXEMPT_SOURCE, 0), loopback()), "api");
        let neighbour = Ipv4Addr::new(127, 64, 43, 2);
        assert_eq!(ask_from((neighbour, 0), loopback()), "w0", "only that very address is exempt");
        assert_eq!(steering.stats().unwrap().exempt, 1);
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn ipv6_source_can_be_exempt() {
    with_api_server("exempt6", |bpffs| {
        command("ip", &["address", "add", "fd00:77::1/128", "dev", "lo", "nodad"]).unwrap();
        let source: Ipv6Addr = "fd00:77::1".parse().unwrap();
        let mut options = ebpf_support::options(bpffs.path(), 1);
        options.local_source_ip = source.into();
        let steering = Steering::open(&options).unwrap();
        let worker = Server::worker("w0", any_dual_stack(), steering.heartbeat(0));
        steering.register(&[worker.fd()]).unwrap();
        steering.set_steering(true).unwrap();
        let target = SocketAddr::from((Ipv6Addr::LOCALHOST, SECURE_PORT));
        assert_eq!(ask_from((source, 0), target), "api");
        assert_eq!(ask(target), "w0");
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn mode_word_switches_steering() {
    with_api_server("mode", |bpffs| {
        let steering = open(&bpffs.path());
        let _worker = one_worker(&steering);
        assert_eq!(ask(loopback()), "w0");
        steering.set_steering(false).unwrap();
        assert_eq!(ask(loopback()), "api");
        steering.set_steering(true).unwrap();
        assert_eq!(ask(loopback()), "w0");
        // The emergency exit for operators.
        let map = bpffs.path().join("STEER_MODE");
        let update = ["map", "update", "pinned", map.to_str().unwrap()];
        let zero = ["key", "0", "0", "0", "0", "value", "0", "0", "0", "0"];
        command("bpftool", &[&update[..], &zero[..]].concat()).unwrap();
        assert_eq!(ask(loopback()), "api");
        assert!(!steering.state().steering, "the state shows what the operator did");
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn closed_listener_leaves_clients_to_the_api_server() {
    with_api_server("closed", |bpffs| {
        let steering = open(&bpffs.path());
        let worker = one_worker(&steering);
        assert_eq!(ask(loopback()), "w0");
        worker.close();
        assert_eq!(ask(loopback()), "api", "the very next connection");
        assert_eq!(steering.state().listeners, 0);
        assert_eq!(steering.stats().unwrap().no_listener, 1);
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn release_leaves_clients_to_the_api_server_at_once() {
    with_api_server("release", |bpffs| {
        let steering = open(&bpffs.path());
        let worker = one_worker(&steering);
        assert_eq!(ask(loopback()), "w0");
        steering.release();
        assert_eq!(ask(loopback()), "api");
        drop(worker);
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn live_workers_take_over_from_a_hung_one_and_the_api_server_from_all() {
    with_api_server("hung", |bpffs| {
        let steering = open_impatient(&bpffs.path());
        let workers = ["w0", "w1"].map(|name| {
            let index = usize::from(name == "w1");
            Server::worker(name, any_v4(), steering.heartbeat(index))
        });
        steering.register(&workers.each_ref().map(Server::fd)).unwrap();
        steering.set_steering(true).unwrap();
        let spread: Vec<_> = (0..64).map(|_| ask(loopback())).collect();
        for name in ["w0", "w1"] {
            let share = spread.iter().filter(|answer| *answer == name).count();
            assert!((8..=56).contains(&share), "{name} got {share} of 64");
        }

        workers[0].hang();
        std::thread::sleep(STALE_AFTER);
        for _ in 0..32 {
            assert_eq!(ask(loopback()), "w1");
        }
        assert!(steering.stats().unwrap().taken_over > 0);

        workers[1].hang();
        std::thread::sleep(STALE_AFTER);
        for _ in 0..8 {
            assert_eq!(ask(loopback()), "api");
        }
        assert_eq!(steering.stats().unwrap().stale, 8);

        workers[0].resume();
        eventually("steered again", || ask(loopback()) == "w0");
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn hung_member_of_a_reuseport_group_gets_nothing() {
    with_api_server("reuseport", |bpffs| {
        let steering = open_impatient(&bpffs.path());
        let member = |address: SocketAddr| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_reuse_port(true).unwrap();
            socket.bind(&address.into()).unwrap();
            socket.listen(64).unwrap();
            std::net::TcpListener::from(socket)
        };
        let first = member((Ipv4Addr::UNSPECIFIED, 0).into());
        let second = member(first.local_addr().unwrap());
        let workers = [
            Server::new("w0", first, Some(steering.heartbeat(0))),
            Server::new("w1", second, Some(steering.heartbeat(1))),
        ];
        steering.register(&workers.each_ref().map(Server::fd)).unwrap();
        steering.set_steering(true).unwrap();
        workers[0].hang();
        std::thread::sleep(STALE_AFTER);
        for _ in 0..32 {
            assert_eq!(ask(loopback()), "w1", "the kernel must not choose within the group");
        }
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn fewer_listeners_empty_the_surplus_slots() {
    with_api_server("surplus", |bpffs| {
        let steering = open(&bpffs.path());
        let workers = [("w0", 0), ("w1", 1)]
            .map(|(name, index)| Server::worker(name, any_v4(), steering.heartbeat(index)));
        steering.register(&workers.each_ref().map(Server::fd)).unwrap();
        assert_eq!(steering.state().listeners, 2);
        steering.register(&[workers[1].fd()]).unwrap();
        assert_eq!(steering.state().listeners, 1);
        steering.set_steering(true).unwrap();
        // Slot 0 beats as worker 0 does, and holds what was worker 1's listener.
        (0..16).for_each(|_| assert_eq!(ask(loopback()), "w1"));
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn every_lookup_is_counted_once() {
    with_api_server("verdicts", |bpffs| {
        let steering = open(&bpffs.path());
        let other = Server::new("other", listen((Ipv4Addr::LOCALHOST, 8443).into(), false), None);
        ask(loopback());
        let worker = one_worker(&steering);
        ask(loopback());
        ask(loopback());
        ask_from((EXEMPT_SOURCE, 0), loopback());
        ask((Ipv4Addr::LOCALHOST, 8443));
        worker.close();
        ask(loopback());
        let stats = steering.stats().unwrap();
        assert_eq!(
            (stats.mode_pass, stats.steered, stats.exempt, stats.other_port, stats.no_listener),
            (1, 2, 1, 1, 1)
        );
        assert_eq!((stats.stale, stats.refused, stats.other_abi, stats.taken_over), (0, 0, 0, 0));
        assert_eq!(stats.failed_open(), 1);
        drop(other);
    });
}
