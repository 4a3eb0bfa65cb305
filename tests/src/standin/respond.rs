//! Makes responses: JSON in the client's style, plain text, and streams.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Response, StatusCode, request};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use serde::Serialize;

use super::query::Query;
use super::status::Status;

/// A response body; it can fail so that a fault can cut it.
pub(super) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// What handlers return: an answer, or a failure that becomes a Status.
pub(super) type Outcome = Result<Response<Body>, Box<Status>>;

/// Whether JSON is indented for this client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Compact,
    Pretty,
}

impl Style {
    /// Indents for `pretty=` in the query or the Accept header, and for browsers, curl and Wget, as kube-apiserver does.
    pub(super) fn of(request: &request::Parts) -> Self {
        let query = Query::parse(request.uri.query().unwrap_or_default());
        let text = |name| request.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let by_agent = || {
            let agent = text(USER_AGENT).unwrap_or_default();
            ["curl", "Wget", "Mozilla/5.0"].iter().any(|prefix| agent.starts_with(prefix))
        };
        let by_accept = || text(http::header::ACCEPT).is_some_and(|accept| accept.contains("pretty=1"));
        let pretty = match query.get("pretty") {
            Some(_) => query.is_set("pretty"),
            None => by_accept() || by_agent(),
        };
        if pretty { Self::Pretty } else { Self::Compact }
    }

    /// The bytes of `value`; compact JSON ends with a newline, indented JSON does not, as Go's encoders have it.
    pub(super) fn render<T: Serialize>(self, value: &T) -> Bytes {
        let text = match self {
            Self::Compact => serde_json::to_vec(value).map(|mut text| {
                text.push(b'\n');
                text
            }),
            Self::Pretty => serde_json::to_vec_pretty(value),
        };
        text.expect("JSON values and derived structs with string keys always serialise").into()
    }
}

/// `value` as `application/json`.
pub(super) fn json<T: Serialize>(style: Style, code: StatusCode, value: &T) -> Response<Body> {
    with_type(code, "application/json", style.render(value))
}

/// `status` as the answer, with Retry-After where it has one.
pub(super) fn failure(style: Style, status: &Status) -> Response<Body> {
    let mut response = json(style, status.code(), status);
    if let Some(seconds) = status.retry_after_seconds() {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// `text` as Go's http.Error and fmt.Fprint send it.
pub(super) fn text(code: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = with_type(code, "text/plain; charset=utf-8", text.into());
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

/// What kube-apiserver says about a path that nothing is registered for.
pub(super) fn page_not_found() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// `bytes` with `media_type`.
pub(super) fn with_type(code: StatusCode, media_type: &'static str, bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(whole(bytes));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// A body that is known as a whole.
pub(super) fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(never).boxed_unsync()
}

/// A body of nothing.
pub(super) fn empty() -> Body {
    Empty::new().map_err(never).boxed_unsync()
}

fn never(error: Infallible) -> std::io::Error {
    match error {}
}

/// Adds what every answer of kube-apiserver carries.
pub(super) fn decorate(headers: &mut HeaderMap, audit_id: HeaderValue) {
    headers.insert("audit-id", audit_id);
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    }
}
