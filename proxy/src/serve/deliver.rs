//! Sends a request where routing says.

use std::sync::atomic::Ordering;

use http::Response;

use super::Worker;
use super::discover::{Askable, discover};
use crate::account::RequestRecord;
use crate::discovery::{ServerSet, Snapshot};
use crate::error::RequestError;
use crate::forward::choose::Chooser;
use crate::forward::{Means, Outbound, ResponseBody, forward};
use crate::route::Route;

/// Sends a request to the servers that a route names, in the order of their condition.
///
/// # Errors
/// When none of them answers, or the route names none.
pub(super) async fn deliver(
    worker: &Worker,
    decision: Route<'_>,
    snapshot: &Snapshot,
    outbound: Outbound,
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
        Route::Discovery { asked, stand_ins } => {
            let askable = Askable { shared, means, chooser, stand_ins: allowed(stand_ins) };
            Ok(discover(askable, asked, snapshot, outbound, record).await?)
        }
        Route::Unavailable(_) => Err(RequestError::Unaccounted),
    }
}
