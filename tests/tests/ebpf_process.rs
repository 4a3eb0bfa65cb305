//! Kills, stops and constrains a worker process and looks at who answers next.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ebpf_support;

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use ebpf_support::{
    PATIENT, SECURE_PORT, STALE_AFTER, Server, any_v4, ask, eventually, loopback, open, options,
};
use mvproxy::steering::{PeerOps, Steering, SteeringError, SteeringOptions, Xdp, XdpOptions};
use mvproxy_tests::netns::{BpfFs, Netns};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Tells this binary, started by itself, to be the process under test.
const FOLDER: &str = "MVPROXY_TEST_BPFFS";
/// Tells it on which interface to count.
const WIRE: &str = "MVPROXY_TEST_XDP";
/// Tells it from how many milliseconds its heartbeat is stale.
const STALE_MS: &str = "MVPROXY_TEST_STALE_MS";

/// The process under test; does nothing in an ordinary test run.
#[test]
fn steering_process() {
    let Some(dir) = std::env::var_os(FOLDER) else { return };
    let stale_ms = std::env::var(STALE_MS).expect("set together").parse().expect("a number");
    let interfaces = std::env::var(WIRE).into_iter().collect();
    let options = SteeringOptions {
        stale_after: Duration::from_millis(stale_ms),
        xdp: XdpOptions { interfaces, syn_rate: None },
        ..options(dir.into(), 1)
    };
    let steering = match Steering::open(&options) {
        Ok(steering) => steering,
        Err(error) => return println!("process: refused {error}: {}", one_line(&error)),
    };
    let worker = Server::worker("w0", any_v4(), steering.heartbeat(0));
    steering.register(&[worker.fd()]).expect("a listener can be registered");
    steering.set_steering(true).expect("the mode word can be written");
    let wire = steering.xdp().map(Xdp::state);
    println!("process: steering, {:?}, {wire:?}", steering.state().peer_ops);
    std::thread::sleep(Duration::from_mins(1));
}

/// What caused an error, first and last lines of a verifier log included.
fn one_line(error: &SteeringError) -> String {
    let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    source.lines().collect::<Vec<_>>().join(" / ")
}

