//! What the kernel's programs cost each new connection: `cargo bench -p mvproxy-tests --bench kernel`, as root.
//!
//! All cases take turns, so that what else the machine does falls on each of them. A connection is made on loopback,
//! accepted and reset; its cost is the CPU time of this process, both sides together, which is far less than the TLS
//! handshake that follows in real life. The program's own time comes from the kernel (`BPF_STATS_RUN_TIME`).
#![allow(clippy::unwrap_used, reason = "a benchmark ends by panicking")]

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Duration;

use aya::programs::loaded_programs;
use aya::sys::{Stats, enable_stats};
use mvproxy::accept::listen;
use mvproxy::steering::{Canary, LanePorts, Steering, SteeringOptions, XdpOptions, own_cgroup2, uninstall};
use mvproxy_tests::netns::{BpfFs, Netns};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use socket2::{Domain, Socket, Type};

const ROUNDS: usize = 11;
const CONNECTIONS: u32 = 2_000;
const SECURE_PORT: u16 = 6443;
const OTHER_PORT: u16 = 7443;
const EXEMPT: Ipv4Addr = Ipv4Addr::new(127, 64, 43, 1);

/// What is attached, and what connects.
struct Case {
    name: &'static str,
    attached: bool,
    steers: bool,
    /// Whether connections of this process are counted as the proxy's.
    counts: bool,
    from: Ipv4Addr,
    port: u16,
}

const CASES: [Case; 7] = [
    case("nothing attached", SECURE_PORT),
    Case { name: "nothing attached, again", ..case("", SECURE_PORT) },
    Case { name: "another port", attached: true, steers: true, ..case("", OTHER_PORT) },
    Case { name: "at rest (mode word)", attached: true, ..case("", SECURE_PORT) },
    Case { name: "exempt source", attached: true, steers: true, from: EXEMPT, ..case("", SECURE_PORT) },
    Case { name: "steered", attached: true, steers: true, ..case("", SECURE_PORT) },
    Case {
        name: "steered, peer_ops counts it",
        attached: true,
        steers: true,
        counts: true,
        ..case("", SECURE_PORT)
    },
];

const fn case(name: &'static str, port: u16) -> Case {
    Case { name, attached: false, steers: false, counts: false, from: Ipv4Addr::LOCALHOST, port }
}

/// One round of a case, for each connection.
struct Sample {
    cpu_ns: f64,
    /// Of each program.
    own_ns: [f64; 2],
}

const PROGRAMS: [&str; 2] = ["steer_listener", "count_sock_ops"];

fn main() {
    // Anything else is asked of test binaries by `cargo test --benches`.
    if !std::env::args().any(|argument| argument == "--bench") {
        return println!("kernel: measured by cargo bench only");
    }
    let _stats = enable_stats(Stats::RunTime).expect("CAP_SYS_ADMIN: run it as root");
    let samples = Netns::new("bench").unwrap().run(measure);
    print(&samples);
}

fn measure() -> Vec<Vec<Sample>> {
    let bpffs = BpfFs::mount().unwrap();
    for port in [SECURE_PORT, OTHER_PORT] {
        accept_all(listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), false).unwrap());
    }
    let worker = listen((Ipv4Addr::UNSPECIFIED, 0).into(), false).unwrap();
    accept_all(worker.try_clone().unwrap());
    let mut samples: Vec<Vec<Sample>> = CASES.iter().map(|_| Vec::new()).collect();
    for round in 0..ROUNDS {
        eprintln!("round {} of {ROUNDS}", round + 1);
        // Each round begins with another case.
        for turn in 0..CASES.len() {
            let number = (round + turn) % CASES.len();
            samples[number].push(run(&CASES[number], &worker, &bpffs.path().join("mvproxy")));
        }
    }
    samples
}

