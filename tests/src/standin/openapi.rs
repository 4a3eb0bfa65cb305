//! Answers `OpenAPI` with just enough for kubectl to leave validation to the server and to explain kinds.

use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::documents::{Documents, GroupDiscovery, ResourceDiscovery, VersionDiscovery};
use super::respond::{self, Body, Style};
use super::{clock, discovery};

/// Answers `/openapi/v2`, `/openapi/v3` and what lies below.
pub(super) fn serve(documents: &Documents, path: &str, accept: &str, style: Style) -> Option<Response<Body>> {
    if path == "/openapi/v2" {
        return Some(version_2(accept, style));
    }
    let rest = path.strip_prefix("/openapi/v3")?;
    let document = match rest.trim_end_matches('/') {
        "" => index(documents),
        rest => {
            let segments: Vec<&str> = rest.split('/').skip(1).collect();
            let (group, version) = match segments[..] {
                ["api", version] => ("", version),
                ["apis", group, version] => (group, version),
                _ => return None,
            };
            schema(group, documents.version(group, version)?)
        }
    };
    Some(respond::json(style, StatusCode::OK, &document))
}

/// A document that describes nothing. kubectl reads it, as protobuf, for kinds that v3 does not know, and then lets
/// them pass; without it, it refuses to create them.
fn version_2(accept: &str, style: Style) -> Response<Body> {
    // The client asks with `@v1.0`, which is no valid media type to answer with.
    const TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    // Document { swagger = 1: "2.0", info = 2: Info { title = 1: "Kubernetes", version = 2: "stand-in" } }
    const DOCUMENT: &[u8] = b"\x0a\x032.0\x12\x16\x0a\x0aKubernetes\x12\x08stand-in";
    if accept.contains("proto-openapi.spec.v2") {
        return respond::with_type(StatusCode::OK, TYPE, DOCUMENT.into());
    }
    let info = json!({"title": "Kubernetes", "version": "stand-in"});
    respond::json(style, StatusCode::OK, &json!({"swagger": "2.0", "info": info, "paths": {}}))
}

fn index(documents: &Documents) -> Value {
    let mut paths = Map::new();
    for (prefix, list) in [("api", &documents.core.list), ("apis", &documents.groups.list)] {
        for (group, version) in list.items.iter().flat_map(versions) {
            let path = format!("{prefix}/{}", discovery::group_version(group, &version.version));
            let text = schema(group, version).to_string();
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, text.as_bytes());
            let hash = clock::hex(digest.as_ref()).to_ascii_uppercase();
            let url = format!("/openapi/v3/{path}?hash={hash}");
            paths.insert(path, json!({"serverRelativeURL": url}));
        }
    }
    json!({"paths": paths})
}

fn versions(group: &GroupDiscovery) -> impl Iterator<Item = (&str, &VersionDiscovery)> {
    group.versions.iter().map(|version| (group.metadata.name.as_str(), version))
}

/// The document of one group version: a path per resource and an untyped schema per kind.
fn schema(group: &str, version: &VersionDiscovery) -> Value {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    let stored = version.resources.iter().filter(|resource| resource.is_stored());
    for resource in stored {
        let kind = json!({"group": group, "version": version.version, "kind": resource.response_kind.kind});
        paths.insert(path(group, version, resource), operations(&kind));
        let name = format!(
            "standin.{}.{}",
            discovery::group_version(group, &version.version).replace('/', "."),
            resource.response_kind.kind
        );
        schemas.insert(name, object_schema(resource, &kind));
    }
    json!({"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "stand-in"},
           "paths": paths, "components": {"schemas": schemas}})
}

fn path(group: &str, version: &VersionDiscovery, resource: &ResourceDiscovery) -> String {
    let root = if group.is_empty() { "api" } else { "apis" };
    let namespace = if resource.is_namespaced() { "namespaces/{namespace}/" } else { "" };
    let group_version = discovery::group_version(group, &version.version);
    format!("/{root}/{group_version}/{namespace}{}/{{name}}", resource.resource)
}

/// kubectl looks for `fieldValidation` on the patch of a kind, and leaves validation to a server that has it.
fn operations(kind: &Value) -> Value {
    let parameters: Vec<Value> = ["dryRun", "fieldManager", "fieldValidation"]
        .into_iter()
        .map(|name| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}}))
        .collect();
    json!({"patch": {"x-kubernetes-action": "patch", "x-kubernetes-group-version-kind": kind,
                     "parameters": parameters, "responses": {"200": {"description": "OK"}}}})
}

fn object_schema(resource: &ResourceDiscovery, kind: &Value) -> Value {
    let text = json!({"type": "string"});
    json!({"type": "object", "description": format!("{} as the stand-in stores it.", resource.response_kind.kind),
           "x-kubernetes-group-version-kind": [kind],
           "properties": {"apiVersion": text, "kind": text, "metadata": {"type": "object"}}})
}
