//! Breaks a steering proxy in every way that the kernel has to cover, and measures what clients notice.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "modules of a test binary are reached from that binary only")]

mod cluster_support;
mod ebpf_support;
mod support;

#[path = "ebpf_overload/asking.rs"]
mod asking;
#[path = "ebpf_overload/frozen.rs"]
mod frozen;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use asking::{Asked, ask, asked_between, places, while_asking};
use cluster_support::{Cluster, Node};
use ebpf_support::eventually;
use frozen::freeze;
use mvproxy_tests::client::Client;
use mvproxy_tests::netns::stdout_of;
use nix::sys::signal::Signal;

/// What only the other node's API server serves: 200 shows that the proxy answered, 404 that the local API server did.
const PROXIED: u16 = 200;
const STRAIGHT: u16 = 404;
const DOCUMENTS: [&str; 2] = ["v1.34", "v1.36-all"];
/// Clients go on asking for this time after the fault.
const AFTER: Duration = Duration::from_secs(3);
/// Clients ask for this time before the fault.
const BEFORE: Duration = Duration::from_secs(1);
/// Nobody who is answered waits for longer on a busy machine; whoever is not would wait for ten seconds.
const SOON: Duration = Duration::from_secs(3);

/// What clients met after a fault.
struct Outcome {
    asked: Vec<Asked>,
    fault: Instant,
}

/// Starts two nodes, has clients ask, and breaks the first node's proxy. `grace` is what the kernel needs to notice: from
/// then on everybody is answered by the API server, soon.
fn measure(fault: &str, grace: Duration, strike: impl FnOnce(&Cluster)) -> Cluster {
    let cluster = Cluster::start_with(&format!("fault-{fault}"), DOCUMENTS, &["--workers=2"]);
    let [_, _, elsewhere] = places(&cluster);
    assert_eq!(ask(&elsewhere).outcome, Ok(PROXIED));
    let (at, asked) = while_asking(&cluster, || {
        std::thread::sleep(BEFORE);
        strike(&cluster);
        let at = Instant::now();
        std::thread::sleep(AFTER);
        at
    });
    let outcome = Outcome { asked, fault: at };
    outcome.print(fault);
    outcome.check(grace);
    cluster
}

impl Outcome {
    fn print(&self, fault: &str) {
        let failed: Vec<_> = self.asked.iter().filter(|asked| asked.outcome.is_err()).collect();
        let after = |asked: &&&Asked| asked.begun >= self.fault;
        let straight = self.asked.iter().filter(|asked| asked.outcome == Ok(STRAIGHT));
        let first = straight.map(|asked| asked.begun + asked.took).min();
        let first = first.map(|at| at.saturating_duration_since(self.fault));
        let longest = self.asked.iter().filter(|asked| asked.outcome.is_ok()).map(|asked| asked.took).max();
        println!(
            "{fault}: {} asked, {} failed, of these {} that began after the fault; first answer of the API server after \
             {:.0?}, longest wait {:.0?}",
            self.asked.len(),
            failed.len(),
            failed.iter().filter(after).count(),
            first.unwrap_or(Duration::MAX),
            longest.unwrap_or_default(),
        );
    }

    fn check(&self, grace: Duration) {
        let mut count = 0;
        for asked in asked_between(&self.asked, self.fault + grace, Instant::now()) {
            assert_eq!(asked.outcome, Ok(STRAIGHT), "{asked:?}");
            assert!(asked.took < SOON, "{asked:?}");
            count += 1;
        }
        assert!(count > 5, "only {count} asked after the fault");
    }
}

fn is_gone(node: &Node) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", node.proxy().id())).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, fields)| fields.starts_with(" Z"))
}

/// Runs a command where the node's proxy has its BPF file system.
fn beside_proxy(node: &Node, command: &[&str]) {
    let target = format!("--target={}", node.proxy().id());
    stdout_of("nsenter", &[&[target.as_str(), "--mount"], command].concat()).unwrap();
}

