//! Answers `/openapi/v2` as kube-openapi's handler does: two forms of one document with one tag, compressed and
//! conditional.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_ENCODING, ETAG, IF_NONE_MATCH, LAST_MODIFIED, VARY,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::{Described, digest, gnostic, info, versions};
use crate::standin::discovery;
use crate::standin::documents::Documents;
use crate::standin::respond::{self, Body};

const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// gziphandler's `DefaultMinSize`.
const LEAST_GZIP: usize = 1400;

pub(super) fn serve(documents: &Documents, headers: &HeaderMap) -> Response<Body> {
    let mut response = answer(documents, headers);
    let vary = ["Accept-Encoding", "Accept"].map(HeaderValue::from_static);
    for value in vary {
        response.headers_mut().append(VARY, value);
    }
    response
}

fn answer(documents: &Documents, headers: &HeaderMap) -> Response<Body> {
    let accept = discovery::accept_header(headers);
    let Some(is_json) = is_json(&accept) else {
        let mut response = Response::new(respond::empty());
        *response.status_mut() = StatusCode::NOT_ACCEPTABLE;
        return response;
    };
    let document = document(documents);
    let json = document.to_string().into_bytes();
    let etag =
        HeaderValue::from_str(&format!("\"{}\"", digest(&json))).expect("hexadecimal digits in quotes");
    let listed = headers.get(IF_NONE_MATCH).and_then(|condition| condition.to_str().ok()).unwrap_or_default();
    if listed.split(',').any(|tag| tag.trim() == "*" || tag.trim().trim_start_matches("W/") == etag) {
        let mut response = Response::new(respond::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response.headers_mut().insert(ETAG, etag);
        return response;
    }
    let (media_type, body) =
        if is_json { ("application/json", json) } else { (PROTOBUF, gnostic::document(&document)) };
    let takes_gzip = headers.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
    let takes_gzip = takes_gzip.is_some_and(|value| value.contains("gzip")) && body.len() >= LEAST_GZIP;
    let body = if takes_gzip { compressed(&body) } else { body };
    let mut response = respond::with_type(StatusCode::OK, media_type, body.into());
    let headers = response.headers_mut();
    headers.insert(ETAG, etag);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(LAST_MODIFIED, HeaderValue::from_static("Sun, 06 Nov 2025 08:49:37 GMT"));
    if takes_gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// Whether JSON is wanted, and not protobuf; the first clause that names either decides.
fn is_json(accept: &str) -> Option<bool> {
    let accept = if accept.is_empty() { "*/*" } else { accept };
    accept.split(',').find_map(|clause| match clause.split(';').next().unwrap_or_default().trim() {
        "*/*" | "application/*" | "application/json" => Some(true),
        // Clients ask with `@`, which is no valid media type to answer with.
        "application/com.github.proto-openapi.spec.v2@v1.0+protobuf" | PROTOBUF => Some(false),
        _ => None,
    })
}

fn compressed(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let written = encoder.write_all(body).and_then(|()| encoder.finish());
    written.expect("memory takes what is written to it")
}

/// Everything in one document.
fn document(documents: &Documents) -> Value {
    let mut described = Described::new("#/definitions/", false);
    for list in [&documents.core.list, &documents.groups.list] {
        for (group, version) in list.items.iter().flat_map(versions) {
            described.add(group, version);
        }
    }
    json!({"swagger": "2.0", "info": info(documents), "paths": described.paths,
           "definitions": described.schemas})
}