fn run(case: &Case, worker: &TcpListener, dir: &Path) -> Sample {
    let steering = case.attached.then(|| {
        let steering = Steering::open(&options(dir, case.counts)).unwrap();
        steering.heartbeat(0).beat();
        steering.register(&[worker.as_fd()]).unwrap();
        steering.set_steering(case.steers).unwrap();
        steering
    });
    let (cpu, programs) = (cpu_time_ns(), PROGRAMS.map(run_time_ns));
    for _ in 0..CONNECTIONS {
        connect(case.from, case.port);
    }
    let cpu_ns = (cpu_time_ns() - cpu) / f64::from(CONNECTIONS);
    let own = PROGRAMS.map(run_time_ns);
    if let Some(stats) = steering.as_ref().and_then(Steering::stats) {
        let expected = case.steers && case.from != EXEMPT && case.port == SECURE_PORT;
        assert_eq!(stats.steered, if expected { CONNECTIONS.into() } else { 0 }, "{}", case.name);
    }
    drop(steering);
    uninstall(dir).unwrap();
    let spent = |number: usize| (own[number] - programs[number]) / f64::from(CONNECTIONS);
    Sample { cpu_ns, own_ns: [spent(0), spent(1)] }
}

fn options(dir: &Path, counts: bool) -> SteeringOptions {
    SteeringOptions {
        bpffs_dir: dir.to_owned(),
        secure_port: SECURE_PORT,
        local_source_ip: EXEMPT.into(),
        // A folder that is none keeps the counting program off.
        cgroup: if counts { Some(own_cgroup2().expect("cgroup2 is mounted")) } else { Some("/proc".into()) },
        stale_after: Duration::from_hours(1),
        canary: Canary::default(),
        lane: Some(LanePorts::DEFAULT),
        workers: 1,
        xdp: XdpOptions::default(),
    }
}

/// Resets what it accepts.
fn accept_all(listener: TcpListener) {
    listener.set_nonblocking(false).unwrap();
    std::thread::spawn(move || listener.incoming().for_each(drop));
}

fn connect(from: Ipv4Addr, port: u16) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    // No TIME_WAIT, of which there is not room for so many.
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).unwrap();
}

fn cpu_time_ns() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let micros = |part: TimeVal| u32::try_from(part.tv_sec() * 1_000_000 + part.tv_usec()).unwrap();
    f64::from(micros(usage.user_time()) + micros(usage.system_time())) * 1e3
}

/// Time of all programs of this name, which live until they are uninstalled.
fn run_time_ns(name: &str) -> f64 {
    let programs = loaded_programs().filter_map(Result::ok);
    let named = programs.filter(|program| program.name_as_str() == Some(name));
    named.map(|program| program.run_time().as_secs_f64() * 1e9).sum()
}

fn print(samples: &[Vec<Sample>]) {
    let cpu = |samples: &Vec<Sample>| median(samples.iter().map(|sample| sample.cpu_ns));
    let base = cpu(&samples[0]);
    println!("{CONNECTIONS} connections a round, {ROUNDS} rounds, medians; ns for each connection");
    println!(
        "{:<30} {:>9} {:>7} {:>20} {:>16} {:>16}",
        "", "CPU ns", "ratio", "lowest to highest", PROGRAMS[0], PROGRAMS[1]
    );
    for (case, samples) in CASES.iter().zip(samples) {
        let spread = |pick: fn(f64, f64) -> f64, start| {
            samples.iter().map(|sample| sample.cpu_ns / base).fold(start, pick)
        };
        println!(
            "{:<30} {:>9.0} {:>7.3} {:>20} {:>16.0} {:>16.0}",
            case.name,
            cpu(samples),
            cpu(samples) / base,
            format!("{:.3} to {:.3}", spread(f64::min, f64::MAX), spread(f64::max, 0.0)),
            median(samples.iter().map(|sample| sample.own_ns[0])),
            median(samples.iter().map(|sample| sample.own_ns[1])),
        );
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
