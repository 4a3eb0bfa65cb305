//! Compares what API servers serve.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use http::Request;
use serde_json::Value;

use super::callers::{Caller, Http};

/// What clients since 1.26 ask for.
pub const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// One resource of one group version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Api {
    pub group: String,
    pub version: String,
    pub resource: String,
    pub kind: String,
    pub namespaced: bool,
    pub verbs: Vec<String>,
    pub subresources: Vec<String>,
}

impl Api {
    /// Path of the list.
    pub fn path(&self) -> String {
        let Self { group, version, resource, .. } = self;
        let root = if group.is_empty() { "/api".to_owned() } else { format!("/apis/{group}") };
        let scope = if self.namespaced { "/namespaces/default" } else { "" };
        format!("{root}/{version}{scope}/{resource}")
    }

    /// A minimal object.
    pub fn object(&self, name: &str) -> Value {
        let api_version = if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        };
        serde_json::json!({"apiVersion": api_version, "kind": self.kind, "metadata": {"name": name}})
    }

    fn key(&self) -> Key {
        (self.group.clone(), self.version.clone(), self.resource.clone())
    }
}

type Key = (String, String, String);

/// A GET for an aggregated document.
pub fn aggregated(path: &str) -> Request<bytes::Bytes> {
    Request::get(path).header("accept", AGGREGATED).body(bytes::Bytes::new()).unwrap()
}

/// Everything that `address` says is served, asked as clients ask.
pub async fn served_by(caller: &Caller, address: SocketAddr) -> Result<BTreeMap<Key, Api>, String> {
    let mut session = caller.connect(address, Http::Two).await;
    let mut all = BTreeMap::new();
    for path in ["/api", "/apis"] {
        let answer = session.fetch(aggregated(path)).await;
        super::ensure(answer.status == 200, || format!("{path}: {} {}", answer.status, answer.text()))?;
        all.extend(in_document(&answer.json().unwrap()));
    }
    Ok(all)
}

/// A namespaced resource with every verb that only v1.36-all serves, found by comparing the recorded documents.
pub fn only_new_serves() -> Api {
    only_new_serves_where(|_| true)
}

/// The same with a status subresource.
pub fn only_new_serves_with_status() -> Api {
    only_new_serves_where(|api| api.subresources.iter().any(|one| one == "status"))
}

fn only_new_serves_where(also: impl Fn(&Api) -> bool) -> Api {
    let (old, new) = (recorded("v1.34"), recorded("v1.36-all"));
    let wanted = ["create", "delete", "get", "list", "patch", "update", "watch"];
    let found = new.into_iter().find(|(key, api)| {
        let does_all = wanted.iter().all(|verb| api.verbs.iter().any(|one| one == verb));
        !old.contains_key(key) && api.namespaced && does_all && also(api)
    });
    found.expect("v1.36-all serves something that v1.34 does not").1
}

/// A resource that both serve.
pub fn both_serve() -> Api {
    let (old, new) = (recorded("v1.34"), recorded("v1.36-all"));
    let key = (String::new(), "v1".to_owned(), "configmaps".to_owned());
    assert!(old.contains_key(&key), "every API server serves ConfigMaps");
    new[&key].clone()
}

fn recorded(name: &str) -> BTreeMap<Key, Api> {
    let read = |file: &str| -> Value {
        let path = format!("{}/fixtures/kube-apiserver/{name}/{file}", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    };
    ["api.v2.json", "apis.v2.json"].into_iter().flat_map(|file| in_document(&read(file))).collect()
}

fn in_document(document: &Value) -> BTreeMap<Key, Api> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut found = BTreeMap::new();
    for group in list(&document["items"]) {
        for version in list(&group["versions"]) {
            for resource in list(&version["resources"]) {
                let api = Api {
                    group: text(&group["metadata"]["name"]),
                    version: text(&version["version"]),
                    resource: text(&resource["resource"]),
                    kind: text(&resource["responseKind"]["kind"]),
                    namespaced: resource["scope"] == "Namespaced",
                    verbs: list(&resource["verbs"]).iter().map(text).collect(),
                    subresources: list(&resource["subresources"])
                        .iter()
                        .map(|one| text(&one["subresource"]))
                        .collect(),
                };
                found.insert(api.key(), api);
            }
        }
    }
    found
}