/// The process under test, killed on drop.
struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(bpffs_dir: &Path, wrapper: &[&str]) -> Self {
        Self::start_with_limit(bpffs_dir, wrapper, PATIENT)
    }

    fn start_with_limit(bpffs_dir: &Path, wrapper: &[&str], stale_after: Duration) -> Self {
        let own = std::env::current_exe().unwrap();
        let mut line: Vec<_> = wrapper.iter().map(std::ffi::OsStr::new).collect();
        line.push(own.as_os_str());
        let mut child = Command::new(line[0])
            .args(&line[1..])
            .args(["--exact", "steering_process", "--nocapture"])
            .env(FOLDER, bpffs_dir)
            .env(STALE_MS, stale_after.as_millis().to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    /// What it reports about its start.
    fn report(&mut self) -> String {
        let mut lines = self.output.by_ref().lines().map_while(Result::ok);
        // libtest may have written the test's name on the same line.
        lines
            .find_map(|line| line.split_once("process: ").map(|(_, report)| report.to_owned()))
            .expect("the process reports")
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Stops it and returns when all its threads stand still.
    fn stop(&self) {
        self.signal(Signal::SIGSTOP);
        let status = waitpid(self.pid(), Some(WaitPidFlag::WUNTRACED)).unwrap();
        assert!(matches!(status, WaitStatus::Stopped(..)), "{status:?}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        self.child.wait().expect("a killed child can be waited for");
    }
}

fn with_api_server(label: &str, test: impl FnOnce(&BpfFs) + Send) {
    Netns::new(label).unwrap().run(|| {
        let bpffs = BpfFs::mount().unwrap();
        let _api_server = Server::api_server((Ipv6Addr::UNSPECIFIED, SECURE_PORT));
        test(&bpffs);
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn killed_process_leaves_clients_to_the_api_server() {
    with_api_server("kill", |bpffs| {
        let mut process = Process::start(&bpffs.path(), &[]);
        assert!(process.report().starts_with("steering"));
        assert_eq!(ask(loopback()), "w0");
        drop(process);
        assert_eq!(ask(loopback()), "api", "the very next connection");
        assert!(bpffs.path().join("steer_link").exists(), "the program is still attached");

        let mut successor = Process::start(&bpffs.path(), &[]);
        assert!(successor.report().starts_with("steering"));
        assert_eq!(ask(loopback()), "w0", "steered again");
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn stopped_process_leaves_clients_to_the_api_server_within_the_limit() {
    with_api_server("stop", |bpffs| {
        let mut process = Process::start_with_limit(&bpffs.path(), &[], STALE_AFTER);
        assert!(process.report().starts_with("steering"));
        eventually("steered", || ask(loopback()) == "w0");
        process.stop();
        std::thread::sleep(STALE_AFTER);
        // The listener still exists and would take the connection; only the heartbeat tells.
        assert_eq!(ask(loopback()), "api");
        process.signal(Signal::SIGCONT);
        eventually("steered again", || ask(loopback()) == "w0");
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn two_capabilities_are_enough() {
    with_api_server("caps", |bpffs| {
        let on_lo = format!("{WIRE}=lo");
        let wrapper =
            ["setpriv", "--bounding-set=-all,+bpf,+net_admin", "--inh-caps=-all", "env", on_lo.as_str()];
        let mut process = Process::start(&bpffs.path(), &wrapper);
        let report = process.report();
        assert!(report.starts_with("steering, Attached"), "{report}");
        assert!(report.contains("attached: Ok(Generic)"), "XDP on lo: {report}");
        assert_eq!(ask(loopback()), "w0");
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn missing_capabilities_are_named() {
    with_api_server("nocaps", |bpffs| {
        for missing in ["-sys_admin,-bpf", "-sys_admin,-net_admin", "-all"] {
            let bounding = format!("--bounding-set={missing}");
            let mut process = Process::start(&bpffs.path(), &["setpriv", &bounding, "--inh-caps=-all"]);
            let report = process.report();
            assert!(report.starts_with("refused"), "without {missing}: {report}");
            assert!(report.contains("CAP_BPF and CAP_NET_ADMIN"), "without {missing}: {report}");
        }
        assert_eq!(ask(loopback()), "api");
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn missing_bpffs_names_the_mount_command() {
    Netns::new("nobpffs").unwrap().run(|| {
        let dir = tempfile::tempdir().unwrap();
        let error = Steering::open(&options(dir.path().join("mvproxy"), 1)).unwrap_err();
        assert!(matches!(error, SteeringError::NoBpffs { .. }), "{error:?}");
        assert!(error.to_string().contains("mount -t bpf bpf "), "{error}");
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn foreign_cgroup_is_reported_and_steering_works() {
    with_api_server("cgroup", |bpffs| {
        let mut options = options(bpffs.path(), 1);
        options.cgroup = Some("/proc".into());
        let steering = Steering::open(&options).unwrap();
        let PeerOps::NotAttached { reason } = steering.state().peer_ops else {
            panic!("/proc is no cgroup: {:?}", steering.state());
        };
        assert!(reason.starts_with("/proc: "), "{reason}");
        let worker = Server::worker("w0", any_v4(), steering.heartbeat(0));
        steering.register(&[worker.fd()]).unwrap();
        steering.set_steering(true).unwrap();
        assert_eq!(ask(loopback()), "w0");
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn sockets_that_cannot_be_steered_to_are_refused() {
    with_api_server("refuse", |bpffs| {
        let steering = open(&bpffs.path());
        let udp = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let connected = std::net::TcpStream::connect(loopback()).unwrap();
        let pipe = std::io::pipe().unwrap();
        for fd in [
            std::os::fd::AsFd::as_fd(&pipe.0),
            std::os::fd::AsFd::as_fd(&udp),
            std::os::fd::AsFd::as_fd(&connected),
        ] {
            let result = steering.register(&[fd]);
            assert!(matches!(result, Err(SteeringError::Register { worker: 0, .. })), "{result:?}");
        }
        let many = options(bpffs.path().join("many"), 17);
        assert!(matches!(Steering::open(&many), Err(SteeringError::TooManyWorkers { workers: 17 })));
    });
}
