//! Asks one server again and again: in turn, and out of turn when there is reason to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::Served;
use super::fetch::{FetchError, Fetcher};
use crate::pause::{Backoff, jittered};
use crate::steering::PeerSlot;
use crate::upstream::{Role, Upstream};

/// Names a server within the process, whatever its addresses.
pub(super) type ServerId = u32;

/// What asking one server takes.
#[derive(Debug)]
pub(super) struct Poll {
    pub(super) id: ServerId,
    pub(super) role: Role,
    /// Whether nothing is held against its absence.
    pub(super) hinted: bool,
    /// Where it may be dialled, best first.
    pub(super) addresses: watch::Receiver<Vec<SocketAddr>>,
    /// Rung to have it asked out of turn.
    pub(super) bell: Arc<Notify>,
    pub(super) fetcher: Arc<Fetcher>,
    pub(super) interval: Duration,
    pub(super) updates: mpsc::Sender<Update>,
    /// What it served when it was last heard.
    pub(super) known: Option<Arc<Served>>,
}

/// The outcome of asking once.
#[derive(Debug)]
pub(super) struct Update {
    pub(super) id: ServerId,
    /// The address that was tried last.
    pub(super) address: SocketAddr,
    /// When the question was put: the answer may be no younger.
    pub(super) asked: Instant,
    pub(super) result: Result<Arc<Served>, FetchError>,
}

impl Poll {
    /// Runs until the task is dropped or nobody takes updates any more.
    pub(super) async fn run(mut self) {
        let mut pace = Pace::new(self.role, self.hinted, self.interval);
        let mut last = None;
        // Whom only a Lease speaks of waits for its turn: Leases can come and go faster than anybody can be asked.
        let mut next =
            Instant::now() + if pace.is_unproven { jittered(self.interval) } else { Duration::ZERO };
        loop {
            if !self.wait(next, &mut pace).await {
                return;
            }
            let asked = Instant::now();
            let Some((address, result)) = self.ask(last).await else { return };
            pace.asked(asked, asked.elapsed());
            let pause = match &result {
                Ok(served) => {
                    self.known = Some(Arc::clone(served));
                    last = Some(address);
                    pace.answered(served)
                }
                Err(_) => pace.failed(self.known.is_some()),
            };
            next = Instant::now() + pause;
            if self.updates.send(Update { id: self.id, address, asked, result }).await.is_err() {
                return;
            }
        }
    }

    /// Waits for the server's turn, or for a reason to ask it before. False when nobody wants to know any more.
    async fn wait(&mut self, turn: Instant, pace: &mut Pace) -> bool {
        loop {
            tokio::select! {
                () = sleep_until(turn) => return true,
                () = self.bell.notified() => {}
                changed = self.addresses.changed() => if changed.is_err() {
                    return false;
                },
            }
            if let Some(earliest) = pace.out_of_turn(Instant::now()) {
                sleep_until(earliest.min(turn)).await;
                return true;
            }
        }
    }

    /// Asks at the address that answered last, then at the others. `None` when there is none.
    async fn ask(
        &mut self,
        last: Option<SocketAddr>,
    ) -> Option<(SocketAddr, Result<Arc<Served>, FetchError>)> {
        let mut addresses = self.addresses.borrow_and_update().clone();
        addresses.sort_by_key(|address| Some(*address) != last);
        let mut outcome = None;
        for address in addresses {
            // Connections are found by address and role alone.
            let upstream = Upstream { address, role: self.role, slot: PeerSlot::SHARED };
            let result = self.fetcher.fetch(&upstream, self.known.as_ref()).await;
            let is_of_address = result.as_ref().is_err_and(FetchError::is_of_address);
            outcome = Some((address, result));
            if !is_of_address {
                break;
            }
        }
        outcome
    }
}

/// How often a server is asked.
#[derive(Debug)]
struct Pace {
    role: Role,
    interval: Duration,
    /// Whether only a Lease speaks of it, and it has not answered.
    is_unproven: bool,
    /// After failures, while something or nothing is known of it.
    known: Backoff,
    unknown: Backoff,
    last_asked: Option<Instant>,
    last_took: Duration,
    /// Questions out of turn that are left, and since when they have been growing.
    credit: u32,
    credited: Instant,
}

/// A peer that fails is asked at least this often; its return is mostly heard of before.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The same for one that only a Lease speaks of.
const LONGEST_HINT_PAUSE: Duration = Duration::from_mins(5);
/// Until the local server has answered once it is asked this often: it may still be starting.
const IMPATIENT: Duration = Duration::from_millis(500);
/// A server without tags has to be asked for everything each time, so it is asked in every sixth turn.
const WITHOUT_TAGS: u32 = 6;
/// Questions out of turn that a peer may be asked in a row; each turn adds one. Whoever can write Leases can ring its bell.
const MOST_CREDIT: u32 = 8;
/// Time between two questions, the second of them out of turn.
const SHORTEST_GAP: Duration = Duration::from_millis(100);
/// At most this part of the time is spent on asking a server: documents can be large.
const BUSY_PART: u32 = 4;

