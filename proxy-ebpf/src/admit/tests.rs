use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::Ipv4Addr;

use mvproxy_common::{CLASS_NAMES, SourceKey};

use super::*;
use crate::frames::{self, ACK, Bytes, CLIENT_V4, NODE_V4, PORT};
use crate::packet::Plain;

const SECOND: u64 = 1_000_000_000;
const PEER: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 3);
const LISTED: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 4);

/// An interface, what the maps say, and what was counted.
struct Interface {
    config: Option<XdpConfig>,
    now: Cell<u64>,
    frame: RefCell<Vec<u8>>,
    budgets: RefCell<HashMap<SourceKey, SynBudget>>,
    classes: RefCell<[XdpStats; 4]>,
    peers: RefCell<HashMap<SourceKey, XdpStats>>,
}

fn address(ip: Ipv4Addr) -> Address {
    Address::v4(u32::from_ne_bytes(ip.octets()))
}

impl Interface {
    fn new(per_second: u64) -> Self {
        let config = XdpConfig {
            port: PORT,
            pad: [0; 6],
            syn_interval_ns: SECOND.checked_div(per_second).unwrap_or(0),
            budget_until_ns: 100 * SECOND,
        };
        Self {
            config: Some(config),
            now: Cell::new(10 * SECOND),
            frame: RefCell::default(),
            budgets: RefCell::default(),
            classes: RefCell::default(),
            peers: RefCell::default(),
        }
    }

    fn receive(&self, frame: Vec<u8>) -> Action {
        self.frame.replace(frame);
        admit(self)
    }

    fn syn(&self, source: Ipv4Addr) -> Action {
        self.receive(frames::syn_from(source))
    }

    fn class(&self, name: &str) -> XdpStats {
        let index = CLASS_NAMES.iter().position(|class| *class == name).expect("a class");
        self.classes.borrow()[index]
    }

    /// How many of so many SYNs come through.
    fn admitted(&self, source: Ipv4Addr, attempts: usize) -> usize {
        (0..attempts).filter(|_| self.syn(source) == Action::Pass).count()
    }

    fn wait(&self, nanoseconds: u64) {
        self.now.set(self.now.get() + nanoseconds);
    }
}

impl Packet for Interface {
    fn read<T: Plain>(&self, offset: u32) -> Option<T> {
        Bytes(&self.frame.borrow()).read(offset)
    }
}

impl Wire for Interface {
    fn length(&self) -> u64 {
        self.frame.borrow().len() as u64
    }
    fn config(&self) -> Option<&XdpConfig> {
        self.config.as_ref()
    }
    fn roles(&self, found: Address) -> u32 {
        if found == address(NODE_V4) {
            ROLE_NODE
        } else if found == address(PEER) {
            ROLE_PEER
        } else {
            0
        }
    }
    fn is_listed(&self, source: Address) -> bool {
        source == address(LISTED)
    }
    fn now(&self) -> u64 {
        self.now.get()
    }
    fn budget<R>(&self, source: Address, using: impl FnOnce(&mut SynBudget) -> R) -> Option<R> {
        self.budgets.borrow_mut().get_mut(&source.source_key()).map(using)
    }
    fn open_budget(&self, source: Address, budget: &SynBudget) {
        self.budgets.borrow_mut().insert(source.source_key(), *budget);
    }
    fn count(&self, class: u32, more: &XdpStats) {
        self.classes.borrow_mut()[class as usize].add(more);
    }
    fn count_peer(&self, peer: Address, more: &XdpStats) {
        self.peers.borrow_mut().entry(peer.source_key()).or_default().add(more);
    }
}

#[test]
fn sources_are_counted_by_class_and_peers_by_address() {
    let interface = Interface::new(0);
    let length = frames::syn_v4().len() as u64;
    for (source, class) in [
        (CLIENT_V4, "other"),
        (PEER, "peer"),
        (LISTED, "listed"),
        (NODE_V4, "node"),
        (Ipv4Addr::new(127, 64, 43, 1), "node"),
    ] {
        let before = interface.class(class);
        assert_eq!(interface.syn(source), Action::Pass);
        let mut expected = XdpStats { packets: 1, bytes: length, syns: 1, dropped: 0 };
        expected.add(&before);
        assert_eq!(interface.class(class), expected, "{source}");
    }
    let peers: Vec<_> = interface.peers.borrow().iter().map(|(key, stats)| (*key, stats.syns)).collect();
    assert_eq!(peers, [(address(PEER).source_key(), 1)]);
}

#[test]
fn what_is_not_for_this_api_server_is_not_counted() {
    let interface = Interface::new(1);
    for case in frames::cases().into_iter().filter(|case| case.is_syn.is_none()) {
        assert_eq!(interface.receive(case.frame), Action::Pass, "{}", case.name);
    }
    assert_eq!(*interface.classes.borrow(), [XdpStats::default(); 4]);
    let unset = Interface { config: None, ..Interface::new(1) };
    assert_eq!(unset.admitted(CLIENT_V4, 5), 5);
}

#[test]
fn a_budget_is_spent_at_once_or_over_time_and_never_exceeded() {
    for rate in [1, 3, 10, 1000] {
        let interface = Interface::new(rate);
        let count = usize::try_from(rate).expect("a small number");
        assert_eq!(interface.admitted(CLIENT_V4, 3 * count), count, "at once, of {rate}");
        interface.wait(SECOND / rate);
        assert_eq!(interface.admitted(CLIENT_V4, 5), 1, "what came back, of {rate}");
        interface.wait(60 * SECOND);
        assert_eq!(interface.admitted(CLIENT_V4, 3 * count), count, "no more is saved up, of {rate}");
        let stats = interface.class("other");
        assert_eq!((stats.syns, stats.dropped), (6 * rate + 5, 4 * rate + 4), "{rate}");
    }
}

#[test]
fn a_flood_costs_nobody_else_and_itself_only_while_it_lasts() {
    let interface = Interface::new(10);
    assert_eq!(interface.admitted(CLIENT_V4, 10_000), 10);
    for other in [Ipv4Addr::new(10, 80, 0, 9), LISTED] {
        assert_eq!(interface.admitted(other, 12), 10, "{other} has a budget of its own");
    }
    for free in [PEER, NODE_V4] {
        assert_eq!(interface.admitted(free, 1000), 1000, "{free} needs none");
    }
    interface.wait(SECOND / 10);
    assert_eq!(interface.syn(CLIENT_V4), Action::Pass, "dropped attempts cost nothing");
}

#[test]
fn only_attempts_to_connect_are_dropped() {
    let interface = Interface::new(1);
    assert_eq!(interface.admitted(CLIENT_V4, 5), 1);
    let data = frames::ethernet(&[], 0x0800, &frames::ipv4(&[], 0, &frames::tcp(ACK)));
    assert_eq!(interface.receive(data), Action::Pass);
}

#[test]
fn a_budget_ends_with_the_proxy() {
    let interface = Interface::new(1);
    assert_eq!(interface.admitted(CLIENT_V4, 5), 1);
    interface.now.set(100 * SECOND);
    assert_eq!(interface.admitted(CLIENT_V4, 5), 5);
}