fn says_why(node: &Node) {
    let readyz = node.admin("/readyz?verbose");
    assert!(readyz.contains("-steering excluded: runs unsteered: its pin was removed"), "{readyz}");
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn abort() {
    measure("abort", Duration::ZERO, |cluster| {
        // What abort(3) in a worker raises.
        cluster.nodes[0].proxy().signal(Signal::SIGABRT);
        eventually("it is gone", || is_gone(&cluster.nodes[0]));
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn out_of_memory() {
    let limit = MemoryLimit::new();
    measure("out-of-memory", Duration::ZERO, |cluster| {
        let node = &cluster.nodes[0];
        limit.impose_on(node);
        let options = cluster.options(node.address());
        cluster.elsewhere.block_on(|| async {
            let (mut held, begun) = (Vec::new(), Instant::now());
            while !is_gone(node) {
                assert!(begun.elapsed() < Duration::from_secs(20), "{} connections fit", held.len());
                held.extend(Client::connect(&options).await.ok());
            }
        });
    });
    assert!(limit.kills() > 0, "it ended for another reason");
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn deadlock_of_all_workers() {
    let mut frozen = Vec::new();
    // The heartbeat's limit is a second.
    let cluster = measure("deadlock", Duration::from_millis(1300), |cluster| {
        frozen.extend(["worker-0", "worker-1"].map(|name| freeze(cluster.nodes[0].proxy(), name)));
    });
    // A process whose threads are traced does not end.
    drop(frozen);
    drop(cluster);
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn bpf_file_system_unmounted() {
    // The kernel lets go of a link a moment after its last name.
    let cluster = measure("unmounted", Duration::from_millis(200), |cluster| {
        let node = &cluster.nodes[0];
        beside_proxy(node, &["umount", node.bpffs().to_str().unwrap()]);
    });
    says_why(&cluster.nodes[0]);
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn pins_removed_by_hand() {
    let cluster = measure("pins-removed", Duration::from_millis(200), |cluster| {
        let node = &cluster.nodes[0];
        beside_proxy(node, &["rm", "-r", node.bpffs().join("mvproxy").to_str().unwrap()]);
    });
    says_why(&cluster.nodes[0]);
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn mode_word_written_with_bpftool() {
    let write = |node: &Node, mode: &str| {
        let map = node.bpffs().join("mvproxy/STEER_MODE");
        let update = ["bpftool", "map", "update", "pinned", map.to_str().unwrap()];
        let word = ["key", "0", "0", "0", "0", "value", mode, "0", "0", "0"];
        beside_proxy(node, &[&update[..], &word[..]].concat());
    };
    let cluster = measure("mode-word", Duration::ZERO, |cluster| write(&cluster.nodes[0], "0"));
    let [own, kubelet, elsewhere] = places(&cluster);
    write(&cluster.nodes[0], "1");
    for place in [&own, &kubelet, &elsewhere] {
        assert_eq!(ask(place).outcome, Ok(PROXIED), "{}", place.name);
    }
    write(&cluster.nodes[0], "7");
    assert_eq!(ask(&elsewhere).outcome, Ok(STRAIGHT), "what is no mode means pass");
}

/// A memory cgroup, of version 1 or 2, gone on drop.
struct MemoryLimit {
    dir: PathBuf,
    limit: &'static str,
    events: &'static str,
}

/// What the proxy may allocate from the moment on at which the limit is imposed.
const LIMIT: &str = "1048576";

impl MemoryLimit {
    fn new() -> Self {
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let name = format!("mvp-{}", std::process::id());
        let found = if v1.join("memory.limit_in_bytes").exists() {
            Self { dir: v1.join(name), limit: "memory.limit_in_bytes", events: "memory.oom_control" }
        } else {
            let root = Path::new("/sys/fs/cgroup");
            std::fs::write(root.join("cgroup.subtree_control"), "+memory")
                .expect("cgroup2 has memory limits");
            Self { dir: root.join(name), limit: "memory.max", events: "memory.events" }
        };
        std::fs::create_dir(&found.dir).unwrap();
        found
    }

    fn impose_on(&self, node: &Node) {
        std::fs::write(self.dir.join(self.limit), LIMIT).unwrap();
        std::fs::write(self.dir.join("cgroup.procs"), node.proxy().id().to_string()).unwrap();
    }

    /// Processes that the kernel killed for it.
    fn kills(&self) -> u64 {
        let events = std::fs::read_to_string(self.dir.join(self.events)).unwrap();
        let count = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.expect("this kernel counts them").parse().expect("a number")
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir(&self.dir) {
            eprintln!("left behind: {}: {error}", self.dir.display());
        }
    }
}
