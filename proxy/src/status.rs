//! Builds the `metav1.Status` answers that the proxy itself gives, as JSON or protobuf.

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

mod protobuf;

/// One failure as kube-apiserver words it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// HTTP status.
    pub code: StatusCode,
    /// `metav1.StatusReason`.
    pub reason: &'static str,
    /// Text for people; never carries an address, a credential or client input.
    pub message: &'static str,
    /// Seconds for a Retry-After header.
    pub retry_after: Option<u16>,
}

/// How a failure is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// What every client reads.
    Json,
    /// What controllers ask for first.
    Protobuf,
}

impl Encoding {
    /// The encoding a request asks for before the other, JSON if it asks for neither.
    pub fn accepted_by(headers: &HeaderMap) -> Self {
        let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let mut media_types = accepted
            .flat_map(|value| value.split(','))
            .map(|clause| clause.split(';').next().unwrap_or_default().trim());
        let first =
            media_types.find(|media_type| matches!(*media_type, protobuf::CONTENT_TYPE | "application/json"));
        if first == Some(protobuf::CONTENT_TYPE) { Encoding::Protobuf } else { Encoding::Json }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Object<'a> {
    kind: &'static str,
    api_version: &'static str,
    metadata: Metadata,
    status: &'static str,
    message: &'a str,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
    code: u16,
}

#[derive(Serialize)]
struct Metadata {}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Details {
    retry_after_seconds: u16,
}

impl Failure {
    /// The answer with the headers kube-apiserver sets on its own failures.
    pub fn into_response(self, encoding: Encoding) -> Response<Full<Bytes>> {
        let (body, content_type) = match encoding {
            Encoding::Json => (self.to_json(), "application/json"),
            Encoding::Protobuf => (protobuf::encode(&self), protobuf::CONTENT_TYPE),
        };
        let length = body.len();
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = self.code;
        let headers = response.headers_mut();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    fn to_json(self) -> Vec<u8> {
        let status = Object {
            kind: "Status",
            api_version: "v1",
            metadata: Metadata {},
            status: "Failure",
            message: self.message,
            reason: self.reason,
            details: self.retry_after.map(|retry_after_seconds| Details { retry_after_seconds }),
            code: self.code.as_u16(),
        };
        let mut body = serde_json::to_vec(&status).expect("a struct of strings and numbers serialises");
        // Go's encoder ends with a newline.
        body.push(b'\n');
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    #[tokio::test]
    async fn a_failure_is_a_complete_status_object() {
        let failure = Failure {
            code: StatusCode::SERVICE_UNAVAILABLE,
            reason: "ServiceUnavailable",
            message: "try later",
            retry_after: Some(1),
        };
        let response = failure.into_response(Encoding::Json);
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        let body = response.into_body().collect().await.expect("an in-memory body").to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(
            body,
            serde_json::json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "try later",
                "reason": "ServiceUnavailable", "details": {"retryAfterSeconds": 1}, "code": 503
            })
        );
    }

    #[test]
    fn the_encoding_asked_for_first_wins() {
        for (accept, expected) in [
            ("application/vnd.kubernetes.protobuf,application/json", Encoding::Protobuf),
            ("application/json, application/vnd.kubernetes.protobuf", Encoding::Json),
            ("application/vnd.kubernetes.protobuf;stream=watch", Encoding::Protobuf),
            ("*/*", Encoding::Json),
            ("", Encoding::Json),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(Encoding::accepted_by(&headers), expected, "{accept}");
        }
    }
}
