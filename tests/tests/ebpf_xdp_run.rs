//! Has the kernel run the program for interfaces on frames of every kind, whole, cut short and mutated (`BPF_PROG_TEST_RUN`).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr};

use aya::maps::{Array, HashMap, PerCpuArray, PerCpuHashMap, PerCpuValues};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use aya::util::nr_cpus;
use aya::{Ebpf, EbpfLoader};
use mvproxy::steering::xdp::object;
use mvproxy_common::{
    CLASS_NODE, CLASS_OTHER, CLASS_PEER, ROLE_NODE, ROLE_PEER, SourceKey, XDP_CLASSES, XdpConfig, XdpStats,
    v4_mapped,
};
use mvproxy_ebpf::address::Address;
use mvproxy_ebpf::frames::{self, Bytes, CLIENT_V4, NODE_V4, NODE_V6, PORT, cases};
use mvproxy_ebpf::packet::parse;

/// `XDP_DROP` and `XDP_PASS` of linux/bpf.h.
const DROP: u32 = 1;
const PASS: u32 = 2;
const PEER: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 3);
/// The kernel runs programs on frames that have a whole Ethernet header.
const SHORTEST: usize = 14;
const FOREVER: u64 = u64::MAX;

/// The program, with maps of its own.
struct Loaded(Ebpf);

impl Loaded {
    fn new() -> Self {
        let object = object().expect("cargo xtask build-ebpf");
        let mut loaded = Self(EbpfLoader::new().load(object).unwrap());
        loaded.program().load().unwrap();
        let addresses = [
            (IpAddr::V4(NODE_V4), ROLE_NODE),
            (IpAddr::V6(NODE_V6), ROLE_NODE),
            (IpAddr::V4(PEER), ROLE_PEER),
        ];
        let mut map: HashMap<_, SourceKey, u32> =
            loaded.0.map_mut("XDP_ADDRESSES").unwrap().try_into().unwrap();
        for (address, role) in addresses {
            map.insert(key(address), role, 0).unwrap();
        }
        let zero = PerCpuValues::try_from(vec![XdpStats::default(); nr_cpus().unwrap()]).unwrap();
        let mut peers: PerCpuHashMap<_, SourceKey, XdpStats> =
            loaded.0.map_mut("XDP_PEERS").unwrap().try_into().unwrap();
        peers.insert(key(PEER.into()), zero, 0).unwrap();
        loaded.configure(0, 0);
        loaded
    }

    fn program(&mut self) -> &mut Xdp {
        self.0.program_mut("peer_xdp").unwrap().try_into().unwrap()
    }

    fn configure(&mut self, syn_interval_ns: u64, budget_until_ns: u64) {
        let config = XdpConfig { port: PORT, pad: [0; 6], syn_interval_ns, budget_until_ns };
        let mut map: Array<_, XdpConfig> = self.0.map_mut("XDP_CONFIG").unwrap().try_into().unwrap();
        map.set(0, config, 0).unwrap();
    }

    /// What the program says to a frame.
    fn verdict(&mut self, frame: &[u8]) -> u32 {
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::new() };
        self.program().test_run(options).unwrap().return_value
    }

    /// Mean time that one run takes, in nanoseconds.
    fn nanoseconds(&mut self, frame: &[u8]) -> u128 {
        let options = TestRunOptions { data_in: Some(frame), repeat: 200_000, ..TestRunOptions::new() };
        self.program().test_run(options).unwrap().duration.as_nanos()
    }

    fn class(&self, class: u32) -> XdpStats {
        let map: PerCpuArray<_, XdpStats> = self.0.map("XDP_STATS").unwrap().try_into().unwrap();
        sum(&map.get(&class, 0).unwrap())
    }

    fn all(&self) -> XdpStats {
        let mut all = XdpStats::default();
        (0..XDP_CLASSES).for_each(|class| all.add(&self.class(class)));
        all
    }

    fn peer(&self) -> XdpStats {
        let map: PerCpuHashMap<_, SourceKey, XdpStats> = self.0.map("XDP_PEERS").unwrap().try_into().unwrap();
        sum(&map.get(&key(PEER.into()), 0).unwrap())
    }
}

fn key(address: IpAddr) -> SourceKey {
    let addr = match address {
        IpAddr::V4(ip) => v4_mapped(ip.octets()),
        IpAddr::V6(ip) => ip.octets(),
    };
    SourceKey { addr }
}

fn sum(per_cpu: &PerCpuValues<XdpStats>) -> XdpStats {
    let mut sum = XdpStats::default();
    per_cpu.iter().for_each(|stats| sum.add(stats));
    sum
}

