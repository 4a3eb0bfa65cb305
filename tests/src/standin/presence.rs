//! Announces the server in the shared store: its identity lease, its endpoint, and the namespaces that always exist.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use serde_json::{Value, json};

use super::clock;
use crate::store::{Entry, Expected, Key, Store, StoreError};

/// kube-apiserver renews its identity lease this often.
const RENEWAL: Duration = Duration::from_secs(10);

/// One server's entries in the store.
pub(super) struct Presence {
    store: Store,
    hostname: String,
    address: SocketAddr,
    announces_peer_address: bool,
    server_id: String,
    holder: String,
}

impl Presence {
    pub(super) fn new(
        store: Store,
        hostname: &str,
        address: SocketAddr,
        announces_peer_address: bool,
    ) -> Self {
        let server_id = server_id(hostname);
        let holder = format!("{server_id}_{}", clock::uuid());
        Self { store, hostname: hostname.to_owned(), address, announces_peer_address, server_id, holder }
    }

    /// Makes the namespaces, adds the endpoint and takes the lease.
    pub(super) async fn appear(&self) -> Result<(), StoreError> {
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            let namespace = json!({"metadata": stamped(name, ""), "spec": {"finalizers": ["kubernetes"]},
                                   "status": {"phase": "Active"}});
            match self.store.put(&Key::new("", "namespaces", "", name), namespace, Expected::Absent).await {
                Ok(_) | Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.renew().await?;
        self.change_endpoints(true).await
    }

    /// Takes the lease and the endpoint back.
    pub(super) async fn vanish(&self) -> Result<(), StoreError> {
        let key = self.lease_key();
        change(&self.store, &key, |_| None).await?;
        self.change_endpoints(false).await
    }

    /// Writes a fresh renewTime, and the whole lease where it is missing or somebody else's.
    pub(super) async fn renew(&self) -> Result<(), StoreError> {
        change(&self.store, &self.lease_key(), |old| {
            let old = old.filter(|lease| lease.pointer("/spec/holderIdentity") == Some(&json!(self.holder)));
            let mut lease = old.cloned().unwrap_or_else(|| self.lease());
            lease["spec"]["renewTime"] = clock::micro_timestamp().into();
            Some(lease)
        })
        .await
    }

    fn lease_key(&self) -> Key {
        Key::new("coordination.k8s.io", "leases", "kube-system", &self.server_id)
    }

    fn lease(&self) -> Value {
        let mut metadata = stamped(&self.server_id, "kube-system");
        metadata["labels"] = json!({"apiserver.kubernetes.io/identity": "kube-apiserver",
                                    "kubernetes.io/hostname": self.hostname});
        if self.announces_peer_address {
            metadata["annotations"] =
                json!({"kubernetes.io/peer-advertise-address": self.address.to_string()});
        }
        json!({"metadata": metadata, "spec": {"holderIdentity": self.holder, "leaseDurationSeconds": 3600}})
    }

    /// Adds the own address to the `kubernetes` `EndpointSlice` or removes it; all servers share one port, the last
    /// writer's.
    async fn change_endpoints(&self, present: bool) -> Result<(), StoreError> {
        let own = self.address.ip().to_string();
        let family = if self.address.is_ipv6() { "IPv6" } else { "IPv4" };
        change(&self.store, &Key::new("discovery.k8s.io", "endpointslices", "default", "kubernetes"), |old| {
            let mut addresses: Vec<String> = old.map(addresses).unwrap_or_default();
            addresses.retain(|address| *address != own);
            if present {
                addresses.push(own.clone());
                addresses.sort();
            }
            let mut slice =
                old.cloned().unwrap_or_else(|| json!({"metadata": stamped("kubernetes", "default")}));
            slice["metadata"]["labels"] = json!({"kubernetes.io/service-name": "kubernetes"});
            slice["addressType"] = family.into();
            slice["endpoints"] = addresses
                .iter()
                .map(|address| json!({"addresses": [address], "conditions": {"ready": true}}))
                .collect();
            if present {
                slice["ports"] = json!([{"name": "https", "protocol": "TCP", "port": self.address.port()}]);
            }
            Some(slice)
        })
        .await
    }
}

/// Renews the lease for ever.
pub(super) async fn run(presence: Arc<Presence>) {
    loop {
        tokio::time::sleep(RENEWAL).await;
        if let Err(error) = presence.renew().await {
            tracing::warn!(%error, "cannot renew the identity lease");
        }
    }
}

/// The ID kube-apiserver derives from its host's name: SHA-256 over both names, each after its length as two bytes.
fn server_id(hostname: &str) -> String {
    let mut text = Vec::new();
    for part in [hostname, "kube-apiserver"] {
        text.extend(u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes());
        text.extend(part.as_bytes());
    }
    let hash = digest::digest(&digest::SHA256, &text);
    format!("apiserver-{}", base32(&hash.as_ref()[..16]))
}

/// Lower-case base32 (RFC 4648) without padding.
fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let bits = bytes.len() * 8;
    (0..bits.div_ceil(5))
        .map(|digit| {
            let value = (digit * 5..digit * 5 + 5).fold(0, |value, bit| {
                let set = bytes.get(bit / 8).is_some_and(|byte| byte >> (7 - bit % 8) & 1 == 1);
                value << 1 | usize::from(set)
            });
            char::from(ALPHABET[value])
        })
        .collect()
}

