//! `OpenAPI` of the whole cluster: each document comes from a server that has it, and the index names them all.
//!
//! `/openapi/v3` has one per group version, which the server answers that serves most of it. `/openapi/v2` is one for
//! everything: the local server's, with the paths and definitions added that only peers have.

use std::collections::BTreeMap;
use std::time::Duration;

use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_MATCH,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE,
};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use serde::{Deserialize, Serialize};

use super::view::View;
use super::{etag, json};
use crate::forward::{Outbound, ResponseBody};

mod described;
mod error;
mod fetch;
mod form;
mod gnostic;
mod merged;
pub mod merger;
mod swagger;

pub use error::DocumentError;
pub use form::Form;
use gnostic::Gnostic;
pub use merged::{Merged, is_authorised};
use swagger::Swagger;

/// An `OpenAPI` document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenApi<'a> {
    /// `/openapi/v2`.
    V2,
    /// `/openapi/v3`.
    Index,
    /// `/openapi/v3/apis/GROUP/VERSION` or `/openapi/v3/api/VERSION`.
    V3 {
        /// Empty for the core group.
        group: &'a str,
        /// Version.
        version: &'a str,
    },
}

impl<'a> OpenApi<'a> {
    /// The document that a request for a decoded path asks for.
    pub fn asked(method: &Method, path: &'a str) -> Option<Self> {
        if *method != Method::GET {
            return None;
        }
        let rest = path.strip_prefix("/openapi/")?;
        let mut segments = rest.split('/');
        match (segments.next()?, segments.next(), segments.next(), segments.next(), segments.next()) {
            ("v2", None, ..) => Some(OpenApi::V2),
            ("v3", None, ..) => Some(OpenApi::Index),
            ("v3", Some("api"), Some(version), None, _) => Some(OpenApi::V3 { group: "", version }),
            ("v3", Some("apis"), Some(group), Some(version), None) if !group.is_empty() => {
                Some(OpenApi::V3 { group, version })
            }
            _ => None,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Index {
    paths: BTreeMap<String, Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(rename = "serverRelativeURL")]
    server_relative_url: String,
}

/// Turns a client's request for the index into one for the whole of the local server's; the tag the client has.
pub fn ask_for_index(outbound: &mut Outbound) -> Option<HeaderValue> {
    let headers = outbound.headers_mut();
    let condition = headers.remove(IF_NONE_MATCH);
    headers.remove(ACCEPT_ENCODING);
    for name in PARTIAL {
        headers.remove(name);
    }
    condition
}

/// Adds to the local server's index what is to be had from peers. Any other answer is untouched.
///
/// # Errors
/// When the server broke off in the middle of its answer.
pub async fn completed(
    local: Response<ResponseBody>,
    view: &View,
    condition: Option<&HeaderValue>,
) -> Result<Response<ResponseBody>, hyper::Error> {
    let is_small = local.body().size_hint().upper().is_some_and(|size| size <= LARGEST_INDEX);
    if local.status() != StatusCode::OK || !is_small || local.headers().contains_key(CONTENT_ENCODING) {
        return Ok(local);
    }
    let (mut parts, body) = local.into_parts();
    let text = body.collect().await?.to_bytes();
    let Ok(mut index) = serde_json::from_slice::<Index>(&text) else {
        return Ok(Response::from_parts(parts, ResponseBody::full(text)));
    };
    for (group, version) in view.elsewhere() {
        let path =
            if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
        // Without the hash of its content, that is, not to be kept: who answers can change.
        let entry = Entry { server_relative_url: format!("/openapi/v3/{path}") };
        index.paths.insert(path, entry);
    }
    let mut text = json::compact(&index);
    // kube-apiserver's has no newline.
    text.pop();
    let etag = etag::of(&[&text]);
    let headers = &mut parts.headers;
    for name in [ACCEPT_RANGES, CONTENT_LENGTH, LAST_MODIFIED] {
        headers.remove(name);
    }
    headers.insert(ETAG, etag.clone());
    if condition == Some(&etag) {
        headers.remove(CONTENT_TYPE);
        parts.status = StatusCode::NOT_MODIFIED;
        return Ok(Response::from_parts(parts, ResponseBody::empty()));
    }
    Ok(Response::from_parts(parts, ResponseBody::full(text.into())))
}

/// A document of one server with what another's describes beyond it added, in JSON.
///
/// # Errors
/// When one of them is none that can be merged.
pub fn merged_json(first: &[u8], second: &[u8]) -> Result<Vec<u8>, DocumentError> {
    let mut merged = Swagger::parse(first)?;
    merged.add(&Swagger::parse(second)?);
    Ok(merged.write())
}

/// The same in protobuf.
///
/// # Errors
/// When one of them is none that can be merged.
pub fn merged_protobuf(first: &[u8], second: &[u8]) -> Result<Vec<u8>, DocumentError> {
    let mut merged = Gnostic::parse(first)?;
    merged.add(&Gnostic::parse(second)?);
    Ok(merged.write())
}

/// What makes an answer depend on more than the document and its tag.
const PARTIAL: [HeaderName; 5] = [IF_MATCH, IF_MODIFIED_SINCE, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE];
/// A path has about six levels, a type three; types of custom resources are written out in each other.
const MAX_DEPTH: usize = 512;
/// A server without custom resources has 4 MB of JSON; with thousands of them ten times that.
const DOCUMENT_LIMIT: usize = 64 * 1024 * 1024;
/// Time for both forms. kube-apiserver makes them when they are first asked for, which takes it seconds.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);
/// A cluster with 10,000 resources has about 60,000 paths and 30,000 definitions.
const MOST_NAMES: usize = 250_000;
/// About ten times the index of a cluster with 5,000 group versions.
const LARGEST_INDEX: u64 = 8 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_document() {
        let of = |group, version| Some(OpenApi::V3 { group, version });
        for (path, expected) in [
            ("/openapi/v2", Some(OpenApi::V2)),
            ("/openapi/v3", Some(OpenApi::Index)),
            ("/openapi/v3/api/v1", of("", "v1")),
            ("/openapi/v3/apis/batch/v1", of("batch", "v1")),
            ("/openapi/v3/api", None),
            ("/openapi/v3/apis", None),
            ("/openapi/v3/apis/batch", None),
            ("/openapi/v3/apis//v1", None),
            ("/openapi/v3/apis/batch/v1/x", None),
            ("/openapi/v3/version", None),
            ("/openapi", None),
            ("/apis/batch/v1", None),
        ] {
            assert_eq!(OpenApi::asked(&Method::GET, path), expected, "{path}");
            assert_eq!(OpenApi::asked(&Method::POST, path), None, "{path}");
        }
    }
}
