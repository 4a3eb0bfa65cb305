//! Answers requests for the merged `/openapi/v2`, once the local API server has authorised them.

use std::time::Duration;

use http::Response;

use super::discover::Askable;
use crate::account::RequestRecord;
use crate::discovery::ServerSet;
use crate::discovery::openapi::{Form, is_authorised};
use crate::forward::{ForwardError, Outbound, ResponseBody, forward};
use crate::upstream::Role;

/// Answers with the merged document; until there is one, with that of the servers that serve most of all.
///
/// # Errors
/// When no server can be asked.
pub(super) async fn describe(
    askable: Askable<'_>,
    fullest: ServerSet,
    mut outbound: Outbound,
    record: &mut RequestRecord,
) -> Result<Response<ResponseBody>, ForwardError> {
    let Askable { shared, means, chooser, stand_ins } = askable;
    let Some(mut merged) = shared.openapi.now() else {
        if fullest.is_empty() || fullest.has_local() {
            return forward(means, chooser.local_or(shared.local, stand_ins), outbound, record).await;
        }
        return forward(means, chooser.peers_first(fullest, shared.local), outbound, record).await;
    };
    let form = Form::accepted_by(outbound.headers_mut());
    let wish = merged.ask_local(&mut outbound);
    let local = forward(means, chooser.local_or(shared.local, stand_ins), outbound, record).await?;
    if !is_authorised(&local) {
        return Ok(local);
    }
    if let (Some(etag), true) = (merged.news(&local), record.was_answered_by(Role::Local)) {
        // Without news in time the document stays as it is: kube-apiserver's own is late by seconds, too.
        merged = shared.openapi.made_of(etag.as_ref(), NEWS_LIMIT).await.unwrap_or(merged);
    }
    Ok(merged.in_place_of(local, form, &wish))
}

/// Longest time a request waits for the document of the local server's present one.
const NEWS_LIMIT: Duration = Duration::from_secs(1);
