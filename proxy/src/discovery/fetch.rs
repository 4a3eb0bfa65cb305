//! Asks one API server what it serves.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;
use tokio::time::timeout;

use super::document::GroupList;
use super::{Document, Part, Served};
use crate::asker::Asker;
use crate::upstream::Upstream;

mod budget;
mod error;
mod legacy;

use budget::Budget;
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
        let budget = Budget::default();
        let aggregated = timeout(FETCH_TIMEOUT, self.fetch_aggregated(upstream, known, &budget)).await;
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
        budget: &Budget,
    ) -> Result<Arc<Served>, FetchError> {
        let core = self.fetch_part(upstream, Document::Core, known, budget).await?;
        let groups = self.fetch_part(upstream, Document::Groups, known, budget).await?;
        let version = self.fetch_version(upstream, budget).await;
        if let (Some(known), None, None) = (known, &core, &groups) {
            return Ok(match version {
                // An upgrade can change nothing else.
                Ok(version) if version != known.version => {
                    Arc::new(Served { version, ..Served::clone(known) })
                }
                _ => Arc::clone(known),
            });
        }
        let kept = |document| known.map(|known| known.part(document).clone()).unwrap_or_default();
        Ok(Arc::new(Served {
            core: core.unwrap_or_else(|| kept(Document::Core)),
            groups: groups.unwrap_or_else(|| kept(Document::Groups)),
            version: version?,
        }))
    }

    /// `None` when the known part is still right.
    async fn fetch_part(
        &self,
        upstream: &Upstream,
        document: Document,
        known: Option<&Arc<Served>>,
        budget: &Budget,
    ) -> Result<Option<Part>, FetchError> {
        let path = document.path();
        let etag = known.and_then(|known| known.part(document).etag.clone());
        let is_conditional = etag.is_some();
        match self.get(upstream, path, ACCEPT_OWN_OR_PLAIN, etag, budget).await? {
            Answer::NotModified if is_conditional => Ok(None),
            Answer::NotModified => {
                Err(FetchError::Status { path: path.to_owned(), status: StatusCode::NOT_MODIFIED })
            }
            Answer::New(body, etag) => {
                let list = GroupList::parse(&body)
                    .map_err(|source| FetchError::Document { path: path.to_owned(), source })?;
                Ok(Some(Part { list, etag }))
            }
        }
    }

    async fn fetch_version(&self, upstream: &Upstream, budget: &Budget) -> Result<String, FetchError> {
        let info: VersionInfo = self.get_json(upstream, "/version", budget).await?;
        Ok(info.git_version)
    }

    async fn get_json<T: for<'de> Deserialize<'de>>(
        &self,
        upstream: &Upstream,
        path: &str,
        budget: &Budget,
    ) -> Result<T, FetchError> {
        match self.get(upstream, path, ACCEPT_JSON, None, budget).await? {
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
        budget: &Budget,
    ) -> Result<Answer, FetchError> {
        let response = self.asker.get(upstream, path, accept, etag).await;
        let response = response.map_err(|source| FetchError::NotReached { path: path.to_owned(), source })?;
        let (parts, body) = response.into_parts();
        match parts.status {
            StatusCode::NOT_MODIFIED => Ok(Answer::NotModified),
            StatusCode::OK => {
                check(&parts.headers, path)?;
                let body = budget.read(body, path).await?;
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
