//! Holds the local server's `/openapi/v2` with what only peers describe added, ready in every form.

use std::sync::Arc;

use http::header::{CONTENT_TYPE, ETAG, VARY};
use http::{HeaderValue, Response, StatusCode};

use super::error::DocumentError;
use super::fetch::Source;
use super::gnostic::Gnostic;
use super::swagger::Swagger;
use super::{Form, PARTIAL};
use crate::discovery::answer::{self, Wish};
use crate::discovery::etag;
use crate::discovery::page::Body;
use crate::forward::{Outbound, ResponseBody};

/// The merged document.
#[derive(Debug)]
pub struct Merged {
    json: Body,
    protobuf: Body,
    etag: HeaderValue,
    /// The local server's own tag: asking with it costs a 304.
    local_etag: Option<HeaderValue>,
}

/// kube-apiserver compresses no less (gziphandler's `DefaultMinSize`).
const GZIP_THRESHOLD: usize = 1400;

impl Merged {
    /// Adds to the local server's document what each peer in turn describes beyond it. Takes a while: megabytes are read and compressed.
    ///
    /// # Errors
    /// When a document cannot be read; sources were looked through before.
    pub(super) fn of(local: &Source, peers: &[Arc<Source>]) -> Result<Self, DocumentError> {
        let mut json = Swagger::parse(&local.json)?;
        let mut protobuf = Gnostic::parse(&local.protobuf)?;
        let mut is_more = false;
        for peer in peers {
            is_more |= json.add(&Swagger::parse(&peer.json)?);
            protobuf.add(&Gnostic::parse(&peer.protobuf)?);
        }
        let written = || (json.write().into(), protobuf.write().into());
        // Byte for byte the local server's where that is the whole.
        let same = || (local.json.clone(), local.protobuf.clone());
        let (json, protobuf) = if is_more { written() } else { same() };
        Ok(Self {
            // One tag for both, as kube-apiserver has it.
            etag: etag::of(&[&json]),
            json: Body::new(json, GZIP_THRESHOLD),
            protobuf: Body::new(protobuf, GZIP_THRESHOLD),
            local_etag: local.etag.clone(),
        })
    }

    /// Turns a client's request for the document into one that asks the local server for its leave.
    pub fn ask_local(&self, outbound: &mut Outbound) -> Wish {
        let headers = outbound.headers_mut();
        let wish = Wish::taken_from(headers);
        for name in PARTIAL {
            headers.remove(name);
        }
        answer::ask(headers, Form::Json.media_type(), self.local_etag.as_ref());
        wish
    }

    /// The tag of the local server's document, if that is another than the one that was merged.
    pub fn news(&self, local: &Response<ResponseBody>) -> Option<Option<HeaderValue>> {
        let etag = local.headers().get(ETAG);
        let is_new = local.status() == StatusCode::OK && etag != self.local_etag.as_ref();
        is_new.then(|| etag.cloned())
    }

    /// Whether it was made of the local server's document with this tag.
    pub fn is_made_of(&self, local_etag: Option<&HeaderValue>) -> bool {
        self.local_etag.as_ref() == local_etag
    }

    /// Puts the document into the local server's answer.
    pub fn in_place_of(
        &self,
        local: Response<ResponseBody>,
        form: Option<Form>,
        wish: &Wish,
    ) -> Response<ResponseBody> {
        let (mut parts, _) = local.into_parts();
        let headers = &mut parts.headers;
        answer::remove_description(headers);
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
        headers.append(VARY, HeaderValue::from_static("Accept"));
        let Some(form) = form else {
            parts.status = StatusCode::NOT_ACCEPTABLE;
            return Response::from_parts(parts, ResponseBody::empty());
        };
        headers.insert(ETAG, self.etag.clone());
        if wish.has(&self.etag) {
            parts.status = StatusCode::NOT_MODIFIED;
            return Response::from_parts(parts, ResponseBody::empty());
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(form.media_type()));
        parts.status = StatusCode::OK;
        let body = match form {
            Form::Json => &self.json,
            Form::Protobuf => &self.protobuf,
        };
        let body = wish.coded(body.clone(), &mut parts.headers);
        Response::from_parts(parts, body)
    }
}

/// Whether the local server's answer came after authorisation.
pub fn is_authorised(local: &Response<ResponseBody>) -> bool {
    matches!(local.status(), StatusCode::OK | StatusCode::NOT_MODIFIED)
}
