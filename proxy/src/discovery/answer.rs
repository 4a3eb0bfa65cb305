//! Answers a discovery request with the merged document, once the local API server has authorised it.
//!
//! Authentication, authorisation and audit stay the API server's: the request is sent to it with the tag of the document
//! it is known to have, so that a client that may read discovery costs it a 304 and any other gets the server's refusal.

use http::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG,
    IF_NONE_MATCH, TRANSFER_ENCODING, VARY,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::Merged;
use super::document::CONTENT_TYPE as AGGREGATED;
use super::fetch::ACCEPT_OWN;
use crate::forward::{Outbound, ResponseBody};

/// The client's own If-None-Match, taken out of the request to the local server.
#[derive(Debug)]
pub struct Condition(Option<HeaderValue>);

/// Turns a client's discovery request into one that asks the local server for its own view.
pub fn ask_local(outbound: &mut Outbound, merged: &Merged) -> Condition {
    let headers = outbound.headers_mut();
    let condition = Condition(headers.remove(IF_NONE_MATCH));
    headers.insert(ACCEPT, HeaderValue::from_static(ACCEPT_OWN));
    headers.remove(ACCEPT_ENCODING);
    if let Some(etag) = &merged.local_etag {
        headers.insert(IF_NONE_MATCH, etag.clone());
    }
    condition
}

/// Whether the local server has another document than the one that was merged.
pub fn is_news(local: &Response<ResponseBody>, merged: &Merged) -> bool {
    local.status() == StatusCode::OK
        && is_aggregated(local.headers())
        && local.headers().get(ETAG) != merged.local_etag.as_ref()
}

/// Puts the merged document into the local server's answer; a refusal or failure is passed on as it is.
pub fn from_local(
    local: Response<ResponseBody>,
    merged: &Merged,
    condition: &Condition,
) -> Response<ResponseBody> {
    let authorised = match local.status() {
        StatusCode::NOT_MODIFIED => true,
        StatusCode::OK => is_aggregated(local.headers()),
        _ => false,
    };
    if !authorised {
        return local;
    }
    let (mut parts, _) = local.into_parts();
    let headers = &mut parts.headers;
    for name in [CONTENT_LENGTH, CONTENT_ENCODING, TRANSFER_ENCODING] {
        headers.remove(name);
    }
    headers.insert(ETAG, merged.etag.clone());
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public"));
    // kube-apiserver compares the one quoted tag byte for byte; lists and `*` draw the document.
    if condition.0.as_ref() == Some(&merged.etag) {
        headers.remove(CONTENT_TYPE);
        parts.status = StatusCode::NOT_MODIFIED;
        return Response::from_parts(parts, ResponseBody::empty());
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(AGGREGATED));
    parts.status = StatusCode::OK;
    Response::from_parts(parts, ResponseBody::full(merged.json.clone()))
}

fn is_aggregated(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.contains("as=APIGroupDiscoveryList"))
}
