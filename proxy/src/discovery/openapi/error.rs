//! Says why an `OpenAPI` document could not be had, or not be merged.

use http::StatusCode;

use super::{DOCUMENT_LIMIT, FETCH_TIMEOUT, MOST_NAMES};
use crate::asker::Unreached;

/// Why a server's `/openapi/v2` was not had.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenApiError {
    /// No connection.
    #[error("not reached")]
    NotReached {
        /// Cause.
        source: Unreached,
    },
    /// An answer that is no document.
    #[error("answered {status}")]
    Status {
        /// Status.
        status: StatusCode,
    },
    /// Another form than the one that was asked for.
    #[error("answered with {found:?}")]
    ContentType {
        /// Beginning of the media type.
        found: String,
    },
    /// A body that was compressed although nobody asked for that.
    #[error("the body is compressed")]
    Encoded,
    /// A body that is too large.
    #[error("more than {DOCUMENT_LIMIT} bytes")]
    TooLarge,
    /// A body that broke off.
    #[error("the body broke off")]
    Broken {
        /// Cause.
        source: Unreached,
    },
    /// A document that cannot be used.
    #[error("unusable document")]
    Document {
        /// Cause.
        #[from]
        source: DocumentError,
    },
    /// Two forms, but not of the same document: it changed between the two requests.
    #[error("JSON and protobuf have different tags")]
    Torn,
    /// Too slow.
    #[error("no complete answer within {} s", FETCH_TIMEOUT.as_secs())]
    TimedOut,
}

impl OpenApiError {
    /// Kind, as a label of a metric.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            OpenApiError::NotReached { .. } => "not_reached",
            OpenApiError::Status { .. } => "status",
            OpenApiError::ContentType { .. } => "content_type",
            OpenApiError::Encoded => "encoding",
            OpenApiError::TooLarge => "too_large",
            OpenApiError::Broken { .. } => "broken",
            OpenApiError::Document { .. } => "document",
            OpenApiError::Torn => "torn",
            OpenApiError::TimedOut => "timeout",
        }
    }
}

/// Why a document is none that can be merged.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// No JSON, or not an object where there is one in every document.
    #[error("not the JSON it should be")]
    Json {
        /// Cause.
        #[from]
        source: serde_json::Error,
    },
    /// Objects and lists in each other.
    #[error("nested deeper than {limit} levels")]
    Depth {
        /// Levels that there may be.
        limit: usize,
    },
    /// Not an object where something is described.
    #[error("{name:?} is not described by an object")]
    NoObject {
        /// Beginning of its name.
        name: String,
    },
    /// Too many paths or definitions.
    #[error("more than {MOST_NAMES} names")]
    Names,
    /// Another version, or no `OpenAPI` at all.
    #[error("not OpenAPI 2.0")]
    NotVersion2,
    /// Not protobuf.
    #[error("not the protobuf it should be")]
    Wire,
}
