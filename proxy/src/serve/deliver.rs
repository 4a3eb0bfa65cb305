//! Sends a request where routing says.

use std::sync::atomic::Ordering;

use http::Response;

use super::Worker;
use super::discover::{Askable, discover};
use super::openapi::describe;
use crate::account::RequestRecord;
use crate::discovery::{ServerSet, Snapshot, openapi};
use crate::error::RequestError;
use crate::forward::choose::Chooser;
use crate::forward::{ForwardError, Means, Outbound, ResponseBody, forward};
use crate::route::Route;

/// Sends a request to the servers that a route names, in the order of their condition.
///
/// # Errors
/// When none of them answers, or the route names none.
pub(super) async fn deliver(
    worker: &Worker,
    decision: Route<'_>,
    snapshot: &Snapshot,
    mut outbound: Outbound,
    record: &mut RequestRecord,
) -> Result<Response<ResponseBody>, RequestError> {
    let Worker { shared, pool, budget, turn, .. } = worker;
    let means = Means { pool, budget, vitals: &shared.vitals };
    let chooser = Chooser { snapshot, vitals: &shared.vitals, turn: turn.fetch_add(1, Ordering::Relaxed) };
    let allowed = |stand_ins| if shared.local_failover { stand_ins } else { ServerSet::default() };

    // What few requests need is on the heap: every request would have the place for it.
    match decision {
        Route::Local { stand_ins, .. } => {
            let servers = chooser.local_or(shared.local, allowed(stand_ins));
            Ok(forward(means, servers, outbound, record).await?)
        }
        Route::Peers(servers) => Ok(forward(means, chooser.peers(servers), outbound, record).await?),
        Route::Discovery { asked, stand_ins } => {
            let askable = Askable { shared, means, chooser, stand_ins: allowed(stand_ins) };
            Ok(Box::pin(discover(askable, asked, snapshot, outbound, record)).await?)
        }
        Route::PeersFirst(servers) => {
            Ok(forward(means, chooser.peers_first(servers, shared.local), outbound, record).await?)
        }
        Route::OpenApiV2 { fullest, stand_ins } => {
            let askable = Askable { shared, means, chooser, stand_ins: allowed(stand_ins) };
            Ok(Box::pin(describe(askable, fullest, outbound, record)).await?)
        }
        Route::OpenApiIndex { stand_ins } => {
            let condition = openapi::ask_for_index(&mut outbound);
            let servers = chooser.local_or(shared.local, allowed(stand_ins));
            let local = forward(means, servers, outbound, record).await?;
            let broken = |source| ForwardError::Broken { address: shared.local.address, source };
            let completed = Box::pin(openapi::completed(local, snapshot.view(), condition.as_ref()));
            Ok(completed.await.map_err(broken)?)
        }
        Route::Unavailable(_) => Err(RequestError::Unaccounted),
    }
}
