//! Fetches one server's `/openapi/v2` in both forms, under the proxy's own name.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::described::Api;
use super::error::{DocumentError, OpenApiError};
use super::gnostic::Gnostic;
use super::swagger::Swagger;
use super::{DOCUMENT_LIMIT, FETCH_TIMEOUT, Form};
use crate::asker::{Asker, Unread, read};
use crate::upstream::Upstream;

/// A server's document, looked through.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) json: Bytes,
    pub(super) protobuf: Bytes,
    /// The server's tag, the same for both forms.
    pub(super) etag: Option<HeaderValue>,
    /// What it describes.
    pub(super) apis: Vec<Api>,
}

const PATH: &str = "/openapi/v2";

/// What a server describes now; the known document when that has not changed.
///
/// # Errors
/// See [`OpenApiError`]; the caller keeps what it has.
pub(super) async fn fetch(
    asker: &Asker,
    upstream: &Upstream,
    known: Option<&Arc<Source>>,
) -> Result<Arc<Source>, OpenApiError> {
    timeout(FETCH_TIMEOUT, both_forms(asker, upstream, known)).await.unwrap_or(Err(OpenApiError::TimedOut))
}

async fn both_forms(
    asker: &Asker,
    upstream: &Upstream,
    known: Option<&Arc<Source>>,
) -> Result<Arc<Source>, OpenApiError> {
    let condition = known.and_then(|known| known.etag.clone());
    let known = known.filter(|_| condition.is_some());
    let (json, etag) = match (get(asker, upstream, Form::Json, condition).await?, known) {
        (Some(json), _) => json,
        (None, Some(known)) => return Ok(Arc::clone(known)),
        (None, None) => return Err(OpenApiError::Status { status: StatusCode::NOT_MODIFIED }),
    };
    let protobuf = get(asker, upstream, Form::Protobuf, None).await?;
    let (protobuf, protobuf_etag) =
        protobuf.ok_or(OpenApiError::Status { status: StatusCode::NOT_MODIFIED })?;
    if protobuf_etag != etag {
        return Err(OpenApiError::Torn);
    }
    let source = spawn_blocking(move || Source::of(json, protobuf, etag)).await;
    // The runtime starts nothing more while it shuts down.
    Ok(Arc::new(source.map_err(|_| OpenApiError::TimedOut)??))
}

/// One form and its tag; `None` when it has the tag of the condition.
async fn get(
    asker: &Asker,
    upstream: &Upstream,
    form: Form,
    condition: Option<HeaderValue>,
) -> Result<Option<(Bytes, Option<HeaderValue>)>, OpenApiError> {
    let response = asker.get(upstream, PATH, form.asked_as(), condition).await;
    let (parts, body) = response.map_err(|source| OpenApiError::NotReached { source })?.into_parts();
    match parts.status {
        StatusCode::NOT_MODIFIED => return Ok(None),
        StatusCode::OK => check(&parts.headers, form)?,
        status => return Err(OpenApiError::Status { status }),
    }
    let body = read(body, DOCUMENT_LIMIT).await.map_err(|error| match error {
        Unread::TooLarge => OpenApiError::TooLarge,
        Unread::Broken(source) => OpenApiError::Broken { source },
    })?;
    Ok(Some((body, parts.headers.get(ETAG).cloned())))
}

/// Whether the headers announce the form that was asked for, as it is.
fn check(headers: &HeaderMap, form: Form) -> Result<(), OpenApiError> {
    let announced = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let essence = announced.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if ![form.media_type(), form.asked_as()].iter().any(|known| known.as_bytes() == essence) {
        let found = String::from_utf8_lossy(&essence[..essence.len().min(64)]).into_owned();
        return Err(OpenApiError::ContentType { found });
    }
    if headers.contains_key(CONTENT_ENCODING) { Err(OpenApiError::Encoded) } else { Ok(()) }
}

impl Source {
    /// Looks the two forms of a document through.
    ///
    /// # Errors
    /// When one of them is none.
    pub(super) fn of(json: Bytes, protobuf: Bytes, etag: Option<HeaderValue>) -> Result<Self, DocumentError> {
        Gnostic::parse(&protobuf)?;
        let apis = Swagger::parse(&json)?.apis();
        Ok(Self { json, protobuf, etag, apis })
    }
}
