//! Holds one discovery document in every form that clients ask for, each made once and then served from memory.

use std::io::Write as _;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::HeaderValue;
use serde::Serialize;

use super::document::{ApiVersion, GroupList, etag_of};
use super::{json, protobuf, unaggregated};

/// How a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// Media type.
    pub encoding: Encoding,
    /// Version of the aggregated document; unaggregated ones have but one.
    pub version: ApiVersion,
}

/// One of kube-apiserver's serialisations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// One line.
    Json,
    /// Indented.
    PrettyJson,
    /// For people.
    Yaml,
    /// In the envelope of `runtime.Unknown`.
    Protobuf,
}

impl Form {
    /// What client-go asks for.
    pub const USUAL: Form = Form { encoding: Encoding::Json, version: ApiVersion::V2 };
    const COUNT: usize = 8;

    fn index(self) -> usize {
        let encoding = match self.encoding {
            Encoding::Json => 0,
            Encoding::PrettyJson => 1,
            Encoding::Yaml => 2,
            Encoding::Protobuf => 3,
        };
        match self.version {
            ApiVersion::V2 => encoding,
            ApiVersion::V2beta1 => encoding + 4,
        }
    }
}

/// A document as it goes out.
#[derive(Clone, Debug)]
pub struct Body {
    /// As it is.
    pub plain: Bytes,
    /// Compressed, where kube-apiserver would.
    pub gzip: Option<Bytes>,
}

/// One document.
#[derive(Debug)]
pub struct Page {
    content: Content,
    etag: Option<HeaderValue>,
    forms: [OnceLock<Body>; Form::COUNT],
}

/// What a page is made from. Unaggregated ones are a part of the merged document, or a summary of it.
#[derive(Clone, Debug)]
enum Content {
    Aggregated(Arc<GroupList>),
    GroupList(Arc<GroupList>),
    Group { merged: Arc<GroupList>, group: usize },
    Resources { merged: Arc<GroupList>, group: usize, version: usize },
}

impl Page {
    /// `/api` or `/apis`, ready in its usual form.
    pub(super) fn aggregated(merged: Arc<GroupList>) -> Arc<Self> {
        let mut page = Self::of(Content::Aggregated(merged));
        page.etag = Some(etag_of(&page.body(Form::USUAL).plain));
        Arc::new(page)
    }

    /// The unaggregated `/apis`.
    pub(super) fn group_list(merged: Arc<GroupList>) -> Arc<Self> {
        Arc::new(Self::of(Content::GroupList(merged)))
    }

    /// The unaggregated `/apis/GROUP` of a group of `merged`.
    pub(super) fn group(merged: Arc<GroupList>, group: usize) -> Arc<Self> {
        Arc::new(Self::of(Content::Group { merged, group }))
    }

    /// The unaggregated `/apis/GROUP/VERSION` of a version of a group of `merged`.
    pub(super) fn resources(merged: Arc<GroupList>, group: usize, version: usize) -> Arc<Self> {
        Arc::new(Self::of(Content::Resources { merged, group, version }))
    }

    fn of(content: Content) -> Self {
        Self { content, etag: None, forms: Default::default() }
    }

    /// The tag, computed as kube-apiserver computes it: equal content has an equal tag on every node and in every form.
    /// Unaggregated documents have none.
    pub fn etag(&self) -> Option<&HeaderValue> {
        self.etag.as_ref()
    }

    /// The page in one form; made here and now if nobody asked for it before.
    pub fn body(&self, form: Form) -> &Body {
        self.forms[form.index()].get_or_init(|| Body::new(self.write(form), GZIP_THRESHOLD))
    }

    /// The page in one form; made beside the requests of this thread, for a large document takes a while.
    pub async fn prepared(self: &Arc<Self>, form: Form) -> Body {
        if let Some(body) = self.forms[form.index()].get() {
            return body.clone();
        }
        let page = Arc::clone(self);
        let made = tokio::task::spawn_blocking(move || page.body(form).clone()).await;
        // The runtime starts nothing more while it shuts down.
        made.unwrap_or_else(|_| self.body(form).clone())
    }

    /// Its media type in one form.
    pub fn media_type(&self, form: Form) -> &'static str {
        match &self.content {
            Content::Aggregated(_) => aggregated_type(form),
            _ => plain_type(form.encoding),
        }
    }

    fn write(&self, form: Form) -> Vec<u8> {
        let encoding = form.encoding;
        match &self.content {
            Content::Aggregated(merged) => encoded(encoding, &merged.outgoing(form.version), || {
                protobuf::aggregated(merged, form.version)
            }),
            Content::GroupList(merged) => {
                let list = unaggregated::group_list(&merged.items);
                encoded(encoding, &list, || protobuf::group_list(&list))
            }
            Content::Group { merged, group } => {
                let group = unaggregated::group(&merged.items[*group]);
                encoded(encoding, &group, || protobuf::group(&group))
            }
            Content::Resources { merged, group, version } => {
                let group = &merged.items[*group];
                let list = unaggregated::resource_list(group, &group.versions[*version]);
                encoded(encoding, &list, || protobuf::resource_list(&list))
            }
        }
    }
}

impl Body {
    /// A body, compressed too from a size on.
    pub(super) fn new(plain: impl Into<Bytes>, gzip_threshold: usize) -> Self {
        let plain = plain.into();
        let gzip = (plain.len() > gzip_threshold).then(|| compressed(&plain));
        Self { plain, gzip }
    }
}

/// kube-apiserver compresses no less (`defaultGzipThresholdBytes`).
const GZIP_THRESHOLD: usize = 128 * 1024;

fn compressed(plain: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 16), Compression::new(4));
    let written = encoder.write_all(plain).and_then(|()| encoder.finish());
    written.expect("memory takes what is written to it").into()
}

fn encoded(encoding: Encoding, value: &impl Serialize, protobuf: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    match encoding {
        Encoding::Json => json::compact(value),
        Encoding::PrettyJson => json::pretty(value),
        // JSON is YAML too, should there be a text that the YAML writer refuses.
        Encoding::Yaml => {
            serde_saphyr::to_string(value).map_or_else(|_| json::pretty(value), String::into_bytes)
        }
        Encoding::Protobuf => protobuf(),
    }
}

/// Media types as kube-apiserver writes them, without spaces.
fn aggregated_type(form: Form) -> &'static str {
    macro_rules! media_type {
        ($media_type:literal, $version:literal) => {
            concat!($media_type, ";g=apidiscovery.k8s.io;v=", $version, ";as=APIGroupDiscoveryList")
        };
    }
    match (form.encoding, form.version) {
        (Encoding::Json | Encoding::PrettyJson, ApiVersion::V2) => media_type!("application/json", "v2"),
        (Encoding::Json | Encoding::PrettyJson, ApiVersion::V2beta1) => {
            media_type!("application/json", "v2beta1")
        }
        (Encoding::Yaml, ApiVersion::V2) => media_type!("application/yaml", "v2"),
        (Encoding::Yaml, ApiVersion::V2beta1) => media_type!("application/yaml", "v2beta1"),
        (Encoding::Protobuf, ApiVersion::V2) => media_type!("application/vnd.kubernetes.protobuf", "v2"),
        (Encoding::Protobuf, ApiVersion::V2beta1) => {
            media_type!("application/vnd.kubernetes.protobuf", "v2beta1")
        }
    }
}

fn plain_type(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Json | Encoding::PrettyJson => "application/json",
        Encoding::Yaml => "application/yaml",
        Encoding::Protobuf => "application/vnd.kubernetes.protobuf",
    }
}

#[cfg(test)]
mod tests;
