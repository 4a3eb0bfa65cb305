use std::cell::{Cell, RefCell};

use mvproxy_common::{MODE_PASS, SOURCES_LISTED};

use super::*;

const NOW: u64 = 100_000_000_000;
const STALE_AFTER: u64 = 1_000_000_000;
const PORT: u16 = 6443;
const LANE: u16 = 700;

/// A worker as the maps know it.
#[derive(Clone, Copy)]
struct Slot {
    listens: bool,
    beat: Option<u64>,
    fits: bool,
}

const LIVE: Slot = Slot { listens: true, beat: Some(NOW), fits: true };
const GONE: Slot = Slot { listens: false, ..LIVE };
const HUNG: Slot = Slot { beat: Some(NOW - STALE_AFTER), ..LIVE };
const UNFIT: Slot = Slot { fits: false, ..LIVE };

/// A listener that tells when it is given back.
struct Socket<'a>(u32, &'a Cell<u32>);

impl Drop for Socket<'_> {
    fn drop(&mut self) {
        self.1.set(self.1.get() - 1);
    }
}

/// A kernel with one client's packet.
struct Kernel {
    is_tcp: bool,
    port: u16,
    source: Address,
    source_port: u16,
    mode: Option<u32>,
    config: Option<SteerConfig>,
    exempt: Option<Address>,
    peer: Option<Address>,
    listed: Option<Address>,
    slots: Vec<Slot>,
    /// Listeners in use.
    held: Cell<u32>,
    assigned: RefCell<Vec<u32>>,
}

fn client(last: u8) -> Address {
    Address::v4(u32::from_ne_bytes([10, 0, 0, last]))
}

