//! Loads certificates, keys and CA bundles, and says which flag and file is wrong.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::sign::CertifiedKey;

/// One consistent set of loaded certificates.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The API server's own serving certificate and key.
    pub serving: Arc<CertifiedKey>,
    /// Trust anchors of ordinary client certificates.
    pub client_ca: Arc<RootCertStore>,
    /// Trust anchors of front proxies' certificates.
    pub request_header_ca: Option<Arc<RootCertStore>>,
    /// The front-proxy certificate and key this proxy asserts identities with.
    pub proxy_client: Arc<CertifiedKey>,
    /// Trust anchors of API servers' serving certificates.
    pub peer_ca: Arc<RootCertStore>,
}
