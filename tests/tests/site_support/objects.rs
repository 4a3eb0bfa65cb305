//! Writes objects into the store past all API servers, as what happened elsewhere.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use mvproxy_tests::store::{Expected, Key, Store};
use serde_json::{Value, json};

/// The objects of a cluster.
pub struct Objects(pub Store);

impl Objects {
    /// Creates or replaces an object.
    pub async fn put(&self, key: &Key, value: Value) {
        let expected = match self.0.get(key).await.unwrap() {
            Some(entry) => Expected::Revision(entry.revision),
            None => Expected::Absent,
        };
        self.0.put(key, value, expected).await.unwrap();
    }

    pub async fn get(&self, key: &Key) -> Option<Value> {
        self.0.get(key).await.unwrap().map(|entry| entry.value.as_ref().clone())
    }

    pub async fn delete(&self, key: &Key) {
        let entry = self.0.get(key).await.unwrap().expect("what is deleted is there");
        self.0.delete(key, entry.revision).await.unwrap();
    }

    pub async fn put_lease(&self, namespace: &str, lease: Value) {
        let name = lease["metadata"]["name"].as_str().unwrap().to_owned();
        self.put(&Key::new("coordination.k8s.io", "leases", namespace, &name), lease).await;
    }

    /// The Leases that proxies wrote.
    pub async fn proxy_leases(&self) -> Vec<Value> {
        let range = mvproxy_tests::store::Range {
            resource: Some(("coordination.k8s.io".to_owned(), "leases".to_owned())),
            namespace: Some("kube-system".to_owned()),
            name: None,
        };
        let all = self.0.list(&range).await.unwrap().entries;
        let is_proxy =
            |lease: &Value| lease["metadata"]["labels"]["app.kubernetes.io/name"] == "mixed-version-proxy";
        all.iter().map(|entry| entry.value.as_ref().clone()).filter(is_proxy).collect()
    }

    /// A slice of the `kubernetes` service beside the API servers' own.
    pub async fn put_slice(&self, name: &str, family: &str, endpoints: &[(SocketAddr, Option<&str>)]) {
        let port = endpoints.first().map_or(1, |(address, _)| address.port());
        let endpoints: Vec<Value> = endpoints
            .iter()
            .map(|(address, node)| {
                let mut endpoint = json!({"addresses": [address.ip()], "conditions": {"ready": true}});
                if let Some(node) = node {
                    endpoint["nodeName"] = (*node).into();
                }
                endpoint
            })
            .collect();
        let labels = json!({"kubernetes.io/service-name": "kubernetes"});
        let slice = json!({
            "metadata": {"name": name, "namespace": "default", "uid": name, "labels": labels},
            "addressType": family,
            "endpoints": endpoints,
            "ports": [{"name": "https", "protocol": "TCP", "port": port}],
        });
        self.put(&Key::new("discovery.k8s.io", "endpointslices", "default", name), slice).await;
    }

    /// Defines a resource for all servers, or says that its definition changed.
    pub async fn define(&self, name: &str, generation: u64) {
        let definition = json!({"metadata": {"name": name, "uid": name, "generation": generation}});
        self.put(&definition_key(name), definition).await;
    }

    pub async fn undefine(&self, name: &str) {
        self.delete(&definition_key(name)).await;
    }
}

fn definition_key(name: &str) -> Key {
    Key::new("apiextensions.k8s.io", "customresourcedefinitions", "", name)
}

/// A Lease as API servers have it, renewed this long ago.
pub fn lease(name: &str, hostname: &str, address: &str, ago: Duration) -> Value {
    let labels = json!({
        "apiserver.kubernetes.io/identity": "kube-apiserver",
        "kubernetes.io/hostname": hostname,
    });
    let mut metadata = json!({"name": name, "namespace": "kube-system", "uid": name, "labels": labels});
    if !address.is_empty() {
        metadata["annotations"] = json!({"kubernetes.io/peer-advertise-address": address});
    }
    json!({
        "metadata": metadata,
        "spec": {
            "holderIdentity": format!("{name}_0"),
            "leaseDurationSeconds": 3600,
            "renewTime": micro_time(SystemTime::now() - ago),
        },
    })
}

fn micro_time(time: SystemTime) -> String {
    let time = jiff::Timestamp::try_from(time).unwrap();
    time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}
