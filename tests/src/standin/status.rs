//! Builds the `metav1.Status` bodies that kube-apiserver answers failures with.

use http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};

/// A failure (or a deletion's success) in kube-apiserver's words and field order.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Status {
    kind: &'static str,
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    metadata: Map<String, Value>,
    #[serde(rename = "status")]
    outcome: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
}

/// What a failure is about.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Details {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) group: String,
    /// The resource, plural, despite its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) uid: String,
    #[serde(rename = "retryAfterSeconds", skip_serializing_if = "Option::is_none")]
    pub(super) retry_after_seconds: Option<u16>,
}

impl Details {
    /// Details of one object; `name` may be empty.
    pub(super) fn of(group: &str, resource: &str, name: &str) -> Self {
        Self { name: name.to_owned(), group: group.to_owned(), kind: resource.to_owned(), ..Self::default() }
    }

    /// `configmaps` or `jobs.batch`, as messages name a resource.
    fn qualified(&self) -> String {
        if self.group.is_empty() { self.kind.clone() } else { format!("{}.{}", self.kind, self.group) }
    }
}

impl Status {
    pub(super) fn failure(
        code: StatusCode,
        reason: &'static str,
        message: impl Into<String>,
        details: Option<Details>,
    ) -> Box<Self> {
        Box::new(Self {
            kind: "Status",
            api_version: "v1",
            metadata: Map::new(),
            outcome: "Failure",
            message: message.into(),
            reason,
            details,
            code: Some(code.as_u16()),
        })
    }

    pub(super) fn deleted(details: Details) -> Self {
        Self {
            kind: "Status",
            api_version: "v1",
            metadata: Map::new(),
            outcome: "Success",
            message: String::new(),
            reason: "",
            details: Some(details),
            code: None,
        }
    }

    pub(super) fn code(&self) -> StatusCode {
        self.code.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(StatusCode::OK)
    }

    pub(super) fn retry_after_seconds(&self) -> Option<u16> {
        self.details.as_ref()?.retry_after_seconds
    }

    pub(super) fn unauthorized() -> Box<Self> {
        Self::failure(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized", None)
    }

    pub(super) fn forbidden(details: Details, why: &str) -> Box<Self> {
        let message = match (details.kind.is_empty(), details.name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{} is forbidden: {why}", details.qualified()),
            (false, false) => format!("{} {:?} is forbidden: {why}", details.qualified(), details.name),
        };
        Self::failure(StatusCode::FORBIDDEN, "Forbidden", message, Some(details))
    }

    pub(super) fn not_found(details: Details) -> Box<Self> {
        let message = format!("{} {:?} not found", details.qualified(), details.name);
        Self::failure(StatusCode::NOT_FOUND, "NotFound", message, Some(details))
    }

    pub(super) fn already_exists(details: Details) -> Box<Self> {
        let message = format!("{} {:?} already exists", details.qualified(), details.name);
        Self::failure(StatusCode::CONFLICT, "AlreadyExists", message, Some(details))
    }

    pub(super) fn conflict(details: Details, why: &str) -> Box<Self> {
        let message =
            format!("Operation cannot be fulfilled on {} {:?}: {why}", details.qualified(), details.name);
        Self::failure(StatusCode::CONFLICT, "Conflict", message, Some(details))
    }

    pub(super) fn invalid(details: Details, why: &str) -> Box<Self> {
        let message = format!("{} {:?} is invalid: {why}", details.qualified(), details.name);
        Self::failure(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message, Some(details))
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Box<Self> {
        Self::failure(StatusCode::BAD_REQUEST, "BadRequest", message, None)
    }

    pub(super) fn internal(why: impl std::fmt::Display) -> Box<Self> {
        let message = format!("Internal error occurred: {why}");
        Self::failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message, None)
    }

    /// A subresource, or another path below a served group version, that does not exist.
    pub(super) fn no_such_resource() -> Box<Self> {
        let message = "the server could not find the requested resource";
        Self::failure(StatusCode::NOT_FOUND, "NotFound", message, Some(Details::default()))
    }

    pub(super) fn method_not_allowed() -> Box<Self> {
        let message = "the server does not allow this method on the requested resource";
        Self::failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message, Some(Details::default()))
    }

    pub(super) fn not_acceptable(offered: &str) -> Box<Self> {
        let message = format!("only the following media types are accepted: {offered}");
        Self::failure(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message, None)
    }

    pub(super) fn unsupported_media_type(accepted: &str) -> Box<Self> {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {accepted}"
        );
        Self::failure(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message, None)
    }

    pub(super) fn too_many_requests(retry_after_seconds: u16) -> Box<Self> {
        let details = Details { retry_after_seconds: Some(retry_after_seconds), ..Details::default() };
        let message = "Too many requests, please try again later.";
        Self::failure(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message, Some(details))
    }

    pub(super) fn shutting_down() -> Box<Self> {
        let details = Details { retry_after_seconds: Some(1), ..Details::default() };
        let message = "apiserver is shutting down";
        Self::failure(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message, Some(details))
    }

    pub(super) fn too_old(requested: u64, current: u64) -> Box<Self> {
        let message = format!("too old resource version: {requested} ({current})");
        Self::failure(StatusCode::GONE, "Expired", message, None)
    }
}
