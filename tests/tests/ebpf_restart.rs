//! Restarts and replaces proxies on the same pins and looks at what survives.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ebpf_support;

use std::io::Write as _;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use ebpf_support::{SECURE_PORT, Server, any_v4, ask, eventually, loopback, open, options};
use mvproxy::steering::{Attachment, Steering, object};
use mvproxy_tests::netns::{BpfFs, Netns, command, stdout_of};

fn with_api_server(label: &str, test: impl FnOnce(&Path) + Send) {
    Netns::new(label).unwrap().run(|| {
        let bpffs = BpfFs::mount().unwrap();
        let _api_server = Server::api_server((Ipv6Addr::UNSPECIFIED, SECURE_PORT));
        test(&bpffs.path());
    });
}

fn peer(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 6443))
}

fn steer_to(steering: &Steering, name: &'static str) -> Server {
    let worker = Server::worker(name, any_v4(), steering.heartbeat(0));
    steering.register(&[worker.fd()]).unwrap();
    steering.set_steering(true).unwrap();
    worker
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn counters_survive_a_restart() {
    with_api_server("survive", |dir| {
        let first = open(dir);
        let worker = steer_to(&first, "w0");
        assert_eq!(ask(loopback()), "w0");
        let counters = first.counters();
        for (worker, last) in [(0, 1), (1, 1), (1, 2)] {
            let shard = counters.shard(worker, counters.slot(peer(last)));
            shard.requests.fetch_add(1, Relaxed);
            shard.add_response(200, 2_000_000);
        }
        let before = counters.totals();
        assert_eq!(
            before.iter().map(|(peer, total)| (*peer, total.requests)).collect::<Vec<_>>(),
            [(peer(1), 2), (peer(2), 1)]
        );
        drop((worker, counters, first));

        let second = open(dir);
        assert_eq!(second.counters().totals(), before);
        assert_eq!(second.stats().unwrap().steered, 1);
        assert!(!second.state().steering, "a new proxy decides anew whether to steer");
        // The same peer has the same place, and a new one a place of its own.
        let counters = second.counters();
        counters.shard(3, counters.slot(peer(2))).requests.fetch_add(1, Relaxed);
        counters.shard(3, counters.slot(peer(3))).requests.fetch_add(1, Relaxed);
        let requests: Vec<_> = counters.totals().iter().map(|(_, total)| total.requests).collect();
        assert_eq!(requests, [2, 2, 1]);
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn successor_takes_over_without_a_gap_and_keeps_its_slots() {
    with_api_server("swap", |dir| {
        let old = open(dir);
        let old_worker = steer_to(&old, "old");
        assert_eq!(ask(loopback()), "old");

        let new = open(dir);
        assert_eq!(ask(loopback()), "old", "opening takes nothing from the old proxy");
        assert_eq!((new.state().listeners, new.state().foreign_listeners), (0, 1));
        let _new_worker = steer_to(&new, "new");
        assert_eq!(ask(loopback()), "new");
        assert_eq!((old.state().listeners, old.state().foreign_listeners), (0, 1));

        old.release();
        old_worker.close();
        drop(old);
        assert_eq!(ask(loopback()), "new", "the old proxy's end leaves the new one's slots alone");
        assert_eq!(new.state().attachment, Attachment::Attached);
        assert_eq!(attached_programs(), 1, "the old link is gone");
    });
}

/// Steering programs attached to this network namespace.
fn attached_programs() -> usize {
    use std::os::unix::fs::MetadataExt as _;
    let own = std::fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
    let links = stdout_of("bpftool", &["--json", "link", "show"]).unwrap();
    let links: serde_json::Value = serde_json::from_str(&links).unwrap();
    let here = |link: &&serde_json::Value| link["netns_ino"].as_u64() == Some(own);
    links.as_array().unwrap().iter().filter(here).count()
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn twenty_swaps_under_load_lose_no_connection() {
    with_api_server("swaps", |dir| {
        let mut current = open(dir);
        let mut worker = steer_to(&current, "w0");
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let clients = [(); 3].map(|()| {
                scope.spawn(|| {
                    let mut answers = Vec::new();
                    while !done.load(Relaxed) {
                        answers.push(ask(loopback()));
                    }
                    answers
                })
            });
            for _ in 0..20 {
                let next = open(dir);
                let next_worker = steer_to(&next, "w0");
                current.release();
                // Accepts what is queued; the slot is the successor's already.
                std::thread::sleep(std::time::Duration::from_millis(50));
                worker.close();
                (current, worker) = (next, next_worker);
            }
            done.store(true, Relaxed);
            let answers: Vec<_> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
            let wrong: Vec<_> = answers.iter().filter(|answer| *answer != "w0").collect();
            assert!(wrong.is_empty(), "{} of {}: {wrong:?}", wrong.len(), answers.len());
            assert!(answers.len() > 100, "only {} connections", answers.len());
        });
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn maps_of_another_release_are_replaced() {
    with_api_server("abi", |dir| {
        let old = open(dir);
        let _old_worker = steer_to(&old, "old");
        let counters = old.counters();
        counters.shard(0, counters.slot(peer(1))).requests.fetch_add(7, Relaxed);
        // What a release with layout version 99 would have written.
        let map = dir.join("STEER_CONFIG");
        let config: [u8; 32] = [
            99, 0, 0, 0, 1, 0, 0, 0, 0, 0x84, 0xd7, 0x17, 0, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0,
        ];
        let bytes: Vec<_> = config.iter().map(ToString::to_string).collect();
        let mut update = vec!["map", "update", "pinned", map.to_str().unwrap()];
        update.extend(["key", "0", "0", "0", "0", "value"]);
        update.extend(bytes.iter().map(String::as_str));
        command("bpftool", &update).unwrap();
        assert_eq!(ask(loopback()), "api", "programs of this release leave such maps alone");
        assert_eq!(old.stats().unwrap().other_abi, 1);

        let new = open(dir);
        assert_eq!(new.counters().totals(), [], "counts of another layout mean nothing");
        let _new_worker = steer_to(&new, "new");
        assert_eq!(ask(loopback()), "new");
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn another_release_steers_until_its_successor_does() {
    with_api_server("beside", |dir| {
        let old = open(dir);
        let old_worker = steer_to(&old, "old");
        // As if the release had laid out a map in another way.
        let lay_out_otherwise = || {
            let map = dir.join("PEER_L4").display().to_string();
            std::fs::remove_file(&map).unwrap();
            let layout = ["type", "hash", "key", "8", "value", "16", "entries", "4", "name", "PEER_L4"];
            command("bpftool", &[&["map", "create", &map], &layout[..]].concat()).unwrap();
        };
        lay_out_otherwise();
        let new = open(dir);
        assert_eq!(attached_programs(), 2);
        assert_eq!(ask(loopback()), "old", "the old program has its own maps");
        let new_worker = Server::worker("new", any_v4(), new.heartbeat(0));
        new.register(&[new_worker.fd()]).unwrap();
        assert_eq!(ask(loopback()), "old", "the new one is not switched on");
        new.set_steering(true).unwrap();
        assert_eq!((ask(loopback()), attached_programs()), ("new".to_owned(), 1));
        old.release();
        old_worker.close();
        assert_eq!(ask(loopback()), "new");

        // One that ends before it steers changes nothing, and its successor replaces both.
        lay_out_otherwise();
        drop(open(dir));
        assert_eq!((ask(loopback()), attached_programs()), ("new".to_owned(), 2));
        let third = open(dir);
        assert_eq!((ask(loopback()), attached_programs()), ("new".to_owned(), 2), "nor does one more");
        let _worker = steer_to(&third, "third");
        assert_eq!((ask(loopback()), attached_programs()), ("third".to_owned(), 1));
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn restart_with_another_port_forgets_the_old_one() {
    with_api_server("port", |dir| {
        drop(open(dir));
        let mut options = options(dir.to_owned(), 1);
        options.secure_port = 7443;
        let steering = Steering::open(&options).unwrap();
        let _worker = steer_to(&steering, "w0");
        assert_eq!(ask(loopback()), "api");
        assert_eq!(ask(([127, 0, 0, 1], 7443)), "w0");
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn removed_pin_shows_in_the_state() {
    with_api_server("pin", |dir| {
        let steering = open(dir);
        let _worker = steer_to(&steering, "w0");
        std::fs::remove_file(dir.join("steer_link")).unwrap();
        assert_eq!(steering.state().attachment, Attachment::Removed);
        // The kernel does so once everybody is done with the inode: on a busy machine that is not at once.
        eventually("removing the pin detaches the program", || ask(loopback()) == "api");
    });
}

#[test]
fn without_a_kernel_side_counters_work_the_same() {
    let steering = Steering::off("for a test");
    let counters = steering.counters();
    counters.shard(2, counters.slot(peer(1))).requests.fetch_add(1, Relaxed);
    assert_eq!(counters.totals()[0].1.requests, 1);
    steering.heartbeat(0).beat();
    steering.set_steering(true).unwrap();
    assert_eq!(steering.state().attachment, Attachment::Off { reason: "for a test".into() });
    assert!(!steering.state().steering);
    assert_eq!(steering.stats(), None);
    assert_eq!(steering.peer_l4(), []);
}

#[test]
fn binary_without_an_object_says_so() {
    if object().is_some() {
        // Straight to the terminal: libtest hides what macros print in tests that pass.
        return writeln!(std::io::stderr(), "*** SKIPPED: this binary embeds a BPF object ***").unwrap();
    }
    let error = Steering::open(&options("/sys/fs/bpf/mvproxy".into(), 1)).unwrap_err();
    assert!(error.to_string().contains("built without BPF object"), "{error}");
}
