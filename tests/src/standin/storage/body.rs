//! Reads request bodies.

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::Value;

use crate::standin::status::Status;

/// What kube-apiserver reads of a body at most: 3 MiB.
const LIMIT: usize = 3 * 1024 * 1024;

/// The media type of the body without parameters; JSON when none is named.
pub(super) fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("application/json");
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The body as an object.
pub(super) async fn read_object(headers: &HeaderMap, body: Incoming) -> Result<Value, Box<Status>> {
    let parse = match media_type(headers).as_str() {
        "application/json" | "" => parse_json,
        "application/yaml" => parse_yaml,
        _ => return Err(Status::unsupported_media_type("application/json, application/yaml")),
    };
    let value = parse(&read(body).await?)?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(Status::bad_request("the body of the request is not an object"))
    }
}

/// The `DeleteOptions` in the body; null when there are none.
pub(super) async fn read_options(headers: &HeaderMap, body: Incoming) -> Result<Value, Box<Status>> {
    let bytes = read(body).await?;
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    match media_type(headers).as_str() {
        "application/yaml" => parse_yaml(&bytes),
        "application/json" | "" => parse_json(&bytes),
        _ => Err(Status::unsupported_media_type("application/json, application/yaml")),
    }
}

pub(super) async fn read(body: Incoming) -> Result<Vec<u8>, Box<Status>> {
    match Limited::new(body, LIMIT).collect().await {
        Ok(body) => Ok(body.to_bytes().to_vec()),
        Err(error) if error.is::<LengthLimitError>() => Err(Status::failure(
            http::StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLarge",
            format!("Request entity too large: limit is {LIMIT}"),
            None,
        )),
        Err(error) => Err(Status::bad_request(format!("the body of the request broke off: {error}"))),
    }
}

pub(super) fn parse_json(bytes: &[u8]) -> Result<Value, Box<Status>> {
    serde_json::from_slice(bytes)
        .map_err(|error| Status::bad_request(format!("the object provided is unrecognized: {error}")))
}

pub(super) fn parse_yaml(bytes: &[u8]) -> Result<Value, Box<Status>> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Status::bad_request("the body of the request is not UTF-8"))?;
    serde_saphyr::from_str(text)
        .map_err(|error| Status::bad_request(format!("the object provided is unrecognized: {error}")))
}
