//! Sends a request where routing says.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::ETAG;
use http::{HeaderValue, Response};
use tokio::time::timeout;

use super::{Shared, Worker};
use crate::account::RequestRecord;
use crate::discovery::{Document, ServerSet, Snapshot, answer};
use crate::error::RequestError;
use crate::forward::choose::Chooser;
use crate::forward::{ForwardError, Means, Outbound, ResponseBody, forward};
use crate::route::Route;
use crate::upstream::Role;

/// Sends a request to the servers that a route names, in the order of their condition.
///
/// # Errors
/// When none of them answers, or the route names none.
pub(super) async fn deliver(
    worker: &Worker,
    decision: Route,
    snapshot: &Snapshot,
    mut outbound: Outbound,
    record: &mut RequestRecord,
) -> Result<Response<ResponseBody>, RequestError> {
    let Worker { shared, pool, budget, turn, .. } = worker;
    let means = Means { pool, budget, vitals: &shared.vitals };
    let chooser = Chooser { snapshot, vitals: &shared.vitals, turn: turn.fetch_add(1, Ordering::Relaxed) };
    let allowed = |stand_ins| if shared.local_failover { stand_ins } else { ServerSet::default() };

    match decision {
        Route::Local { stand_ins, .. } => {
            let servers = chooser.local_or(shared.local, allowed(stand_ins));
            Ok(forward(means, servers, outbound, record).await?)
        }
        Route::Peers(servers) => Ok(forward(means, chooser.peers(servers), outbound, record).await?),
        Route::Discovery { document, stand_ins } => {
            let merged = snapshot.merged(document).ok_or(ForwardError::NoPeer)?;
            let condition = answer::ask_local(&mut outbound, merged);
            let servers = chooser.local_or(shared.local, allowed(stand_ins));
            let authorised = forward(means, servers, outbound, record).await?;
            if record.was_answered_by(Role::Local) && answer::is_news(&authorised, merged) {
                let etag = authorised.headers().get(ETAG).cloned();
                let fresh = after_refresh(shared, document, etag.as_ref()).await;
                return Ok(match fresh.merged(document) {
                    Some(merged) => answer::from_local(authorised, merged, &condition),
                    // All servers serve the same by now: what the local one says is the whole.
                    None => authorised,
                });
            }
            Ok(answer::from_local(authorised, merged, &condition))
        }
        Route::Unavailable(_) => Err(RequestError::Unaccounted),
    }
}

/// The snapshot after the local server was asked again: it serves something that the present one does not know, such as
/// a resource that this very client has just defined.
async fn after_refresh(shared: &Shared, document: Document, etag: Option<&HeaderValue>) -> Arc<Snapshot> {
    let mut changes = shared.changes.clone();
    changes.mark_unchanged();
    let newest = shared.snapshot.load_full();
    if newest.merged(document).is_none_or(|merged| merged.local_etag.as_ref() == etag) {
        return newest;
    }
    shared.refresh.notify_one();
    // Without news in time the merged document stays as it is: late by one discovery interval at most.
    let _ = timeout(REFRESH_LIMIT, changes.changed()).await;
    shared.snapshot.load_full()
}

/// Longest time a discovery request waits for the snapshot.
const REFRESH_LIMIT: Duration = Duration::from_secs(1);
