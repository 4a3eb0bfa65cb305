//! What a proxy pinned is taken out again, and what looks at a node leaves nothing on it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ebpf_support;

use std::fs;
use std::net::Ipv6Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use ebpf_support::{SECURE_PORT, Server, any_v4, ask, loopback, open};
use mvproxy::steering::{Attachment, foreign_programs, probe, uninstall};
use mvproxy_tests::netns::{BpfFs, Netns};

fn on_a_node(label: &str, test: impl FnOnce(&Path) + Send) {
    Netns::new(label).unwrap().run(|| {
        let bpffs = BpfFs::mount().unwrap();
        let _api_server = Server::api_server((Ipv6Addr::UNSPECIFIED, SECURE_PORT));
        test(&bpffs.path().join("mvproxy"));
    });
}

/// Names beside the folder and in it.
fn pins(dir: &Path) -> Vec<String> {
    let list = |folder: &Path| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    // The kernel puts these two there itself.
    let beside = list(dir.parent().unwrap())
        .into_iter()
        .filter(|name| !["maps.debug", "progs.debug"].contains(&name.as_str()));
    beside.chain(list(dir)).collect()
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn uninstalling_leaves_clients_to_the_api_server_and_nothing_behind() {
    on_a_node("uninstall", |dir| {
        let steering = open(dir);
        let worker = Server::worker("w0", any_v4(), steering.heartbeat(0));
        steering.register(&[worker.fd()]).unwrap();
        steering.set_steering(true).unwrap();
        assert_eq!(ask(loopback()), "w0");

        let removed = uninstall(dir).unwrap();
        assert_eq!(removed.last().unwrap(), dir);
        assert!(removed[0].ends_with("steer_link"), "the link goes first: {removed:?}");
        // The kernel lets go of a link a moment after its last pin.
        let begun = Instant::now();
        while ask(loopback()) != "api" {
            assert!(begun.elapsed() < Duration::from_secs(5), "although the proxy still runs");
        }
        assert_eq!(steering.state().attachment, Attachment::Removed);
        assert_eq!(pins(dir), Vec::<String>::new());
        assert_eq!(uninstall(dir).unwrap(), Vec::<std::path::PathBuf>::new(), "again is fine");

        // What comes later starts afresh.
        drop((worker, steering));
        let steering = open(dir);
        assert_eq!(steering.stats().unwrap().steered, 0);
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn looking_whether_a_node_can_steer_changes_nothing() {
    on_a_node("probe", |dir| {
        probe(dir).unwrap();
        assert_eq!(pins(dir), Vec::<String>::new());
        let steering = open(dir);
        let worker = Server::worker("w0", any_v4(), steering.heartbeat(0));
        steering.register(&[worker.fd()]).unwrap();
        steering.set_steering(true).unwrap();
        let before = pins(dir);
        probe(dir).unwrap();
        assert_eq!(pins(dir), before);
        assert_eq!(ask(loopback()), "w0", "a running proxy is not disturbed");
        let foreign = foreign_programs().unwrap();
        assert!(!foreign.iter().any(|name| name == "steer_listener"), "{foreign:?}");
    });
}
