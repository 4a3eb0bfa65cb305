//! Ends a client's connection: in order when the process drains or nothing is asked, at once when it is abused.

use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::activity::{Activity, Over};
use crate::metrics::{Ended, Metrics};

/// What ends a connection beside its client.
pub(super) struct Life<'a, D> {
    pub(super) drain: &'a CancellationToken,
    /// Ends when the client is to go to the API server itself.
    pub(super) dismissed: D,
    pub(super) activity: &'a Activity,
    pub(super) metrics: &'a Metrics,
}

impl<D: Future<Output = ()>> Life<'_, D> {
    /// Runs a connection. When its time is over, or the process drains, its client is told to open no more requests
    /// (GOAWAY over HTTP/2); the open ones end.
    pub(super) async fn of<C>(
        self,
        connection: C,
        shut_down: impl Fn(Pin<&mut C>),
    ) -> Result<(), hyper::Error>
    where
        C: Future<Output = Result<(), hyper::Error>>,
    {
        let mut connection = pin!(connection);
        let over = tokio::select! {
            biased;
            ended = connection.as_mut() => return ended,
            () = self.drain.cancelled() => None,
            over = self.activity.over() => Some(over),
            () = self.dismissed => {
                shut_down(connection.as_mut());
                tokio::select! {
                    ended = connection.as_mut() => return ended,
                    over = self.activity.over() => Some(over),
                }
            }
        };
        let Some(over) = over else {
            if self.activity.is_new() {
                // It was taken off the queue a moment ago: its first request is on the way.
                if let Ok(ended) = timeout(LAST_FIRST_REQUEST, connection.as_mut()).await {
                    return ended;
                }
            }
            shut_down(connection.as_mut());
            return connection.await;
        };
        debug!(?over, "connection ended by its limits");
        let (reason, patience) = match over {
            Over::Header => (Ended::Header, FAREWELL),
            Over::Idle => (Ended::Idle, LAST_BYTES),
            Over::GivenUp => (Ended::GivenUp, Duration::ZERO),
        };
        self.metrics.connection_ended(reason);
        shut_down(connection.as_mut());
        // Whoever does not answer is left without more words.
        timeout(patience, connection).await.unwrap_or(Ok(()))
    }
}

/// Time a connection from the queue has for its first request while the process drains.
const LAST_FIRST_REQUEST: Duration = Duration::from_millis(500);
/// Time for a GOAWAY and what it is answered with: one round trip.
const FAREWELL: Duration = Duration::from_secs(1);
/// The same for a client that may still be taking the end of its last response.
const LAST_BYTES: Duration = Duration::from_secs(5);
