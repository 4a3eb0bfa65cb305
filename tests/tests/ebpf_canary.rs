//! Steers some clients only: those in listed networks, and a part of the addresses.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ebpf_support;

use std::net::{Ipv4Addr, Ipv6Addr};

use ebpf_support::{SECURE_PORT, Server, any_dual_stack, ask, ask_from, loopback, options};
use mvproxy::steering::{Canary, Steering};
use mvproxy_tests::netns::{BpfFs, Netns};

/// Runs `test` in a namespace with an API server, steering for this canary, and a worker.
fn with_canary(label: &str, sources: &[&str], percent: u8, test: impl FnOnce(&BpfFs, &Steering) + Send) {
    let sources = sources.iter().map(|source| source.parse().unwrap()).collect();
    Netns::new(label).unwrap().run(|| {
        let bpffs = BpfFs::mount().unwrap();
        let _api_server = Server::api_server((Ipv6Addr::UNSPECIFIED, SECURE_PORT));
        let (steering, _worker) = start(&bpffs, "w0", Canary { sources, percent });
        test(&bpffs, &steering);
    });
}

fn start(bpffs: &BpfFs, name: &'static str, canary: Canary) -> (Steering, Server) {
    let mut options = options(bpffs.path(), 1);
    options.canary = canary;
    let steering = Steering::open(&options).unwrap();
    let worker = Server::worker(name, any_dual_stack(), steering.heartbeat(0));
    steering.register(&[worker.fd()]).unwrap();
    steering.set_steering(true).unwrap();
    (steering, worker)
}

fn ask_from_host(host: u8) -> String {
    ask_from((Ipv4Addr::new(127, 9, 0, host), 0), loopback())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn only_listed_networks_are_steered() {
    with_canary("listed", &["127.9.0.16/28", "127.9.0.99/32", "::/0"], 100, |_, steering| {
        for (host, expected) in
            [(15, "api"), (16, "w0"), (31, "w0"), (32, "api"), (98, "api"), (99, "w0"), (100, "api")]
        {
            assert_eq!(ask_from_host(host), expected, "127.9.0.{host}");
        }
        assert_eq!(ask((Ipv6Addr::LOCALHOST, SECURE_PORT)), "w0", "::/0 is all of IPv6, and nothing of IPv4");
        let stats = steering.stats().unwrap();
        assert_eq!((stats.steered, stats.canary, stats.failed_open()), (4, 4, 0));
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn a_percentage_of_addresses_is_steered_and_always_the_same() {
    with_canary("percent", &[], 30, |_, steering| {
        let answers: Vec<_> = (1..=200).map(ask_from_host).collect();
        let hits = answers.iter().filter(|answer| *answer == "w0").count();
        assert!((40..=80).contains(&hits), "{hits} of 200 are about 30 percent");
        assert!(answers.iter().all(|answer| ["w0", "api"].contains(&answer.as_str())), "{answers:?}");
        for host in [1, 2, 3, 4, 5, 6, 7, 8] {
            for _ in 0..8 {
                assert_eq!(
                    ask_from_host(host),
                    answers[usize::from(host) - 1],
                    "127.9.0.{host}, whatever its port"
                );
            }
        }
        let stats = steering.stats().unwrap();
        assert_eq!(stats.steered + stats.canary, 264);
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn a_source_must_be_listed_and_hit() {
    with_canary("both", &["127.9.0.0/25"], 50, |_, _| {
        let hits = |hosts: std::ops::Range<u8>| hosts.filter(|host| ask_from_host(*host) == "w0").count();
        let listed = hits(1..128);
        assert!((40..=90).contains(&listed), "{listed} of 127 are about half");
        assert_eq!(hits(128..255), 0, "none of those that are not listed");
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn a_successor_brings_its_own_canary() {
    with_canary("next", &["127.9.0.1/32", "127.9.0.2/32"], 100, |bpffs, first| {
        assert_eq!([1, 2, 3].map(ask_from_host), ["w0", "w0", "api"]);
        let sources = vec!["127.9.0.2/32".parse().unwrap(), "127.9.0.3/32".parse().unwrap()];
        let (second, _worker) = start(bpffs, "w1", Canary { sources, percent: 100 });
        first.release();
        assert_eq!([1, 2, 3].map(ask_from_host), ["api", "w1", "w1"]);
        let (_third, _worker) = start(bpffs, "w2", Canary::default());
        second.release();
        assert_eq!([1, 2, 3].map(ask_from_host), ["w2"; 3], "all again");
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn the_longest_lists_of_a_proxy_and_its_successor_fit_beside_each_other() {
    let longest = |first: u8| -> Vec<String> {
        (0..1023).map(|net| format!("{first}.{}.{}.0/24", net / 256, net % 256)).collect()
    };
    let (own, next) = (longest(127), longest(128));
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    with_canary("longest", &own, 100, |bpffs, first| {
        assert_eq!(ask_from_host(1), "api", "127.9.0.0/24 is beyond the list");
        assert_eq!(ask_from((Ipv4Addr::new(127, 3, 1, 1), 0), loopback()), "w0");
        let sources = next.iter().map(|network| network.parse().unwrap()).collect();
        let (_second, _worker) = start(bpffs, "w1", Canary { sources, percent: 100 });
        first.release();
        assert_eq!(ask_from((Ipv4Addr::new(127, 3, 1, 1), 0), loopback()), "api");
    });
}
