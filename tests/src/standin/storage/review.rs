//! Answers resources that are questions: who am I, may I.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{Storage, body, object};
use crate::standin::clock;
use crate::standin::respond::{self, Outcome};
use crate::standin::status::Status;

impl Storage<'_> {
    /// Fills in the status of a review and sends it back.
    pub(super) async fn review(&self, body: Incoming) -> Outcome {
        let kind = self.target.kind.as_str();
        let mut review = match body::media_type(&self.call.headers).as_str() {
            // The one review without a spec: nothing of it is lost unread, and `kubectl auth whoami` sends it so.
            "application/vnd.kubernetes.protobuf" if kind == "SelfSubjectReview" => json!({}),
            _ => body::read_object(&self.call.headers, body).await?,
        };
        review["status"] = match kind {
            "SelfSubjectReview" => json!({"userInfo": self.call.user}),
            "SelfSubjectAccessReview" | "SubjectAccessReview" | "LocalSubjectAccessReview" => {
                json!({"allowed": true})
            }
            "SelfSubjectRulesReview" => json!({
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
                "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
                "incomplete": false,
            }),
            "TokenReview" => self.token_status(&review),
            _ => return Err(self.not_implemented()),
        };
        review["kind"] = kind.into();
        review["apiVersion"] = self.target.api_version().into();
        if let Some(metadata) = object::metadata(&mut review) {
            metadata.insert("creationTimestamp".to_owned(), clock::timestamp().into());
        }
        Ok(respond::json(self.call.style, StatusCode::CREATED, &review))
    }

    /// 501 for what the documents list and this stand-in does not do; never a made-up answer.
    pub(super) fn not_implemented(&self) -> Box<Status> {
        let what = match self.target.subresource.as_str() {
            "" => self.target.resource.clone(),
            subresource => format!("{}/{subresource}", self.target.resource),
        };
        let message = format!("the stand-in does not implement {what}");
        Status::failure(StatusCode::NOT_IMPLEMENTED, "NotImplemented", message, None)
    }

    fn token_status(&self, review: &Value) -> Value {
        let token = review.pointer("/spec/token").and_then(Value::as_str).unwrap_or_default();
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_str(&format!("Bearer {token}")) {
            headers.insert(AUTHORIZATION, value);
        }
        match self.shared.authenticator().authenticate(None, &headers) {
            Ok(user) if !user.is_anonymous() => json!({"authenticated": true, "user": user}),
            Ok(_) => json!({}),
            Err(error) => json!({"authenticated": false, "error": error.to_string()}),
        }
    }
}