fn stamped(name: &str, namespace: &str) -> Value {
    let mut metadata = json!({"name": name, "uid": clock::uuid(), "creationTimestamp": clock::timestamp()});
    if namespace.is_empty() {
        metadata["labels"] = json!({"kubernetes.io/metadata.name": name});
    } else {
        metadata["namespace"] = namespace.into();
    }
    metadata
}

fn addresses(slice: &Value) -> Vec<String> {
    let endpoints = slice["endpoints"].as_array().map(Vec::as_slice).unwrap_or_default();
    endpoints.iter().filter_map(|one| one.pointer("/addresses/0")?.as_str().map(str::to_owned)).collect()
}

/// Replaces what is at `key` by what `make` makes of it, again when somebody else writes meanwhile; `None` deletes.
async fn change(
    store: &Store,
    key: &Key,
    make: impl Fn(Option<&Value>) -> Option<Value>,
) -> Result<(), StoreError> {
    loop {
        let old: Option<Entry> = store.get(key).await?;
        let written = match (make(old.as_ref().map(|entry| entry.value.as_ref())), &old) {
            (Some(new), Some(old)) => store.put(key, new, Expected::Revision(old.revision)).await,
            (Some(new), None) => store.put(key, new, Expected::Absent).await,
            (None, Some(old)) => store.delete(key, old.revision).await,
            (None, None) => return Ok(()),
        };
        match written {
            Ok(_) => return Ok(()),
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derives_the_recorded_server_id() {
        assert_eq!(server_id("node-12"), "apiserver-bdqcntq7kjnyrxnob6jsy7t2za");
    }

    #[tokio::test]
    async fn lease_and_slice_have_the_recorded_shape() {
        let store = Store::in_memory();
        let presence = Presence::new(store.clone(), "node-12", "10.77.0.12:6443".parse().unwrap(), true);
        presence.appear().await.unwrap();
        let recorded = |file: &str| -> Value {
            let path = format!("{}/fixtures/kube-apiserver/v1.36-all/{file}", env!("CARGO_MANIFEST_DIR"));
            let list: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
            list["items"][0].clone()
        };
        let lease = store.get(&presence.lease_key()).await.unwrap().unwrap().value;
        let real = recorded("identity-leases.json");
        for pointer in ["/metadata/name", "/metadata/namespace", "/metadata/labels", "/metadata/annotations"]
        {
            assert_eq!(lease.pointer(pointer), real.pointer(pointer), "{pointer}");
        }
        assert_eq!(lease["spec"]["leaseDurationSeconds"], real["spec"]["leaseDurationSeconds"]);
        let length = |value: &Value| value.as_str().unwrap().len();
        assert_eq!(length(&lease["spec"]["renewTime"]), length(&real["spec"]["renewTime"]));
        assert_eq!(length(&lease["spec"]["holderIdentity"]), length(&real["spec"]["holderIdentity"]));

        let key = Key::new("discovery.k8s.io", "endpointslices", "default", "kubernetes");
        let slice = store.get(&key).await.unwrap().unwrap().value;
        let real = recorded("kubernetes-endpointslices.json");
        for field in ["addressType", "endpoints", "ports"] {
            assert_eq!(slice[field], real[field], "{field}");
        }
        let other = Presence::new(store.clone(), "node-11", "10.77.0.11:6443".parse().unwrap(), false);
        other.appear().await.unwrap();
        assert_eq!(addresses(&store.get(&key).await.unwrap().unwrap().value), ["10.77.0.11", "10.77.0.12"]);
        presence.vanish().await.unwrap();
        assert_eq!(addresses(&store.get(&key).await.unwrap().unwrap().value), ["10.77.0.11"]);
        assert_eq!(store.get(&presence.lease_key()).await.unwrap(), None);
    }
}
