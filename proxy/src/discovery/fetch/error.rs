//! Says why a server could not be asked what it serves.

use std::time::Duration;

use http::StatusCode;

use super::super::bounds::{MAX_OBJECTS, MAX_STRINGS};
use super::super::document::DocumentError;
use super::LEGACY_TIMEOUT;
use super::budget::MOST_BYTES;
use crate::asker::Unreached;

/// Why a server could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No connection.
    #[error("{path}: not reached")]
    NotReached {
        /// Path.
        path: String,
        /// Cause.
        source: Unreached,
    },
    /// An answer that is no discovery document, a redirect among them.
    #[error("{path}: answered {status}")]
    Status {
        /// Path.
        path: String,
        /// Status.
        status: StatusCode,
    },
    /// Something else than JSON.
    #[error("{path}: answered with {found:?}, not with JSON")]
    ContentType {
        /// Path.
        path: String,
        /// Beginning of the media type.
        found: String,
    },
    /// A body that was compressed although nobody asked for that.
    #[error("{path}: the body is compressed")]
    Encoded {
        /// Path.
        path: String,
    },
    /// A body that is too large, or too large together with those before it.
    #[error("{path}: more than {MOST_BYTES} bytes, {MAX_OBJECTS} objects or {MAX_STRINGS} strings in all")]
    TooLarge {
        /// Path.
        path: String,
    },
    /// A body that broke off.
    #[error("{path}: the body broke off")]
    Broken {
        /// Path.
        path: String,
        /// Cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A document that cannot be used.
    #[error("{path}: unusable document")]
    Document {
        /// Path.
        path: String,
        /// Cause.
        source: DocumentError,
    },
    /// Too slow.
    #[error("no complete answer within {} s", .limit.as_secs())]
    TimedOut {
        /// Time there was.
        limit: Duration,
    },
}

impl FetchError {
    /// Kind, as a label of a metric.
    pub fn reason(&self) -> &'static str {
        match self {
            FetchError::NotReached { .. } => "not_reached",
            FetchError::Status { .. } => "status",
            FetchError::ContentType { .. } => "content_type",
            FetchError::Encoded { .. } => "encoding",
            FetchError::TooLarge { .. } => "too_large",
            FetchError::Broken { .. } => "broken",
            FetchError::Document { .. } => "document",
            FetchError::TimedOut { .. } => "timeout",
        }
    }

    /// Whether another address of the same server may do better.
    pub fn is_of_address(&self) -> bool {
        matches!(self, FetchError::NotReached { .. })
    }

    /// Whether it is a document of servers that have no aggregated discovery.
    pub(super) fn is_legacy(&self) -> bool {
        let FetchError::Document { source: DocumentError::Kind { kind, .. }, .. } = self else {
            return false;
        };
        matches!(kind.as_str(), "APIVersions" | "APIGroupList")
    }

    pub(super) fn late(limit: Duration) -> Self {
        debug_assert!(limit <= LEGACY_TIMEOUT);
        FetchError::TimedOut { limit }
    }
}
