//! Tells the two forms of `/openapi/v2` apart.

use http::HeaderMap;
use http::header::ACCEPT;

use crate::discovery::accept;

/// How the document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As it is.
    Json,
    /// In gnostic's messages.
    Protobuf,
}

impl Form {
    /// The form that a client wants, as kube-openapi reads it (`pkg/handler/handler.go`); `None` when it takes neither.
    pub fn accepted_by(headers: &HeaderMap) -> Option<Self> {
        let accept = headers.get(ACCEPT).map_or(Some(""), |value| value.to_str().ok())?;
        accept::first_of(if accept.is_empty() { "*/*" } else { accept }, |main, sub| match (main, sub) {
            ("application" | "*", "json" | "*") => Some(Form::Json),
            (
                "application" | "*",
                "com.github.proto-openapi.spec.v2@v1.0+protobuf"
                | "com.github.proto-openapi.spec.v2.v1.0+protobuf",
            ) => Some(Form::Protobuf),
            _ => None,
        })
    }

    /// What kube-apiserver answers with.
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Form::Json => "application/json",
            Form::Protobuf => "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
        }
    }

    /// What every version understands; client-go asks the same.
    pub(super) fn asked_as(self) -> &'static str {
        match self {
            Form::Json => "application/json",
            Form::Protobuf => "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_is_read_as_kube_openapi_does() {
        for (accept, expected) in [
            (None, Some(Form::Json)),
            (Some(""), Some(Form::Json)),
            (Some("*/*"), Some(Form::Json)),
            (Some("application/*"), Some(Form::Json)),
            (Some("application/json, */*"), Some(Form::Json)),
            (Some("application/com.github.proto-openapi.spec.v2@v1.0+protobuf"), Some(Form::Protobuf)),
            (Some("application/com.github.proto-openapi.spec.v2.v1.0+protobuf"), Some(Form::Protobuf)),
            (
                Some("application/json;q=0.5,application/com.github.proto-openapi.spec.v2.v1.0+protobuf"),
                Some(Form::Protobuf),
            ),
            (Some("text/html,application/json"), Some(Form::Json)),
            (Some("text/html"), None),
            (Some("application/yaml"), None),
            (Some("application/vnd.kubernetes.protobuf"), None),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(ACCEPT, accept.parse().expect("a header value"));
            }
            assert_eq!(Form::accepted_by(&headers), expected, "{accept:?}");
        }
    }
}
