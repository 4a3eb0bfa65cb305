//! Answers requests for merged discovery documents.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Response};
use tokio::time::timeout;

use super::Shared;
use crate::account::RequestRecord;
use crate::discovery::accept::Asked;
use crate::discovery::page::Page;
use crate::discovery::{Document, ServerSet, Snapshot, answer};
use crate::forward::choose::Chooser;
use crate::forward::{ForwardError, Means, Outbound, ResponseBody, forward};
use crate::upstream::Role;

/// Where leave is asked for.
pub(super) struct Askable<'a> {
    /// Everything the workers share.
    pub(super) shared: &'a Shared,
    /// What forwarding draws on.
    pub(super) means: Means<'a>,
    /// Orders the servers.
    pub(super) chooser: Chooser<'a>,
    /// Peers that may be asked instead of the local server.
    pub(super) stand_ins: ServerSet,
}

/// Answers a request for a document that `snapshot` has.
///
/// # Errors
/// When no server can be asked whether the client may see it.
pub(super) async fn discover(
    askable: Askable<'_>,
    asked: Asked<'_>,
    snapshot: &Snapshot,
    mut outbound: Outbound,
    record: &mut RequestRecord,
) -> Result<Response<ResponseBody>, ForwardError> {
    let Askable { shared, means, chooser, stand_ins } = askable;
    let mut page = Arc::clone(snapshot.view().find(asked.name).ok_or(ForwardError::NoPeer)?);
    let (original, class) = (outbound.plain_head(), outbound.trust_class());
    let wish = answer::ask_local(&mut outbound, asked, snapshot.view());
    let servers = || chooser.local_or(shared.local, stand_ins);
    let local = forward(means, servers(), outbound, record).await?;
    if !answer::is_authorised(&local, asked) {
        return Ok(local);
    }
    let news = answer::news(&local, asked, snapshot.view());
    if let (Some(etag), Some(document), true) = (news, asked.root, record.was_answered_by(Role::Local)) {
        match (after_refresh(shared, asked, document, etag.as_ref()).await, original) {
            (Some(fresh), _) => page = fresh,
            // All servers say the same by now: what the local one says is the whole, in whatever form.
            (None, Some(original)) => {
                return forward(means, servers(), Outbound::again(original, class), record).await;
            }
            // A GET with a body. The document is late by a moment.
            (None, None) => {}
        }
    }
    let Some(form) = asked.form else { return Ok(answer::not_acceptable()) };
    let body = page.prepared(form).await;
    Ok(answer::in_place_of(local, &page, form, body, &wish))
}

/// The page after the local server was asked again: it serves something that the present snapshot does not know, such as
/// a resource that this very client has just defined.
async fn after_refresh(
    shared: &Shared,
    asked: Asked<'_>,
    document: Document,
    etag: Option<&HeaderValue>,
) -> Option<Arc<Page>> {
    let page = |snapshot: &Snapshot| snapshot.view().find(asked.name).cloned();
    let mut changes = shared.changes.clone();
    changes.mark_unchanged();
    let newest = shared.snapshot.load_full();
    if newest.view().local_etag(document) == etag {
        return page(&newest);
    }
    shared.refresh.of_local();
    // Without news in time the merged document stays as it is: late by one discovery interval at most.
    let _ = timeout(REFRESH_LIMIT, changes.changed()).await;
    page(&shared.snapshot.load_full())
}

/// Longest time a discovery request waits for the snapshot.
const REFRESH_LIMIT: Duration = Duration::from_secs(1);
