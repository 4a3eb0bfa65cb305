//! Sends steered clients back to the API server, a few each second, when there is nothing left to steer for.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};
use tracing::info;

/// Once nobody was left for so long, whoever was just being accepted has been told too.
const GRACE: Duration = Duration::from_secs(2);

/// Connections wait here for their turn, in the order in which they came.
#[derive(Debug)]
pub struct Dismissal {
    /// Clients that dial another port, the proxy's own, want the proxy.
    steered_port: u16,
    waiting: AtomicUsize,
    turn: Notify,
}

/// One connection that waits; ends when dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Dismissal {
    /// For connections that were steered from this port.
    pub fn new(steered_port: u16) -> Self {
        Self { steered_port, waiting: AtomicUsize::new(0), turn: Notify::new() }
    }

    /// Waits until the connection, which dialled this address, is to end in order.
    pub async fn of(&self, dialled: SocketAddr) {
        if dialled.port() != self.steered_port {
            std::future::pending::<()>().await;
        }
        self.waiting.fetch_add(1, Relaxed);
        let _waiting = Waiting(&self.waiting);
        self.turn.notified().await;
    }

    /// Gives every connection its turn, and ends when none is left.
    pub async fn all(&self, per_second: NonZeroU32) {
        let mut ticks = interval(Duration::from_secs(1) / per_second.get());
        // Turns that were missed are not made up for.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut dismissed, mut nobody_since) = (0_u64, tokio::time::Instant::now());
        loop {
            ticks.tick().await;
            if self.waiting.load(Relaxed) > 0 {
                self.turn.notify_one();
                dismissed += 1;
                nobody_since = tokio::time::Instant::now();
            } else if nobody_since.elapsed() >= GRACE {
                break;
            }
        }
        if dismissed > 0 {
            info!(connections = dismissed, "steered clients were sent back to the API server");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn steered_connections_get_their_turn_one_after_the_other() {
        const CONNECTIONS: u32 = 30;
        let dismissal = Arc::new(Dismissal::new(6443));
        let wait = |port: u16| {
            let dismissal = Arc::clone(&dismissal);
            tokio::spawn(async move { dismissal.of(([127, 0, 0, 1], port).into()).await })
        };
        let steered: Vec<_> = (0..CONNECTIONS).map(|_| wait(6443)).collect();
        let own_port = wait(9999);
        let gave_up = wait(6443);
        tokio::task::yield_now().await;
        gave_up.abort();
        let (begun, per_second) = (tokio::time::Instant::now(), NonZeroU32::new(100).expect("not zero"));
        tokio::spawn(async move { dismissal.all(per_second).await });
        for connection in steered {
            connection.await.expect("its turn comes");
        }
        assert!(begun.elapsed() >= Duration::from_secs(1) / 100 * (CONNECTIONS - 1), "{:?}", begun.elapsed());
        assert!(!own_port.is_finished(), "who dialled the proxy's own port stays");
    }
}
