use super::*;

/// `TCP_SYN_SENT`, `TCP_ESTABLISHED` and `TCP_FIN_WAIT2` of the kernel's TCP states.
const SYN_SENT: u32 = 2;
const OPEN: u32 = 1;
const FIN_WAIT: u32 = 5;

/// A connection to a peer, and what is counted for that.
#[derive(Default)]
struct Connection {
    flow: Flow,
    l4: PeerL4,
}

impl Connection {
    fn see(&mut self, op: u32, states: (u32, u32), totals: Totals) {
        match Event::of(op, || states) {
            None => {}
            Some(Event::Connecting) => self.flow.begin(),
            Some(event) => advance(event, &mut self.flow, &mut self.l4, || totals),
        }
    }

    fn connect(&mut self) {
        self.see(CONNECT, (0, 0), Totals::default());
    }

    fn establish(&mut self) {
        self.see(ESTABLISHED, (0, 0), Totals::default());
    }

    fn sample(&mut self, totals: Totals) {
        self.see(RTT, (0, 0), totals);
    }

    fn close(&mut self, from: u32, totals: Totals) {
        self.see(STATE, (from, TCP_CLOSE), totals);
    }
}

fn totals(bytes_in: u64, bytes_out: u64, srtt_us: u64) -> Totals {
    Totals { bytes_in, bytes_out, retransmits: bytes_out / 100, srtt_us }
}

#[test]
fn only_the_way_into_the_closed_state_is_an_end() {
    let never = || panic!("only a change of state has states");
    assert_eq!(Event::of(CONNECT, never), Some(Event::Connecting));
    assert_eq!(Event::of(ESTABLISHED, never), Some(Event::Established));
    assert_eq!(Event::of(RTT, never), Some(Event::Sampled));
    for op in [0, 1, 2, 5, 9, 11, 13, u32::MAX] {
        assert_eq!(Event::of(op, never), None, "{op}");
    }
    for (states, expected) in [
        ((OPEN, TCP_CLOSE), Some(Event::Closed)),
        ((SYN_SENT, TCP_CLOSE), Some(Event::Closed)),
        ((TCP_CLOSE, TCP_CLOSE), None),
        ((TCP_CLOSE, SYN_SENT), None),
        ((OPEN, FIN_WAIT), None),
    ] {
        assert_eq!(Event::of(STATE, || states), expected, "{states:?}");
    }
}

#[test]
fn a_connection_is_opened_once_grows_and_is_closed_once() {
    let mut connection = Connection::default();
    connection.connect();
    connection.establish();
    // A second program sees the same event.
    connection.establish();
    assert_eq!((connection.l4.opened, connection.l4.closed, connection.l4.failed), (1, 0, 0));
    connection.sample(totals(100, 1000, 300));
    connection.sample(totals(100, 1000, 300));
    connection.sample(totals(150, 3000, 200));
    connection.see(STATE, (OPEN, FIN_WAIT), totals(900, 9000, 1));
    connection.close(FIN_WAIT, totals(160, 3100, 0));
    connection.close(FIN_WAIT, totals(160, 3100, 0));
    let expected = PeerL4 {
        opened: 1,
        closed: 1,
        failed: 0,
        bytes_in: 160,
        bytes_out: 3100,
        retransmits: 31,
        rtt_samples: 3,
        srtt_us_last: 200,
        srtt_us_min: 200,
    };
    assert_eq!(connection.l4, expected);
}

#[test]
fn what_never_opened_has_failed() {
    let mut connection = Connection::default();
    connection.connect();
    connection.close(SYN_SENT, Totals::default());
    // An end is an end: nothing opens after it.
    connection.establish();
    assert_eq!((connection.l4.opened, connection.l4.closed, connection.l4.failed), (0, 0, 1));
}

#[test]
fn a_socket_that_connects_again_begins_anew() {
    let mut connection = Connection::default();
    for round in 1..=3 {
        connection.connect();
        assert_eq!(connection.flow, Flow::default());
        connection.establish();
        connection.sample(totals(50, 500, 100));
        connection.close(OPEN, totals(60, 600, 100));
        let l4 = connection.l4;
        assert_eq!(
            (l4.opened, l4.closed, l4.bytes_in, l4.bytes_out),
            (round, round, 60 * round, 600 * round)
        );
    }
}

#[test]
fn totals_that_cannot_be_read_take_nothing_back() {
    let mut connection = Connection::default();
    connection.connect();
    connection.establish();
    connection.sample(totals(1000, 2000, 100));
    connection.close(OPEN, Totals::default());
    assert_eq!((connection.l4.bytes_in, connection.l4.bytes_out), (1000, 2000));
    assert_eq!((connection.flow.bytes_in, connection.flow.state), (1000, Flow::CLOSED));
}

#[test]
fn the_smallest_round_trip_is_kept() {
    let mut connection = Connection::default();
    connection.connect();
    for (srtt_us, min) in [(300, 300), (500, 300), (200, 200), (0, 0), (700, 700)] {
        connection.sample(totals(0, 0, srtt_us));
        assert_eq!((connection.l4.srtt_us_last, connection.l4.srtt_us_min), (srtt_us, min));
    }
}
