//! Holds the local server's `/openapi/v2` with what only peers describe added, ready in every form.

use std::sync::Arc;

use http::header::{CONTENT_TYPE, ETAG, VARY};
use http::{HeaderValue, Response, StatusCode};

use super::described::Api;
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

/// A peer's document, as far as it counts.
#[derive(Clone, Debug)]
pub(super) struct Described {
    pub(super) source: Arc<Source>,
    /// What it describes although nobody serves it any more, in order.
    pub(super) gone: Vec<Api>,
}

/// kube-apiserver compresses no less (gziphandler's `DefaultMinSize`).
const GZIP_THRESHOLD: usize = 1400;

impl Described {
    /// Whether it is that very document, and as much of it counts.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.source, &other.source) && self.gone == other.gone
    }
}

impl Merged {
    /// Adds to the local server's document what each peer in turn describes beyond it. Takes a while: megabytes are read and
    /// compressed. Peers of which neither form would be kept below `limit` are left out; their number is returned too.
    ///
    /// # Errors
    /// When a document cannot be read; sources were looked through before.
    pub(super) fn of(
        local: &Source,
        peers: &[Described],
        limit: usize,
    ) -> Result<(Self, usize), DocumentError> {
        let mut json = Swagger::parse(&local.json)?;
        let mut protobuf = Gnostic::parse(&local.protobuf)?;
        let (mut is_more, mut left_out) = (false, 0);
        for Described { source, gone } in peers {
            let mut more_json = Swagger::parse(&source.json)?;
            let mut more_protobuf = Gnostic::parse(&source.protobuf)?;
            if !gone.is_empty() {
                more_protobuf.take_out(&more_json.take_out(gone));
            }
            let sizes =
                [json.size() + json.growth(&more_json), protobuf.size() + protobuf.growth(&more_protobuf)];
            if sizes.iter().any(|size| *size > limit) {
                left_out += 1;
                continue;
            }
            is_more |= json.add(&more_json);
            protobuf.add(&more_protobuf);
        }
        let written = || (json.write().into(), protobuf.write().into());
        // Byte for byte the local server's where that is the whole.
        let same = || (local.json.clone(), local.protobuf.clone());
        let (json, protobuf) = if is_more { written() } else { same() };
        let merged = Self {
            // One tag for both, as kube-apiserver has it.
            etag: etag::of(&[&json]),
            json: Body::new(json, GZIP_THRESHOLD),
            protobuf: Body::new(protobuf, GZIP_THRESHOLD),
            local_etag: local.etag.clone(),
        };
        Ok((merged, left_out))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A document of one path with so many bytes.
    fn describing(path: &str, bytes: usize) -> Source {
        let text = "x".repeat(bytes);
        let json = format!(r#"{{"swagger":"2.0","paths":{{"{path}":{{"x":"{text}"}}}}}}"#);
        Source::of(json.into(), "\x0a\x032.0".into(), None).expect("a document")
    }

    #[test]
    fn peers_that_describe_too_much_are_left_out_and_the_others_are_not() {
        let described = |source| Described { source: Arc::new(source), gone: Vec::new() };
        let peers = [("/a", 10), ("/b", 10_000), ("/c", 10)].map(|(path, bytes)| describing(path, bytes));
        let peers = peers.map(described);
        let of = |limit| Merged::of(&describing("/", 10), &peers, limit).expect("documents");
        let has = |merged: &Merged| ["/a", "/b", "/c"].map(|path| text(merged).contains(path));
        let (all, left_out) = of(20_000);
        assert_eq!((has(&all), left_out), ([true; 3], 0));
        let (some, left_out) = of(10_000);
        assert_eq!((has(&some), left_out), ([true, false, true], 1));
    }

    fn text(merged: &Merged) -> String {
        String::from_utf8(merged.json.plain.to_vec()).expect("JSON is text")
    }
}
