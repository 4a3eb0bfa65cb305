//! Answers discovery: /api, /apis and below.

use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, request};

use self::accept::Form;
use super::documents::{CoreResources, Documents, Recorded};
use super::respond::{self, Body, Outcome, Style};
use super::status::Status;

pub(super) mod accept;
mod legacy;

pub(super) use legacy::group_version;

/// Answers `path` if it is a discovery path; `address` is this server's, `host:port`.
pub(super) fn serve(
    documents: &Documents,
    address: &str,
    request: &request::Parts,
    path: &str,
    style: Style,
) -> Option<Outcome> {
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    match segments[..] {
        ["api"] if request.method != Method::GET => Some(Ok(only_get())),
        ["api"] => {
            let form = |accept: &str| accept::choose_of(documents.aggregation, accept);
            Some(root(&documents.core, request, style, || legacy::versions(address), true, form))
        }
        ["apis"] => {
            let form = |accept: &str| accept::choose_of(documents.aggregation, accept);
            Some(root(&documents.groups, request, style, || legacy::group_list(documents), false, form))
        }
        // With a trailing slash only the unaggregated form exists.
        ["api", ""] => Some(plain(request, style, &legacy::versions(address))),
        ["apis", ""] => Some(plain(request, style, &legacy::group_list(documents))),
        ["api", "v1"] | ["api", "v1", ""] => core_resources(documents, request, style),
        ["apis", group] | ["apis", group, ""] => {
            documents.group(group).map(|group| plain(request, style, &legacy::group(group)))
        }
        ["apis", group, version] | ["apis", group, version, ""] => {
            let found = documents.version(group, version)?;
            Some(plain(request, style, &legacy::resource_list(group, found)))
        }
        _ => None,
    }
}

/// `/api` or `/apis`: aggregated where the client asks for it in any clause, else unaggregated.
fn root<T: serde::Serialize>(
    recorded: &Recorded,
    request: &request::Parts,
    style: Style,
    unaggregated: impl FnOnce() -> T,
    strict_ranges: bool,
    form: impl FnOnce(&str) -> Form,
) -> Outcome {
    let accept = accept_header(&request.headers);
    if strict_ranges && !accept::router_produces(&accept) {
        return Err(Status::not_acceptable(accept::OFFERED));
    }
    match form(&accept) {
        Form::Json => Ok(aggregated(recorded, request, JSON_TYPE, |list| style.render(list))),
        Form::JsonBeta => Ok(aggregated(recorded, request, JSON_BETA_TYPE, |list| {
            style.render(&super::documents::GroupDiscoveryList {
                api_version: "apidiscovery.k8s.io/v2beta1".to_owned(),
                ..list.clone()
            })
        })),
        // YAML 1.2 contains JSON.
        Form::Yaml => Ok(aggregated(recorded, request, YAML_TYPE, |list| Style::Pretty.render(list))),
        Form::Protobuf => match super::documents::protobuf(recorded) {
            Some(bytes) => Ok(aggregated(recorded, request, PROTOBUF_TYPE, |_| bytes)),
            None => Err(Status::not_acceptable("application/json, application/yaml")),
        },
        Form::Legacy => Ok(respond::json(style, StatusCode::OK, &unaggregated())),
        Form::Refused => Err(Status::not_acceptable(accept::OFFERED)),
    }
}

const JSON_BETA_TYPE: &str = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
const JSON_TYPE: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const YAML_TYPE: &str = "application/yaml;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const PROTOBUF_TYPE: &str =
    "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

fn aggregated(
    recorded: &Recorded,
    request: &request::Parts,
    media_type: &'static str,
    render: impl FnOnce(&super::documents::GroupDiscoveryList) -> bytes::Bytes,
) -> Response<Body> {
    let etag = HeaderValue::from_str(&recorded.list.etag()).expect("hexadecimal digits in quotes");
    // Exactly this one tag; lists, weak tags and `*` do not count, as in kube-apiserver.
    let mut response = if request.headers.get(IF_NONE_MATCH) == Some(&etag) {
        let mut response = Response::new(respond::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        respond::with_type(StatusCode::OK, media_type, render(&recorded.list))
    };
    let headers = response.headers_mut();
    headers.insert(ETAG, etag);
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public"));
    response
}

fn core_resources(documents: &Documents, request: &request::Parts, style: Style) -> Option<Outcome> {
    match documents.core_resources {
        CoreResources::Recorded(text) if style == Style::Compact && accepts_plain(request) => {
            Some(Ok(respond::with_type(StatusCode::OK, "application/json", text.into())))
        }
        _ => documents
            .version("", "v1")
            .map(|version| plain(request, style, &legacy::resource_list("", version))),
    }
}

fn plain<T: serde::Serialize>(request: &request::Parts, style: Style, document: &T) -> Outcome {
    if accepts_plain(request) {
        Ok(respond::json(style, StatusCode::OK, document))
    } else {
        Err(Status::not_acceptable(accept::OFFERED))
    }
}

fn accepts_plain(request: &request::Parts) -> bool {
    accept::accepts_json(&accept_header(&request.headers))
}

/// All Accept headers as one.
pub(super) fn accept_header(headers: &HeaderMap) -> String {
    headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(",")
}

fn only_get() -> Response<Body> {
    let mut response = respond::text(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    response
}
