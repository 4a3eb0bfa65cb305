//! Notices when a server does not have what is known to be there, and has it asked at once.

use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};

use crate::account::RequestRecord;
use crate::classify::RequestInfo;
use crate::discovery::refresh::Refresh;
use crate::forward::ResponseBody;
use crate::route::{LocalReason, Route};

/// Rings for the server that answered 404 although it is known to serve the resource.
pub(super) fn note(
    refresh: &Refresh,
    decision: Route,
    info: Option<&RequestInfo<'_>>,
    response: &Response<ResponseBody>,
    record: &RequestRecord,
) {
    let promised =
        matches!(decision, Route::Peers(_) | Route::Local { reason: LocalReason::ServedLocally, .. });
    if promised
        && response.status() == StatusCode::NOT_FOUND
        && info.is_some_and(|info| is_about_resource(info, response))
        && let Some(upstream) = record.upstream()
    {
        refresh.of(upstream);
    }
}

/// Whether a 404 is about the resource and not about one object: the router's own is plain text, and a collection that is
/// served is there even when it is empty.
fn is_about_resource(info: &RequestInfo<'_>, response: &Response<ResponseBody>) -> bool {
    let media_type = response.headers().get(CONTENT_TYPE);
    media_type.is_some_and(|value| value.as_bytes().starts_with(b"text/plain"))
        || matches!(info.verb, "list" | "watch" | "deletecollection")
}