impl Pace {
    fn new(role: Role, hinted: bool, interval: Duration) -> Self {
        let (known, unknown) = match role {
            Role::Local => (interval, interval.min(IMPATIENT)),
            Role::Peer if hinted => (interval.max(LONGEST_PAUSE), interval.max(LONGEST_HINT_PAUSE)),
            // Nobody can be told that something does not exist as long as it has not been heard.
            Role::Peer => (interval.max(LONGEST_PAUSE), interval),
        };
        let first = if role == Role::Local { unknown } else { interval };
        Self {
            role,
            interval,
            is_unproven: hinted,
            known: Backoff::new(interval, known),
            unknown: Backoff::new(first, unknown),
            last_asked: None,
            last_took: Duration::ZERO,
            credit: MOST_CREDIT,
            credited: Instant::now(),
        }
    }

    fn asked(&mut self, when: Instant, took: Duration) {
        (self.last_asked, self.last_took) = (Some(when), took);
    }

    /// The pause after an answer: an interval at most, so that what is new is known after one.
    fn answered(&mut self, served: &Served) -> Duration {
        self.known.succeeded();
        self.unknown.succeeded();
        self.is_unproven = false;
        let has_tags = served.core.etag.is_some() && served.groups.etag.is_some();
        jittered(self.interval * 9 / 10) * if has_tags { 1 } else { WITHOUT_TAGS }
    }

    fn failed(&mut self, is_known: bool) -> Duration {
        if is_known { self.known.failed() } else { self.unknown.failed() }
    }

    /// When the server may be asked out of turn; `None` to leave it to its turn.
    fn out_of_turn(&mut self, now: Instant) -> Option<Instant> {
        if self.is_unproven {
            return None;
        }
        if self.role == Role::Peer {
            let turns = now.duration_since(self.credited).as_nanos() / self.interval.as_nanos().max(1);
            if turns > 0 {
                self.credited = now;
                self.credit =
                    self.credit.saturating_add(turns.try_into().unwrap_or(u32::MAX)).min(MOST_CREDIT);
            }
            self.credit = self.credit.checked_sub(1)?;
        }
        let gap = SHORTEST_GAP.max(self.last_took * BUSY_PART);
        Some(self.last_asked.map_or(now, |asked| (asked + gap).max(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);

    #[test]
    fn a_peer_is_asked_out_of_turn_a_few_times_and_then_once_each_turn() {
        let mut pace = Pace::new(Role::Peer, false, INTERVAL);
        let begin = Instant::now();
        let ring = |pace: &mut Pace, after: Duration, times: usize| {
            (0..times).filter(|_| pace.out_of_turn(begin + after).is_some()).count()
        };
        assert_eq!(ring(&mut pace, Duration::ZERO, 10_000), 8);
        assert_eq!(ring(&mut pace, Duration::from_secs(11), 10_000), 2);
        assert_eq!(ring(&mut pace, Duration::from_mins(5), 10_000), 8);
        let mut local = Pace::new(Role::Local, false, INTERVAL);
        assert_eq!(ring(&mut local, Duration::ZERO, 100), 100, "clients ring for the local server");
    }

    #[test]
    fn questions_keep_a_distance_from_each_other() {
        let mut pace = Pace::new(Role::Local, false, INTERVAL);
        let now = Instant::now();
        assert_eq!(pace.out_of_turn(now), Some(now));
        pace.asked(now, Duration::from_millis(1));
        assert_eq!(pace.out_of_turn(now), Some(now + SHORTEST_GAP));
        pace.asked(now, Duration::from_millis(500));
        assert_eq!(pace.out_of_turn(now), Some(now + Duration::from_secs(2)), "large documents");
        assert_eq!(pace.out_of_turn(now + INTERVAL), Some(now + INTERVAL));
    }

    #[test]
    fn a_server_that_answers_is_asked_once_an_interval_and_one_that_fails_less_often() {
        let mut pace = Pace::new(Role::Peer, false, INTERVAL);
        let tagged = |etag: Option<&'static str>| {
            let part =
                super::super::Part { etag: etag.map(http::HeaderValue::from_static), ..Default::default() };
            Served { core: part.clone(), groups: part, ..Served::default() }
        };
        for _ in 0..100 {
            let pause = pace.answered(&tagged(Some("\"x\"")));
            assert!(pause <= INTERVAL && pause > INTERVAL * 3 / 4, "{pause:?}");
            assert!(pace.answered(&tagged(None)) > INTERVAL * 4);
        }
        let longest = (0..10).map(|_| pace.failed(true)).max().expect("ten pauses");
        assert!(longest > LONGEST_PAUSE / 2 && longest <= LONGEST_PAUSE * 11 / 10, "{longest:?}");
        assert!((0..10).all(|_| pace.failed(false) <= INTERVAL * 11 / 10), "one of which nothing is known");
        let mut hinted = Pace::new(Role::Peer, true, INTERVAL);
        assert!((0..10).map(|_| hinted.failed(false)).max() > Some(Duration::from_mins(4)));
        assert_eq!(hinted.out_of_turn(Instant::now()), None, "nobody has it asked before it has answered");
        let mut local = Pace::new(Role::Local, false, INTERVAL);
        assert!((0..10).all(|_| local.failed(false) <= IMPATIENT * 11 / 10));
        assert!((0..10).all(|_| local.failed(true) <= INTERVAL * 11 / 10));
    }
}
