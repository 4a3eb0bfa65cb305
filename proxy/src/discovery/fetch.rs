//! Asks one API server what it serves.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::ETAG;
use http::{HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use serde::Deserialize;
use tokio::time::timeout;

use super::document::{DocumentError, GroupList};
use super::{Document, Part, Served};
use crate::asker::{Asker, Unreached};
use crate::upstream::Upstream;

/// Aggregated discovery without peers' resources. Servers that do not know the profile or v2 skip to what they know.
pub const ACCEPT_OWN: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList;profile=nopeer,\
application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

/// Time for one whole fetch. A server that hangs delays nobody else.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// A cluster with 10,000 resources has a document of about 10 MB.
const DOCUMENT_LIMIT: usize = 32 * 1024 * 1024;

/// Why a server could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No connection.
    #[error("{path}: not reached")]
    NotReached {
        /// Path.
        path: &'static str,
        /// Cause.
        source: Unreached,
    },
    /// An answer that is no discovery document.
    #[error("{path}: answered {status}")]
    Status {
        /// Path.
        path: &'static str,
        /// Status.
        status: StatusCode,
    },
    /// A body that broke off or is too large.
    #[error("{path}: body of more than {DOCUMENT_LIMIT} bytes, or broken off")]
    Body {
        /// Path.
        path: &'static str,
        /// Cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A document that cannot be used.
    #[error("{path}: unusable document")]
    Document {
        /// Path.
        path: &'static str,
        /// Cause.
        source: DocumentError,
    },
    /// Too slow.
    #[error("no complete answer within {} s", FETCH_TIMEOUT.as_secs())]
    TimedOut,
}

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
        timeout(FETCH_TIMEOUT, self.fetch_all(upstream, known)).await.map_err(|_| FetchError::TimedOut)?
    }

    async fn fetch_all(
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
        match self.get(upstream, path, ACCEPT_OWN, etag).await? {
            Answer::NotModified => Ok(None),
            Answer::New(body, etag) => {
                let list =
                    GroupList::decode(&body).map_err(|source| FetchError::Document { path, source })?;
                Ok(Some(Part { list, etag }))
            }
        }
    }

    async fn fetch_version(&self, upstream: &Upstream) -> Result<String, FetchError> {
        let path = "/version";
        match self.get(upstream, path, "application/json", None).await? {
            Answer::NotModified => Err(FetchError::Status { path, status: StatusCode::NOT_MODIFIED }),
            Answer::New(body, _) => {
                let info: VersionInfo = serde_json::from_slice(&body)
                    .map_err(|source| FetchError::Document { path, source: source.into() })?;
                Ok(info.git_version)
            }
        }
    }

    async fn get(
        &self,
        upstream: &Upstream,
        path: &'static str,
        accept: &'static str,
        etag: Option<HeaderValue>,
    ) -> Result<Answer, FetchError> {
        let response = self
            .asker
            .get(upstream, path, accept, etag)
            .await
            .map_err(|source| FetchError::NotReached { path, source })?;
        let etag = response.headers().get(ETAG).cloned();
        match response.status() {
            StatusCode::NOT_MODIFIED => Ok(Answer::NotModified),
            StatusCode::OK => {
                let body = Limited::new(response.into_body(), DOCUMENT_LIMIT).collect().await;
                let body = body.map_err(|source| FetchError::Body { path, source })?;
                Ok(Answer::New(body.to_bytes(), etag))
            }
            status => Err(FetchError::Status { path, status }),
        }
    }
}
