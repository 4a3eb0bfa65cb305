//! The rights of the proxy's user, as the README has operators give them.

use serde_json::{Value, json};

const USER: &str = "system:mixed-version-proxy";

/// Where each object is created, and the object.
pub(crate) fn objects() -> Vec<(String, Value)> {
    let all = ["get", "list", "watch"];
    let leases = ["get", "list", "watch", "create", "update"];
    vec![
        role("default", "discovery.k8s.io", &["endpointslices"], &all),
        binding("default", "mvproxy", "mvproxy"),
        role("kube-system", "coordination.k8s.io", &["leases"], &leases),
        binding("kube-system", "mvproxy", "mvproxy"),
        binding("kube-system", "mvproxy-authentication", "extension-apiserver-authentication-reader"),
        (
            "/apis/rbac.authorization.k8s.io/v1/clusterroles".to_owned(),
            json!({
                "metadata": {"name": "mvproxy"},
                "rules": [
                    {"apiGroups": ["apiextensions.k8s.io"], "resources": ["customresourcedefinitions"], "verbs": all},
                    {"apiGroups": ["apiregistration.k8s.io"], "resources": ["apiservices"], "verbs": all},
                ],
            }),
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings".to_owned(),
            json!({
                "metadata": {"name": "mvproxy"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "mvproxy"},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER}],
            }),
        ),
    ]
}

fn role(namespace: &str, group: &str, resources: &[&str], verbs: &[&str]) -> (String, Value) {
    (
        format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles"),
        json!({
            "metadata": {"name": "mvproxy"},
            "rules": [{"apiGroups": [group], "resources": resources, "verbs": verbs}],
        }),
    )
}

fn binding(namespace: &str, name: &str, role: &str) -> (String, Value) {
    (
        format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings"),
        json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER}],
        }),
    )
}
