//! Asks one API server what it serves.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderValue, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use tokio::time::timeout;

use super::document::GroupList;
use super::{Document, Part, Served};
use crate::asker::{self, Asker, Unread};
use crate::upstream::Upstream;

mod error;
mod legacy;

pub use error::FetchError;

/// Aggregated discovery without peers' resources. Servers that do not know the profile or v2 skip to what they know, and
/// those without aggregated discovery to the last, over which any aggregated clause wins.
pub const ACCEPT_OWN_OR_PLAIN: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList;profile=nopeer,\
application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,\
application/json";
const ACCEPT_JSON: &str = "application/json";

/// Time for one whole fetch. A server that hangs delays nobody else.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for a server that has to be asked for every group version.
const LEGACY_TIMEOUT: Duration = Duration::from_secs(20);
/// A cluster with 10,000 resources has a document of about 10 MB.
const DOCUMENT_LIMIT: usize = 16 * 1024 * 1024;
/// The same cluster's document has about 100,000 objects. An empty one takes 2 bytes on the wire and a hundred times that
/// in memory.
const MOST_OBJECTS: usize = 250_000;
/// The same for all that is in lists, of which the smallest take eight times as much in memory.
const MOST_COMMAS: usize = 4_000_000;

/// Asks servers what they serve.
#[derive(Debug)]
pub struct Fetcher {
    asker: Arc<Asker>,
}

enum Answer {
    NotModified,
    New(Bytes, Option<HeaderValue>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct VersionInfo {
    git_version: String,
}

impl Fetcher {
    /// A fetcher.
    pub fn new(asker: Arc<Asker>) -> Self {
        Self { asker }
    }

    /// What a server serves now; the known set when that has not changed.
    ///
    /// # Errors
    /// See [`FetchError`]; the caller keeps what it knows.
    pub async fn fetch(
        &self,
        upstream: &Upstream,
        known: Option<&Arc<Served>>,
    ) -> Result<Arc<Served>, FetchError> {
        let aggregated = timeout(FETCH_TIMEOUT, self.fetch_aggregated(upstream, known)).await;
        let found = match aggregated.unwrap_or(Err(FetchError::late(FETCH_TIMEOUT))) {
            Err(error) if error.is_legacy() => {
                let legacy =
                    timeout(LEGACY_TIMEOUT, self.fetch_legacy(upstream, known.map(|known| &**known))).await;
                Arc::new(legacy.unwrap_or(Err(FetchError::late(LEGACY_TIMEOUT)))?)
            }
            found => found?,
        };
        Ok(match known {
            // Tags can change, or not be there, although nothing else did.
            Some(known) if known.serves_the_same(&found) => Arc::clone(known),
            _ => found,
        })
    }

    /// Forgets connections to all other servers.
    pub fn keep_only(&self, upstreams: &[Upstream]) {
        self.asker.keep_only(upstreams);
    }

    async fn fetch_aggregated(
        &self,
        upstream: &Upstream,
        known: Option<&Arc<Served>>,
    ) -> Result<Arc<Served>, FetchError> {
        let core = self.fetch_part(upstream, Document::Core, known).await?;
        let groups = self.fetch_part(upstream, Document::Groups, known).await?;
        if let (Some(known), None, None) = (known, &core, &groups) {
            return Ok(Arc::clone(known));
        }
        let kept = |document| known.map(|known| known.part(document).clone()).unwrap_or_default();
        Ok(Arc::new(Served {
            core: core.unwrap_or_else(|| kept(Document::Core)),
            groups: groups.unwrap_or_else(|| kept(Document::Groups)),
            version: self.fetch_version(upstream).await?,
        }))
    }

    /// `None` when the known part is still right.
    async fn fetch_part(
        &self,
        upstream: &Upstream,
        document: Document,
        known: Option<&Arc<Served>>,
    ) -> Result<Option<Part>, FetchError> {
        let path = document.path();
        let etag = known.and_then(|known| known.part(document).etag.clone());
        let is_conditional = etag.is_some();
        match self.get(upstream, path, ACCEPT_OWN_OR_PLAIN, etag).await? {
            Answer::NotModified if is_conditional => Ok(None),
            Answer::NotModified => {
                Err(FetchError::Status { path: path.to_owned(), status: StatusCode::NOT_MODIFIED })
            }
            Answer::New(body, etag) => {
                let list = GroupList::decode(&body)
                    .map_err(|source| FetchError::Document { path: path.to_owned(), source })?;
                Ok(Some(Part { list, etag }))
            }
        }
    }

    async fn fetch_version(&self, upstream: &Upstream) -> Result<String, FetchError> {
        let info: VersionInfo = self.get_json(upstream, "/version").await?;
        Ok(info.git_version)
    }

    async fn get_json<T: for<'de> Deserialize<'de>>(
        &self,
        upstream: &Upstream,
        path: &str,
    ) -> Result<T, FetchError> {
        match self.get(upstream, path, ACCEPT_JSON, None).await? {
            Answer::NotModified => {
                Err(FetchError::Status { path: path.to_owned(), status: StatusCode::NOT_MODIFIED })
            }
            Answer::New(body, _) => serde_json::from_slice(&body)
                .map_err(|source| FetchError::Document { path: path.to_owned(), source: source.into() }),
        }
    }

    async fn get(
        &self,
        upstream: &Upstream,
        path: &str,
        accept: &'static str,
        etag: Option<HeaderValue>,
    ) -> Result<Answer, FetchError> {
        let response = self.asker.get(upstream, path, accept, etag).await;
        let response = response.map_err(|source| FetchError::NotReached { path: path.to_owned(), source })?;
        let (parts, body) = response.into_parts();
        match parts.status {
            StatusCode::NOT_MODIFIED => Ok(Answer::NotModified),
            StatusCode::OK => {
                check(&parts.headers, path)?;
                let body = read(body, path).await?;
                Ok(Answer::New(body, parts.headers.get(ETAG).cloned()))
            }
            status => Err(FetchError::Status { path: path.to_owned(), status }),
        }
    }
}

/// Whether the headers announce plain JSON; nothing else was asked for. Where they announce nothing the content decides.
fn check(headers: &HeaderMap, path: &str) -> Result<(), FetchError> {
    let media_type = headers.get(CONTENT_TYPE).map_or(ACCEPT_JSON.as_bytes(), HeaderValue::as_bytes);
    let essence = media_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if !essence.eq_ignore_ascii_case(ACCEPT_JSON.as_bytes()) {
        let found = String::from_utf8_lossy(&essence[..essence.len().min(64)]).into_owned();
        return Err(FetchError::ContentType { path: path.to_owned(), found });
    }
    let is_plain = |encoding: &HeaderValue| encoding.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get(CONTENT_ENCODING).is_some_and(|encoding| !is_plain(encoding)) {
        return Err(FetchError::Encoded { path: path.to_owned() });
    }
    Ok(())
}

/// A body within its limits.
async fn read(body: Incoming, path: &str) -> Result<Bytes, FetchError> {
    let too_large = || FetchError::TooLarge { path: path.to_owned() };
    let body = asker::read(body, DOCUMENT_LIMIT).await.map_err(|error| match error {
        Unread::TooLarge => too_large(),
        Unread::Broken(source) => FetchError::Broken { path: path.to_owned(), source },
    })?;
    // Strings may contain them too; that only makes the limit stricter.
    let count = |wanted: u8| body.iter().map(|byte| usize::from(*byte == wanted)).sum::<usize>();
    if count(b'{') > MOST_OBJECTS || count(b',') > MOST_COMMAS {
        return Err(too_large());
    }
    Ok(body)
}
