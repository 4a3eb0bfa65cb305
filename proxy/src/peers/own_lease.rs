//! Announces where other proxies can dial this node's API server, on a Lease of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use aws_lc_rs::{digest, rand};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::lease::{ADDRESS_ANNOTATION, HOSTNAME_LABEL, NAMESPACE};
use crate::causes::chain;
use crate::discovery::hex;
use crate::own_client::{OwnClientError, OwnClients};
use crate::pause::{Backoff, jittered};

/// Keeps one Lease fresh while the process serves.
#[derive(Debug)]
pub struct OwnLease {
    clients: OwnClients,
    address: SocketAddr,
    hostname: Option<String>,
    name: String,
    holder: String,
}

/// Why the Lease could not be written.
#[derive(Debug, thiserror::Error)]
enum LeaseError {
    #[error("own credentials cannot be used")]
    Credentials(#[from] OwnClientError),
    #[error("the API server did not take it")]
    NotTaken(#[from] kube::Error),
    #[error("no answer within {} s", ANSWER_LIMIT.as_secs())]
    Late,
}

/// How often it is renewed, as API servers do theirs.
const RENEWAL: Duration = Duration::from_secs(10);
/// How long it is good for, in seconds.
const LEASE_SECONDS: i32 = 60;
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Time to take it back when the process ends.
const FAREWELL: Duration = Duration::from_secs(2);

impl OwnLease {
    /// A Lease that says `address`.
    pub fn new(clients: OwnClients, address: SocketAddr) -> Self {
        // A longer one would be no label; the API server would refuse the whole Lease.
        let hostname = super::hostname().filter(|name| name.len() <= super::lease::LONGEST_LABEL);
        let name = lease_name(hostname.as_deref().unwrap_or_default(), address);
        let holder = format!("{name}_{}", random_id());
        Self { clients, address, hostname, name, holder }
    }

    /// Renews until `stop`, then lets go of it: a proxy that replaces this one has it by then and keeps it.
    pub async fn run(self, stop: CancellationToken) {
        let _ = stop.run_until_cancelled(self.renew_for_ever()).await;
        if let Ok(Err(error)) = timeout(FAREWELL, self.release()).await {
            warn!(error = %chain(&error), "own Lease not taken back; it runs out by itself");
        }
    }

    async fn renew_for_ever(&self) {
        let mut client = None;
        let mut backoff = Backoff::new(FIRST_PAUSE, RENEWAL);
        let mut is_failing = false;
        loop {
            let renewed =
                timeout(ANSWER_LIMIT, self.renew(&mut client)).await.unwrap_or(Err(LeaseError::Late));
            match renewed {
                Ok(()) => {
                    if std::mem::take(&mut is_failing) {
                        info!(name = self.name, "own Lease is written again");
                    }
                    backoff.succeeded();
                    sleep(jittered(RENEWAL)).await;
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_failing, true) {
                        warn!(name = self.name, error = %chain(&error), "own Lease in kube-system not written: other \
                              proxies may not learn of --peer-advertise-ip");
                    }
                    client = None;
                    sleep(backoff.failed()).await;
                }
            }
        }
    }

    /// Takes the Lease over or renews it. Another process that runs beside this one for a moment writes the same, but for the
    /// holder, of whom others only look whether there is one.
    async fn renew(&self, client: &mut Option<Client>) -> Result<(), LeaseError> {
        let client = match client {
            Some(client) => client,
            None => client.insert(self.clients.connect()?),
        };
        let leases: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
        let mut lease = self.lease();
        match leases.get_opt(&self.name).await? {
            None => leases.create(&PostParams::default(), &lease).await?,
            Some(found) => {
                lease.metadata.resource_version = found.metadata.resource_version;
                leases.replace(&self.name, &PostParams::default(), &lease).await?
            }
        };
        Ok(())
    }

    /// Writes that nobody holds it, which needs no right to delete.
    async fn release(&self) -> Result<(), LeaseError> {
        let leases: Api<Lease> = Api::namespaced(self.clients.connect()?, NAMESPACE);
        let Some(found) = leases.get_opt(&self.name).await? else { return Ok(()) };
        let holder = found.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
        if holder != Some(&self.holder) {
            return Ok(());
        }
        let mut lease = self.lease();
        lease.metadata.resource_version = found.metadata.resource_version;
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
        }
        leases.replace(&self.name, &PostParams::default(), &lease).await?;
        Ok(())
    }

    fn lease(&self) -> Lease {
        let (key, value) = super::lease::PROXY_SELECTOR.split_once('=').expect("the constant has one");
        let mut labels = BTreeMap::from([(key.to_owned(), value.to_owned())]);
        if let Some(hostname) = &self.hostname {
            labels.insert(HOSTNAME_LABEL.to_owned(), hostname.clone());
        }
        Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(NAMESPACE.to_owned()),
                labels: Some(labels),
                annotations: Some(BTreeMap::from([(
                    ADDRESS_ANNOTATION.to_owned(),
                    self.address.to_string(),
                )])),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.holder.clone()),
                lease_duration_seconds: Some(LEASE_SECONDS),
                renew_time: Some(MicroTime(Timestamp::now())),
                ..LeaseSpec::default()
            }),
        }
    }
}

/// The same after every restart, so that no Leases pile up; different for two proxies on one host.
fn lease_name(hostname: &str, address: SocketAddr) -> String {
    let hash = digest::digest(&digest::SHA256, format!("{hostname} {address}").as_bytes());
    format!("mixed-version-proxy-{}", hex::lower(&hash.as_ref()[..8]))
}

fn random_id() -> String {
    let mut bytes = [0; 16];
    // Without randomness from the system there would be no TLS either; the name then only repeats.
    let _ = rand::fill(&mut bytes);
    hex::lower(&bytes)
}
