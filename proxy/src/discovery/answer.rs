//! Answers a discovery request with a merged document, once the local API server has authorised it.
//!
//! Authentication, authorisation and audit stay the API server's: the request is sent to it, on the path that the client
//! asked for, and only an answer that comes after authorisation is replaced. For `/api` and `/apis` it is asked with the
//! tag it is known to have, which costs it a 304. For an unaggregated document that it does not serve its answer is 404:
//! kube-apiserver authorises before it looks whether there is anything.

use std::sync::Arc;

use http::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE,
    ETAG, IF_NONE_MATCH, LAST_MODIFIED, TRANSFER_ENCODING, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::accept::Asked;
use super::fetch::ACCEPT_OWN_OR_PLAIN;
use super::page::{Body, Form, Page};
use super::view::View;
use crate::forward::{Outbound, ResponseBody};
use crate::status::{Encoding, Failure};

/// What the client said about the answer, taken out of the request to the local server.
#[derive(Debug)]
pub struct Wish {
    /// The document it has.
    condition: Option<HeaderValue>,
    takes_gzip: bool,
}

/// Turns a client's discovery request into one that asks the local server for its leave.
pub fn ask_local(outbound: &mut Outbound, asked: Asked<'_>, view: &View) -> Wish {
    let headers = outbound.headers_mut();
    let wish = Wish::taken_from(headers);
    let accept = if asked.root.is_some() { ACCEPT_OWN_OR_PLAIN } else { "application/json" };
    ask(headers, accept, asked.root.and_then(|document| view.local_etag(document)));
    wish
}

/// Asks for a document the local server is known to have, so that its leave costs it little.
pub(super) fn ask(headers: &mut HeaderMap, accept: &'static str, etag: Option<&HeaderValue>) {
    headers.insert(ACCEPT, HeaderValue::from_static(accept));
    if let Some(etag) = etag {
        headers.insert(IF_NONE_MATCH, etag.clone());
    }
}

impl Wish {
    /// Takes out of a client's request what the local server is not to look at.
    pub(super) fn taken_from(headers: &mut HeaderMap) -> Self {
        let takes_gzip = headers.remove(ACCEPT_ENCODING).is_some_and(|value| names_gzip(&value));
        Self { condition: headers.remove(IF_NONE_MATCH), takes_gzip }
    }

    /// Whether the client has one of several documents, as Go's file server compares tags.
    pub(super) fn has(&self, etag: &HeaderValue) -> bool {
        let Some(condition) = self.condition.as_ref().and_then(|condition| condition.to_str().ok()) else {
            return false;
        };
        let mut tags = condition.split(',').map(str::trim);
        tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
    }

    /// A body as the client wants it, and the header that says so.
    pub(super) fn coded(&self, body: Body, headers: &mut HeaderMap) -> ResponseBody {
        let gzip = body.gzip.filter(|_| self.takes_gzip);
        if gzip.is_some() {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        ResponseBody::full(gzip.unwrap_or(body.plain))
    }
}

/// Takes out of an answer what describes its body.
pub(super) fn remove_description(headers: &mut HeaderMap) {
    for name in DESCRIPTION {
        headers.remove(name);
    }
}

const DESCRIPTION: [HeaderName; 9] = [
    ACCEPT_RANGES,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    ETAG,
    LAST_MODIFIED,
    TRANSFER_ENCODING,
    VARY,
    X_CONTENT_TYPE_OPTIONS,
];

/// Whether the local server's answer came after authorisation.
pub fn is_authorised(local: &Response<ResponseBody>, asked: Asked<'_>) -> bool {
    match (asked.root, local.status()) {
        // In whatever form: a server without aggregated discovery has only the plain one.
        (_, StatusCode::OK) => true,
        (Some(_), status) => status == StatusCode::NOT_MODIFIED,
        (None, status) => status == StatusCode::NOT_FOUND,
    }
}

/// The tag of the local server's document, if that is another than the one that was merged.
pub fn news(local: &Response<ResponseBody>, asked: Asked<'_>, view: &View) -> Option<Option<HeaderValue>> {
    let document = asked.root?;
    let etag = local.headers().get(ETAG);
    let is_new = local.status() == StatusCode::OK && etag != view.local_etag(document);
    is_new.then(|| etag.cloned())
}

/// Puts a merged document into the local server's answer.
pub fn in_place_of(
    local: Response<ResponseBody>,
    page: &Arc<Page>,
    form: Form,
    body: Body,
    wish: &Wish,
) -> Response<ResponseBody> {
    let (mut parts, _) = local.into_parts();
    let headers = &mut parts.headers;
    remove_description(headers);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(page.media_type(form)));
    parts.status = StatusCode::OK;
    if let Some(etag) = page.etag() {
        headers.insert(ETAG, etag.clone());
        headers.insert(VARY, HeaderValue::from_static("Accept"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public"));
        // kube-apiserver compares the one quoted tag byte for byte; lists and `*` draw the document.
        if wish.condition.as_ref() == Some(etag) {
            headers.remove(CONTENT_TYPE);
            parts.status = StatusCode::NOT_MODIFIED;
            return Response::from_parts(parts, ResponseBody::empty());
        }
    } else {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    }
    let body = wish.coded(body, headers);
    if headers.contains_key(CONTENT_ENCODING) {
        headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    Response::from_parts(parts, body)
}

/// What a client gets that accepts no form of the document, in kube-apiserver's words.
pub fn not_acceptable() -> Response<ResponseBody> {
    let failure = Failure {
        code: StatusCode::NOT_ACCEPTABLE,
        reason: "NotAcceptable",
        message: "only the following media types are accepted: application/json, application/yaml, \
application/vnd.kubernetes.protobuf",
        retry_after: None,
    };
    failure.into_response(Encoding::Json).map(ResponseBody::own)
}

/// As kube-apiserver reads it: weights are not looked at.
fn names_gzip(value: &HeaderValue) -> bool {
    value.to_str().is_ok_and(|value| value.split(',').any(|coding| coding.trim() == "gzip"))
}
