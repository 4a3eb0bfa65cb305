//! Answers `OpenAPI` from the discovery documents: every path and kind as kube-apiserver describes it, in few words.

use http::{HeaderMap, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::documents::{Documents, GroupDiscovery, ResourceDiscovery, VersionDiscovery};
use super::respond::{self, Body, Style};
use super::{clock, discovery};

mod gnostic;
mod version2;

/// Answers `/openapi/v2`, `/openapi/v3` and what lies below.
pub(super) fn serve(
    documents: &Documents,
    path: &str,
    headers: &HeaderMap,
    style: Style,
) -> Option<Response<Body>> {
    if path == "/openapi/v2" {
        return Some(version2::serve(documents, headers));
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
            version3(documents, group, documents.version(group, version)?)
        }
    };
    Some(respond::json(style, StatusCode::OK, &document))
}

fn index(documents: &Documents) -> Value {
    let mut paths = Map::new();
    for (prefix, list) in [("api", &documents.core.list), ("apis", &documents.groups.list)] {
        for (group, version) in list.items.iter().flat_map(versions) {
            let path = format!("{prefix}/{}", discovery::group_version(group, &version.version));
            let text = version3(documents, group, version).to_string();
            let url = format!("/openapi/v3/{path}?hash={}", digest(text.as_bytes()));
            paths.insert(path, json!({"serverRelativeURL": url}));
        }
    }
    json!({"paths": paths})
}

/// As kube-openapi computes tags and hashes.
fn digest(text: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, text);
    clock::hex(digest.as_ref()).to_ascii_uppercase()
}

fn versions(group: &GroupDiscovery) -> impl Iterator<Item = (&str, &VersionDiscovery)> {
    group.versions.iter().map(|version| (group.metadata.name.as_str(), version))
}

/// The document of one group version.
fn version3(documents: &Documents, group: &str, version: &VersionDiscovery) -> Value {
    let mut described = Described::new("#/components/schemas/", true);
    described.add(group, version);
    json!({"openapi": "3.0.0", "info": info(documents), "paths": described.paths,
           "components": {"schemas": described.schemas}})
}

fn info(documents: &Documents) -> Value {
    let version: Value = serde_json::from_str(documents.version).expect("recorded JSON");
    json!({"title": "Kubernetes", "version": version["gitVersion"]})
}

/// Paths and kinds, with references between them.
struct Described {
    paths: Map<String, Value>,
    schemas: Map<String, Value>,
    references: &'static str,
    /// Version 3 writes parameters' types and answers' schemas one level deeper.
    is_version3: bool,
}

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

impl Described {
    fn new(references: &'static str, is_version3: bool) -> Self {
        let text = json!({"type": "string"});
        let meta = json!({"type": "object", "description": "ObjectMeta is metadata that all persisted resources must have.",
                          "properties": {"name": text, "namespace": text}});
        let schemas = Map::from_iter([(OBJECT_META.to_owned(), meta)]);
        Self { paths: Map::new(), schemas, references, is_version3 }
    }

    fn add(&mut self, group: &str, version: &VersionDiscovery) {
        for resource in version.resources.iter().filter(|resource| resource.is_stored()) {
            let kind = &resource.response_kind.kind;
            let name = schema_name(group, &version.version, kind);
            let gvk = json!({"group": group, "version": version.version, "kind": kind});
            self.schemas.insert(name.clone(), self.schema(kind, &gvk));
            let operation = |method: &str| self.operation(method, &gvk, &name);
            let all = json!({"get": operation("list"), "post": operation("post")});
            let one = json!({"get": operation("get"), "put": operation("put"), "patch": operation("patch"),
                             "delete": operation("delete")});
            let path = path(group, version, resource);
            self.paths.insert(format!("{path}/{{name}}"), one);
            self.paths.insert(path, all);
        }
    }

    fn reference(&self, name: &str) -> Value {
        json!({"$ref": format!("{}{name}", self.references)})
    }

    fn schema(&self, kind: &str, gvk: &Value) -> Value {
        let text = json!({"type": "string"});
        let spec = json!({"type": "object", "description": format!("What a {kind} is to be."),
                          "properties": {"note": text}});
        json!({"type": "object", "description": format!("{kind} as the stand-in stores it."),
               "x-kubernetes-group-version-kind": [gvk],
               "properties": {"apiVersion": text, "kind": text, "metadata": self.reference(OBJECT_META), "spec": spec}})
    }

    /// kubectl looks for `fieldValidation` on the patch of a kind, and leaves validation to a server that has it.
    fn operation(&self, action: &str, gvk: &Value, schema: &str) -> Value {
        let names: &[&str] = match action {
            "post" | "put" | "patch" => &["dryRun", "fieldManager", "fieldValidation"],
            _ => &["pretty"],
        };
        let parameters: Vec<Value> = names.iter().map(|name| self.parameter(name)).collect();
        let schema = self.reference(schema);
        let ok = if self.is_version3 {
            json!({"description": "OK", "content": {"application/json": {"schema": schema}}})
        } else {
            json!({"description": "OK", "schema": schema})
        };
        json!({"x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk,
               "parameters": parameters, "responses": {"200": ok}})
    }

    fn parameter(&self, name: &str) -> Value {
        if self.is_version3 {
            return json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
        }
        json!({"name": name, "in": "query", "type": "string", "uniqueItems": true})
    }
}

/// Built-in kinds have the name of their Go package, custom ones that of their group, backwards.
fn schema_name(group: &str, version: &str, kind: &str) -> String {
    let package = match group.strip_suffix(".k8s.io") {
        _ if group.is_empty() => "io.k8s.api.core".to_owned(),
        Some(name) => format!("io.k8s.api.{}", name.split('.').next().unwrap_or(name)),
        None if !group.contains('.') => format!("io.k8s.api.{group}"),
        None => group.rsplit('.').collect::<Vec<_>>().join("."),
    };
    format!("{package}.{version}.{kind}")
}

fn path(group: &str, version: &VersionDiscovery, resource: &ResourceDiscovery) -> String {
    let root = if group.is_empty() { "api" } else { "apis" };
    let namespace = if resource.is_namespaced() { "namespaces/{namespace}/" } else { "" };
    let group_version = discovery::group_version(group, &version.version);
    format!("/{root}/{group_version}/{namespace}{}", resource.resource)
}
