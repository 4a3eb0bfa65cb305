//! Keeps what is known of every API server's condition, for choosing between them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::steering::PeerSlot;
use crate::upstream::Upstream;

/// Time a server is avoided after its first failure; doubles with each further one.
const FIRST_AVOIDANCE: Duration = Duration::from_millis(100);
/// Longest time a server is avoided without being tried again.
const LONGEST_AVOIDANCE: Duration = Duration::from_secs(5);
/// Refusals to say whether a server is ready, one a second, after which it is taken to be: longer than a kube-apiserver takes
/// from its first answer to its last controller.
const REFUSALS: u32 = 30;
/// Round-trip time taken for a server that none was measured for, in microseconds.
const ASSUMED_RTT_US: u64 = 500;

/// The condition of all servers; all methods may be called from any thread, none blocks.
#[derive(Debug)]
pub struct Vitals {
    epoch: Instant,
    servers: Box<[Vital]>,
    doubts: Notify,
}

/// The condition of one server.
#[derive(Debug)]
struct Vital {
    /// Whether `/readyz` last said so; true until it was asked.
    ready: AtomicBool,
    /// How often in a row it refused to say.
    refusals: AtomicU32,
    /// Failures since the last answer.
    failures: AtomicU32,
    /// Milliseconds after the epoch until which the server is avoided.
    avoid_until_ms: AtomicU64,
    /// Requests that wait for an answer or whose answer has not ended.
    in_flight: AtomicU32,
    /// The kernel's smoothed round-trip time; 0 when none was measured.
    srtt_us: AtomicU32,
}

/// One request in flight; ends when dropped.
#[derive(Debug)]
pub struct InFlight {
    vitals: Arc<Vitals>,
    slot: PeerSlot,
}

impl Default for Vitals {
    fn default() -> Self {
        let vital = || Vital {
            ready: AtomicBool::new(true),
            refusals: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            avoid_until_ms: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            srtt_us: AtomicU32::new(0),
        };
        let servers = (0..PeerSlot::COUNT).map(|_| vital()).collect();
        Self { epoch: Instant::now(), servers, doubts: Notify::new() }
    }
}

impl Vitals {
    /// Whether the server is ready and did not fail a moment ago.
    pub fn is_healthy(&self, upstream: &Upstream) -> bool {
        let vital = self.of(upstream);
        vital.ready.load(Relaxed) && vital.avoid_until_ms.load(Relaxed) <= self.now_ms()
    }

    /// What another request to the server would cost: requests in flight, weighted by the round-trip time.
    pub fn load(&self, upstream: &Upstream) -> u64 {
        let vital = self.of(upstream);
        let requests = u64::from(vital.in_flight.load(Relaxed)) + 1;
        requests * (u64::from(vital.srtt_us.load(Relaxed)) + ASSUMED_RTT_US)
    }

    /// The server could not be reached or broke off.
    pub fn failed(&self, upstream: &Upstream) {
        let vital = self.of(upstream);
        let failures = vital.failures.fetch_add(1, Relaxed).min(8);
        let avoidance = (FIRST_AVOIDANCE * 2_u32.pow(failures)).min(LONGEST_AVOIDANCE);
        let until = self.now_ms() + u64::try_from(avoidance.as_millis()).unwrap_or(u64::MAX);
        vital.avoid_until_ms.store(until, Relaxed);
    }

    /// Some server said what may mean that it is about to end.
    pub fn doubted(&self) {
        self.doubts.notify_one();
    }

    /// Waits for [`Vitals::doubted`]; one that came before anybody waited counts.
    pub async fn doubt(&self) {
        self.doubts.notified().await;
    }

    /// The server answered.
    pub fn answered(&self, upstream: &Upstream) {
        let vital = self.of(upstream);
        // Written only on change: this is on the path of every request.
        if vital.failures.load(Relaxed) != 0 {
            vital.failures.store(0, Relaxed);
            vital.avoid_until_ms.store(0, Relaxed);
        }
    }

    /// What the server's `/readyz` says.
    pub fn set_ready(&self, upstream: &Upstream, ready: bool) {
        let vital = self.of(upstream);
        vital.refusals.store(0, Relaxed);
        vital.ready.store(ready, Relaxed);
    }

    /// The server refuses to say whether it is ready. That is no news at first: kube-apiserver refuses everybody while its
    /// authorizer has not read the roles yet. One that goes on so has given nobody the right, and answers.
    pub fn refused_to_say(&self, upstream: &Upstream) {
        let vital = self.of(upstream);
        if vital.refusals.fetch_add(1, Relaxed) >= REFUSALS {
            self.set_ready(upstream, true);
        }
    }

    /// The round-trip time the kernel measured, in microseconds.
    pub fn set_srtt_us(&self, upstream: &Upstream, srtt_us: u64) {
        self.of(upstream).srtt_us.store(u32::try_from(srtt_us).unwrap_or(u32::MAX), Relaxed);
    }

    /// Counts a request as in flight until the guard is dropped.
    pub fn begin(self: &Arc<Self>, upstream: &Upstream) -> InFlight {
        self.of(upstream).in_flight.fetch_add(1, Relaxed);
        InFlight { vitals: Arc::clone(self), slot: upstream.slot }
    }

    fn of(&self, upstream: &Upstream) -> &Vital {
        &self.servers[upstream.slot.index()]
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.vitals.servers[self.slot.index()].in_flight.fetch_sub(1, Relaxed);
    }
}
