//! Terminates clients' TLS as the API server itself would, and opens TLS to API servers.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls_pki_types::UnixTime;

use crate::config::ServingTls;
use crate::credentials::Credentials;

mod client_chain;
mod client_signature;
mod clients;
pub mod cork;
mod der;
pub mod handshake;
mod serving;
mod upstreams;

pub use clients::ClientVerifiers;
pub use serving::ServerConfigs;
pub use upstreams::UpstreamTls;

/// Name in every kube-apiserver's serving certificate; what the built-in proxy verifies too.
pub const APISERVER_NAME: &str = "kubernetes.default.svc";
/// SNI of kube-apiserver's connections to itself.
pub const LOOPBACK_CLIENT_NAME: &str = "apiserver-loopback-client";

const HTTP_2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

/// Why TLS could not be set up from the loaded credentials.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A CA bundle is unusable as trust anchors for clients.
    #[error("{flag}: the CA bundle cannot verify client certificates")]
    ClientVerifier {
        /// Flag that names the bundle.
        flag: &'static str,
        /// Cause.
        source: rustls::client::VerifierBuilderError,
    },
    /// The peer CA bundle is unusable as trust anchors for servers.
    #[error("--peer-ca-file: the CA bundle cannot verify serving certificates")]
    ServerVerifier(#[source] rustls::client::VerifierBuilderError),
    /// The provider does not offer the protocol versions.
    #[error("--tls-min-version, --tls-cipher-suites: no TLS version is left that can be used")]
    Versions(#[source] rustls::Error),
}

/// Everything TLS needs, built from one set of credentials and replaced as a whole.
#[derive(Debug)]
pub struct TlsContext {
    /// Towards clients.
    pub server: ServerConfigs,
    /// Decides what a client's certificate proves.
    pub clients: ClientVerifiers,
    /// Towards API servers.
    pub upstreams: UpstreamTls,
    /// Counts the contexts of a process: what an earlier one let a client prove has to be proved again.
    pub generation: u64,
    /// The same of the credentials towards API servers: connections opened with earlier ones take no new requests.
    pub upstream_generation: u64,
    /// When a CA's validity begins or ends, and another context is due.
    pub valid_until: Option<UnixTime>,
}

impl TlsContext {
    /// The first context of a process.
    ///
    /// # Errors
    /// When a CA bundle cannot serve its purpose.
    pub fn new(credentials: &Credentials, serving: &ServingTls, now: UnixTime) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let clients =
            ClientVerifiers::new(&credentials.client_ca, &credentials.request_header_ca, &provider, now)?;
        let bundles = [&credentials.client_ca, &credentials.request_header_ca, &credentials.peer_ca];
        Ok(Self {
            server: ServerConfigs::new(credentials, serving, &clients, &provider)?,
            clients,
            upstreams: UpstreamTls::new(credentials, &provider, now)?,
            generation: 0,
            upstream_generation: 0,
            valid_until: bundles.iter().filter_map(|bundle| bundle.next_change(now)).min(),
        })
    }

    /// The context that follows this one.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub fn next(
        &self,
        credentials: &Credentials,
        serving: &ServingTls,
        now: UnixTime,
    ) -> Result<Self, TlsError> {
        let mut next = Self::new(credentials, serving, now)?;
        next.generation = self.generation + 1;
        next.upstream_generation = self.upstream_generation;
        if next.upstreams.is_same(&self.upstreams) {
            // With their sessions.
            next.upstreams = self.upstreams.clone();
        } else {
            next.upstream_generation += 1;
        }
        Ok(next)
    }
}