impl Kernel {
    fn new(slots: &[Slot]) -> Self {
        let config = SteerConfig {
            abi_version: ABI_VERSION,
            workers: u32::try_from(slots.len()).unwrap(),
            stale_after_ns: STALE_AFTER,
            sources: SOURCES_ALL,
            percent: 100,
            lane_first: LANE,
            lane_last: LANE + 1,
            pad: 0,
        };
        Self {
            is_tcp: true,
            port: PORT,
            source: client(1),
            source_port: 40_000,
            mode: Some(MODE_STEER),
            config: Some(config),
            exempt: None,
            peer: None,
            listed: None,
            slots: slots.to_vec(),
            held: Cell::new(0),
            assigned: RefCell::default(),
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn config(&mut self) -> &mut SteerConfig {
        self.config.as_mut().unwrap()
    }

    /// The verdict; checks that listeners are given back, and that one is assigned when the verdict says so.
    fn verdict(&self) -> Verdict {
        let verdict = decide(self);
        assert_eq!(self.held.get(), 0, "a listener is leaked");
        let assigned = self.assigned.borrow().len();
        assert_eq!(assigned, usize::from(matches!(verdict, Verdict::Steered { .. })), "{verdict:?}");
        verdict
    }
}

// The held sockets borrow from the kernel, so the trait is implemented for a reference to it.
impl<'a> Lookup for &'a Kernel {
    type Socket = Socket<'a>;

    fn is_tcp(&self) -> bool {
        self.is_tcp
    }
    fn local_port(&self) -> u16 {
        self.port
    }
    fn source(&self) -> Address {
        self.source
    }
    fn source_port_be(&self) -> u16 {
        self.source_port.to_be()
    }
    fn is_steered(&self, port: u16) -> bool {
        port == PORT
    }
    fn is_exempt(&self, source: Address) -> bool {
        self.exempt == Some(source)
    }
    fn mode(&self) -> Option<u32> {
        self.mode
    }
    fn config(&self) -> Option<&SteerConfig> {
        self.config.as_ref()
    }
    fn is_peer(&self, source: Address) -> bool {
        self.peer == Some(source)
    }
    fn is_listed(&self, source: Address) -> bool {
        self.listed == Some(source)
    }
    fn listener(&self, worker: u32) -> Option<Socket<'a>> {
        let slot = self.slots.get(worker as usize)?;
        slot.listens.then(|| {
            self.held.set(self.held.get() + 1);
            Socket(worker, &self.held)
        })
    }
    fn heartbeat(&self, worker: u32) -> Option<u64> {
        self.slots[worker as usize].beat
    }
    fn now(&self) -> u64 {
        NOW
    }
    fn assign(&self, listener: &Socket<'a>) -> bool {
        let fits = self.slots[listener.0 as usize].fits;
        if fits {
            self.assigned.borrow_mut().push(listener.0);
        }
        fits
    }
}

fn decide(kernel: &Kernel) -> Verdict {
    super::decide(&kernel)
}

#[test]
fn every_reason_to_pass_is_told_from_the_others() {
    let usual = || Kernel::new(&[LIVE, LIVE]);
    let at_percent = |percent| usual().with(|kernel| kernel.config().percent = percent).verdict();
    for (what, kernel, expected) in [
        ("a steered client", usual(), Verdict::Steered { taken_over: false }),
        ("UDP", usual().with(|it| it.is_tcp = false), Verdict::OtherPort),
        ("another port", usual().with(|it| it.port = 443), Verdict::OtherPort),
        ("the proxy itself", usual().with(|it| it.exempt = Some(client(1))), Verdict::Exempt),
        ("the switch", usual().with(|it| it.mode = Some(MODE_PASS)), Verdict::ModePass),
        ("an unknown switch", usual().with(|it| it.mode = Some(7)), Verdict::ModePass),
        ("no switch", usual().with(|it| it.mode = None), Verdict::ModePass),
        ("no parameters", usual().with(|it| it.config = None), Verdict::OtherAbi),
        ("another layout", usual().with(|it| it.config().abi_version += 1), Verdict::OtherAbi),
        ("a new map", usual().with(|it| it.config().abi_version = 0), Verdict::OtherAbi),
        ("no workers", usual().with(|it| it.config().workers = 0), Verdict::NoListener),
    ] {
        assert_eq!(kernel.verdict(), expected, "{what}");
    }
    assert_eq!((at_percent(0), at_percent(100)), (Verdict::Canary, Verdict::Steered { taken_over: false }));
}

#[test]
fn the_proxy_itself_passes_whatever_the_switch_says() {
    let kernel = Kernel::new(&[LIVE]).with(|it| (it.exempt, it.mode) = (Some(client(1)), None));
    assert_eq!(kernel.verdict(), Verdict::Exempt);
}

#[test]
fn the_lane_takes_a_peer_and_a_port_of_its_range() {
    for (peer, port, expected) in [
        (Some(client(1)), LANE, Verdict::Lane),
        (Some(client(1)), LANE + 1, Verdict::Lane),
        (Some(client(1)), LANE - 1, Verdict::Steered { taken_over: false }),
        (Some(client(1)), LANE + 2, Verdict::Steered { taken_over: false }),
        // 700 in the other byte order.
        (Some(client(1)), LANE.swap_bytes(), Verdict::Steered { taken_over: false }),
        (Some(client(2)), LANE, Verdict::Steered { taken_over: false }),
        (None, LANE, Verdict::Steered { taken_over: false }),
    ] {
        let kernel = Kernel::new(&[LIVE]).with(|it| (it.peer, it.source_port) = (peer, port));
        assert_eq!(kernel.verdict(), expected, "{peer:?} from port {port}");
    }
    let off = Kernel::new(&[LIVE]).with(|it| {
        (it.peer, it.source_port) = (Some(client(1)), LANE);
        (it.config().lane_first, it.config().lane_last) = (0, 0);
    });
    assert_eq!(off.verdict(), Verdict::Steered { taken_over: false });
}

#[test]
fn a_canary_is_listed_and_of_the_percentage() {
    let listed = |address| {
        Kernel::new(&[LIVE]).with(|it| {
            it.config().sources = SOURCES_LISTED;
            it.listed = address;
        })
    };
    assert_eq!(listed(None).verdict(), Verdict::Canary);
    assert_eq!(listed(Some(client(2))).verdict(), Verdict::Canary);
    assert_eq!(listed(Some(client(1))).verdict(), Verdict::Steered { taken_over: false });
    assert_eq!(listed(Some(client(1))).with(|it| it.config().percent = 0).verdict(), Verdict::Canary);

    for percent in [1, 30, 99] {
        for last in 0..=255 {
            let kernel = |port| {
                Kernel::new(&[LIVE]).with(|it| {
                    it.config().percent = percent;
                    (it.source, it.source_port) = (client(last), port);
                })
            };
            let expected = if spread(0, client(last).words) % 100 < percent {
                Verdict::Steered { taken_over: false }
            } else {
                Verdict::Canary
            };
            assert_eq!(kernel(40_000).verdict(), expected);
            assert_eq!(kernel(50_000).verdict(), expected, "whatever the port");
        }
    }
}

#[test]
fn dead_workers_are_passed_over_and_the_last_reason_counts() {
    for (slots, expected) in [
        (&[GONE][..], Verdict::NoListener),
        (&[HUNG], Verdict::Stale),
        (&[UNFIT], Verdict::Refused),
        (&[GONE, GONE, GONE], Verdict::NoListener),
        (&[GONE, HUNG, GONE], Verdict::Stale),
        (&[Slot { beat: None, ..LIVE }], Verdict::Stale),
        (&[Slot { beat: Some(0), ..LIVE }], Verdict::Stale),
        // One that beat after the clock was read, and one just in time.
        (&[Slot { beat: Some(NOW + 5), ..LIVE }], Verdict::Steered { taken_over: false }),
        (&[Slot { beat: Some(NOW - STALE_AFTER + 1), ..LIVE }], Verdict::Steered { taken_over: false }),
    ] {
        let found = Kernel::new(slots).verdict();
        assert_eq!(found, expected);
    }
}

#[test]
fn one_live_worker_of_sixteen_gets_every_client() {
    for alive in 0..16 {
        let mut slots = [HUNG; 16];
        slots[alive] = LIVE;
        let mut first = 0;
        for port in 0..64 {
            let kernel = Kernel::new(&slots).with(|it| it.source_port = 40_000 + port);
            match kernel.verdict() {
                Verdict::Steered { taken_over } => first += u32::from(!taken_over),
                other => panic!("{other:?}"),
            }
            assert_eq!(*kernel.assigned.borrow(), [u32::try_from(alive).unwrap()]);
        }
        assert!(first < 16, "{first} of 64 had it as their first choice");
    }
}

#[test]
fn clients_spread_over_all_workers() {
    let mut counts = [0; 4];
    for port in 0..4000 {
        let kernel = Kernel::new(&[LIVE; 4]).with(|it| it.source_port = 30_000 + port);
        assert_eq!(kernel.verdict(), Verdict::Steered { taken_over: false });
        counts[kernel.assigned.borrow()[0] as usize] += 1;
    }
    assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
}

#[test]
fn each_verdict_is_counted_once_and_some_are_told_once_a_second() {
    let mut stats = SteerStats::default();
    let told = RefCell::new(Vec::new());
    let mut see = |verdict: Verdict, now: u64| {
        let before = stats.decisions();
        account(&mut stats, &verdict, || now, |told_of| told.borrow_mut().push(format!("{told_of:?} {now}")));
        let changed: Vec<_> = before
            .iter()
            .zip(stats.decisions())
            .filter(|((_, old), (_, new))| old != new)
            .map(|((name, old), (_, new))| (*name, new - old))
            .collect();
        assert!(matches!(changed[..], [(_, 1)]), "{verdict:?}: {changed:?}");
        changed[0].0
    };
    for (verdict, name) in [
        (Verdict::Steered { taken_over: false }, "steered"),
        (Verdict::Steered { taken_over: true }, "steered"),
        (Verdict::OtherPort, "other_port"),
        (Verdict::Exempt, "exempt"),
        (Verdict::ModePass, "mode_pass"),
        (Verdict::Lane, "lane"),
        (Verdict::Canary, "canary"),
        (Verdict::NoListener, "no_listener"),
    ] {
        assert_eq!(see(verdict, NOW), name);
    }
    assert_eq!(see(Verdict::Stale, NOW), "stale");
    assert_eq!(see(Verdict::Refused, NOW + 999_999_999), "refused");
    assert_eq!(see(Verdict::OtherAbi, NOW + 1_000_000_000), "other_abi");
    assert_eq!(*told.borrow(), [format!("Stale {NOW}"), format!("OtherAbi {}", NOW + 1_000_000_000)]);
    assert_eq!(stats.taken_over, 1);
}