/// What the parser, run here, finds that is to be counted: whether it is a SYN.
fn expected(frame: &[u8]) -> Option<bool> {
    let segment = parse(&Bytes(frame)).filter(|segment| segment.port == PORT)?;
    let is_own = |address: Address| {
        let found = address.source_key();
        [key(NODE_V4.into()), key(NODE_V6.into())].contains(&found) || address.is_loopback()
    };
    is_own(segment.destination).then_some(segment.is_syn)
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn every_kind_of_frame_passes_and_is_counted_as_what_it_is() {
    let mut loaded = Loaded::new();
    for case in cases() {
        let before = loaded.class(CLASS_OTHER);
        assert_eq!(loaded.verdict(&case.frame), PASS, "{}", case.name);
        let mut want = match case.is_syn {
            Some(is_syn) => {
                XdpStats { packets: 1, bytes: case.frame.len() as u64, syns: u64::from(is_syn), dropped: 0 }
            }
            None => XdpStats::default(),
        };
        want.add(&before);
        assert_eq!(loaded.class(CLASS_OTHER), want, "{}", case.name);
    }
    assert_eq!(loaded.all(), loaded.class(CLASS_OTHER), "all came from a stranger");

    loaded.configure(1, FOREVER);
    for name in ["ARP", "UDP", "ACK over IPv4", "ACK over IPv6", "SYN over IPv4"] {
        let case = cases().into_iter().find(|case| case.name == name).unwrap();
        println!("{name}: {} ns", loaded.nanoseconds(&case.frame));
    }
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn frames_cut_off_anywhere_pass_and_nothing_is_read_beyond_them() {
    let mut loaded = Loaded::new();
    let mut runs = 0;
    for case in cases() {
        // Of the long one, the payload tells nothing new.
        for length in SHORTEST..case.frame.len().min(200) {
            let (frame, before) = (&case.frame[..length], loaded.all());
            assert_eq!(loaded.verdict(frame), PASS, "{} cut to {length}", case.name);
            let counted = loaded.all().packets - before.packets;
            assert_eq!(counted, u64::from(expected(frame).is_some()), "{} cut to {length}", case.name);
            runs += 1;
        }
    }
    println!("{runs} frames cut off");
    assert!(runs > 2000);
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn mutated_frames_pass_unless_they_are_attempts_beyond_the_budget() {
    const FRAMES: usize = 5000;
    let mut loaded = Loaded::new();
    let mut want = XdpStats::default();
    for frame in frames::mutations(FRAMES) {
        assert_eq!(loaded.verdict(&frame), PASS, "{frame:02x?}");
        if let Some(is_syn) = expected(&frame) {
            let bytes = frame.len() as u64;
            want.add(&XdpStats { packets: 1, bytes, syns: u64::from(is_syn), dropped: 0 });
        }
    }
    assert_eq!(loaded.all(), want, "the kernel finds what is found here");
    println!("of {FRAMES} mutated frames {} have a segment to the API server", want.packets);
    assert!(want.packets > 500);

    // With nothing left of any budget, still only attempts to connect are dropped.
    loaded.configure(1_000_000_000, FOREVER);
    let mut dropped = 0;
    for frame in frames::mutations(FRAMES) {
        match loaded.verdict(&frame) {
            DROP => {
                assert_eq!(expected(&frame), Some(true), "{frame:02x?}");
                dropped += 1;
            }
            verdict => assert_eq!(verdict, PASS),
        }
    }
    assert_eq!(loaded.all().dropped, dropped);
    assert!(dropped > 100, "{dropped}");
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn a_budget_holds_for_strangers_and_for_nobody_else() {
    const RATE: u64 = 2;
    let mut loaded = Loaded::new();
    loaded.configure(1_000_000_000 / RATE, FOREVER);
    let mut admitted = |source: Ipv4Addr, attempts: usize| {
        let frame = frames::syn_from(source);
        (0..attempts).filter(|_| loaded.verdict(&frame) == PASS).count()
    };
    let other = Ipv4Addr::new(10, 80, 0, 77);
    assert_eq!(admitted(CLIENT_V4, 20), 2, "at once");
    assert_eq!(admitted(other, 20), 2, "each has one of its own");
    assert_eq!(admitted(PEER, 50), 50);
    assert_eq!(admitted(NODE_V4, 50), 50);
    assert_eq!(admitted(Ipv4Addr::LOCALHOST, 50), 50);
    assert_eq!((loaded.class(CLASS_OTHER).dropped, loaded.class(CLASS_OTHER).syns), (36, 40));
    assert_eq!((loaded.class(CLASS_PEER), loaded.peer().syns), (loaded.peer(), 50));
    assert_eq!(loaded.class(CLASS_NODE).syns, 100);
    let data = frames::ethernet(&[], 0x0800, &frames::ipv4(&[], 0, &frames::tcp(frames::ACK)));
    assert_eq!(loaded.verdict(&data), PASS, "a connection that is there goes on");

    // The proxy is gone.
    loaded.configure(1_000_000_000 / RATE, 1);
    let frame = frames::syn_from(CLIENT_V4);
    assert!((0..20).all(|_| loaded.verdict(&frame) == PASS));
}
