//! Brings the rights of manifests, of requests and of the README's commands into one form.

use std::collections::BTreeSet;

use serde_json::{Value, json};

/// Who is left out: in each place the roles are bound to one user, that place's own.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Grants {
    /// Namespace (empty for the whole cluster), role, verb, group, resource.
    rules: BTreeSet<[String; 5]>,
    /// Namespace, name, kind and name of the role.
    bindings: BTreeSet<[String; 4]>,
}

impl Grants {
    /// Of objects as they are in files; other kinds are skipped.
    pub(crate) fn of_manifests(objects: &[Value]) -> Self {
        let namespace = |object: &Value| text(&object["metadata"]["namespace"]);
        Self::of(objects.iter().map(|object| (namespace(object), object.clone())))
    }

    /// Of objects and where each is created.
    pub(crate) fn of_requests(requests: &[(String, Value)]) -> Self {
        Self::of(requests.iter().map(|(target, object)| {
            let namespace =
                target.split_once("/namespaces/").map_or("", |(_, rest)| rest.split('/').next().unwrap());
            (namespace.to_owned(), object.clone())
        }))
    }

    /// Of the `kubectl create` commands in the README.
    pub(crate) fn of_readme() -> Self {
        let readme = include_str!("../../../README.md").replace("\\\n", " ");
        let commands = readme.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        Self::of(
            commands.filter(|words| words.first() == Some(&"kubectl")).filter_map(|words| created(&words)),
        )
    }

    fn of(objects: impl Iterator<Item = (String, Value)>) -> Self {
        let (mut rules, mut bindings) = (BTreeSet::new(), BTreeSet::new());
        for (namespace, object) in objects {
            let name = text(&object["metadata"]["name"]);
            for rule in list(&object["rules"]) {
                assert!(
                    rule.get("resourceNames").is_none() && rule.get("nonResourceURLs").is_none(),
                    "{rule}"
                );
                for verb in list(&rule["verbs"]) {
                    for group in list(&rule["apiGroups"]) {
                        rules.extend(list(&rule["resources"]).iter().map(|resource| {
                            [namespace.clone(), name.clone(), text(verb), text(group), text(resource)]
                        }));
                    }
                }
            }
            if let Some(role) = object.get("roleRef") {
                bindings.insert([namespace, name, text(&role["kind"]), text(&role["name"])]);
            }
        }
        Self { rules, bindings }
    }

    /// Whether a role that is bound allows it.
    pub(crate) fn allow(&self, verb: &str, group: &str, resource: &str, namespace: &str) -> bool {
        // The Role that every API server makes lets it read its ConfigMap, whatever is in the files here.
        if (group, resource) == ("", "configmaps") {
            return self.is_bound(namespace, "Role", "extension-apiserver-authentication-reader");
        }
        let kind = if namespace.is_empty() { "ClusterRole" } else { "Role" };
        self.rules
            .iter()
            .filter(|rule| self.is_bound(&rule[0], kind, &rule[1]))
            .any(|rule| [&rule[0], &rule[2], &rule[3], &rule[4]] == [namespace, verb, group, resource])
    }

    fn is_bound(&self, namespace: &str, kind: &str, role: &str) -> bool {
        self.bindings.iter().any(|[place, _, of, name]| [place, of, name] == [namespace, kind, role])
    }

    /// Group, resource and namespace of every rule.
    pub(crate) fn resources(&self) -> BTreeSet<(String, String, String)> {
        let of = |[namespace, _, _, group, resource]: &[String; 5]| {
            (group.clone(), resource.clone(), namespace.clone())
        };
        self.rules.iter().map(of).collect()
    }
}

/// What a `kubectl create` command makes, if it is about rights, and in which namespace.
fn created(words: &[&str]) -> Option<(String, Value)> {
    let at = words.iter().position(|word| *word == "create")?;
    let (kind, name) = (*words.get(at + 1)?, words.get(at + 2)?);
    let namespace = words.iter().position(|word| *word == "-n").map_or("", |at| words[at + 1]);
    let flag = |flag: &str| {
        words.iter().find_map(|word| word.strip_prefix("--")?.strip_prefix(flag)?.strip_prefix('='))
    };
    let metadata = json!({"name": name});
    let object = match kind {
        "role" | "clusterrole" => {
            let verbs: Vec<_> = flag("verb").unwrap().split(',').collect();
            let rule = |resource: &str| {
                let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
                json!({"verbs": verbs, "apiGroups": [group], "resources": [resource]})
            };
            json!({"metadata": metadata, "rules": flag("resource").unwrap().split(',').map(rule).collect::<Vec<_>>()})
        }
        "rolebinding" | "clusterrolebinding" => {
            let role = match (flag("role"), flag("clusterrole")) {
                (Some(role), None) => json!({"kind": "Role", "name": role}),
                (None, Some(role)) => json!({"kind": "ClusterRole", "name": role}),
                other => panic!("{name} binds {other:?}"),
            };
            json!({"metadata": metadata, "roleRef": role})
        }
        _ => return None,
    };
    Some((namespace.to_owned(), object))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A text, or none.
fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
