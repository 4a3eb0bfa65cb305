//! Asks every API server each second, and whenever there is doubt, whether it is ready, and reads the kernel's round-trip times.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::StatusCode;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::info;

use crate::asker::Asker;
use crate::discovery::Snapshot;
use crate::discovery::refresh::Refresh;
use crate::steering::Steering;
use crate::upstream::Upstream;
use crate::vitals::Vitals;

/// How often every server is asked.
const INTERVAL: Duration = Duration::from_secs(1);
/// Least time between two rounds.
const BREATH: Duration = Duration::from_millis(100);
/// A server that does not answer in this time is taken to be failing; less than what PINGs need to find a dead
/// connection, so that what waited on it is not sent there again.
const PATIENCE: Duration = Duration::from_millis(1500);

/// The writer of [`Vitals`] that acts without being asked.
#[derive(Debug)]
pub struct Prober {
    asker: Arc<Asker>,
    vitals: Arc<Vitals>,
    steering: Arc<Steering>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    refresh: Arc<Refresh>,
}

impl Prober {
    /// Probes every server of the snapshot.
    pub fn new(
        asker: Arc<Asker>,
        vitals: Arc<Vitals>,
        steering: Arc<Steering>,
        snapshot: Arc<ArcSwap<Snapshot>>,
        refresh: Arc<Refresh>,
    ) -> Self {
        Self { asker, vitals, steering, snapshot, refresh }
    }

    /// Runs until the task is dropped. A server that hangs delays no other's probe, and has one probe at a time.
    pub async fn run(self) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut probes = JoinSet::new();
        let mut running: HashMap<SocketAddr, AbortHandle> = HashMap::new();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.vitals.doubt() => sleep(BREATH).await,
            }
            while probes.try_join_next().is_some() {}
            running.retain(|_, probe| !probe.is_finished());
            let servers = self.snapshot.load().upstreams().to_vec();
            self.read_round_trips(&servers);
            for upstream in servers {
                running.entry(upstream.address).or_insert_with(|| {
                    let (asker, vitals) = (Arc::clone(&self.asker), Arc::clone(&self.vitals));
                    probes.spawn(probe(asker, vitals, Arc::clone(&self.refresh), upstream))
                });
            }
        }
    }

    fn read_round_trips(&self, servers: &[Upstream]) {
        let measured: HashMap<SocketAddr, u64> =
            self.steering.peer_l4().into_iter().map(|(peer, cells)| (peer, cells.srtt_us_last)).collect();
        for upstream in servers {
            if let Some(srtt_us) = measured.get(&upstream.address) {
                self.vitals.set_srtt_us(upstream, *srtt_us);
            }
        }
    }
}

async fn probe(asker: Arc<Asker>, vitals: Arc<Vitals>, refresh: Arc<Refresh>, upstream: Upstream) {
    let was_healthy = vitals.is_healthy(&upstream);
    if let Ok(Ok(response)) = timeout(PATIENCE, asker.get(&upstream, "/readyz", "*/*", None)).await {
        match response.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => vitals.refused_to_say(&upstream),
            // Whatever else it answers it does answer: only its own "no" counts, and its farewell.
            StatusCode::INTERNAL_SERVER_ERROR | StatusCode::SERVICE_UNAVAILABLE => {
                vitals.set_ready(&upstream, false);
            }
            _ => vitals.set_ready(&upstream, true),
        }
        vitals.answered(&upstream);
    } else {
        // Until it answers a probe: a server that hangs costs every request that tries it seconds.
        vitals.set_ready(&upstream, false);
        vitals.failed(&upstream);
    }
    let is_healthy = vitals.is_healthy(&upstream);
    if was_healthy != is_healthy {
        if is_healthy {
            // It may have come back as another version, and nobody asks a silent server often.
            refresh.of(&upstream);
        }
        info!(address = %upstream.address, role = ?upstream.role, healthy = is_healthy, "API server's condition changed");
    }
}
