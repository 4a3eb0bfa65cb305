//! Loads certificates, keys and CA bundles, and says which flag and file is wrong.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use tracing::warn;

use crate::config::Config;

pub use self::error::CredentialError;

mod error;
mod files;
mod judge;
mod peer_ca;
mod verify;

/// One consistent set of loaded certificates.
///
/// Every load makes a new one, so that a reload can replace verifiers, and session stores with them, at once.
#[derive(Clone)]
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

impl Credentials {
    /// Reads all files that `config` names, and reports doubtful ones as warnings.
    ///
    /// # Errors
    /// Every file that cannot be used, all at once, each with its flag.
    pub fn load(config: &Config) -> Result<Self, Vec<CredentialError>> {
        let mut loader = Loader { config, mistakes: Vec::new() };
        match loader.load() {
            Some(credentials) if loader.mistakes.is_empty() => {
                for doubt in judge::doubts(config, &credentials) {
                    warn!("{doubt}");
                }
                Ok(credentials)
            }
            _ => Err(loader.mistakes),
        }
    }
}

/// Loads one file after the other, and goes on after a mistake.
struct Loader<'a> {
    config: &'a Config,
    mistakes: Vec<CredentialError>,
}

impl Loader<'_> {
    fn load(&mut self) -> Option<Credentials> {
        let files = &self.config.files;
        let serving =
            self.pair(("tls-cert-file", &files.tls_cert), ("tls-private-key-file", &files.tls_private_key));
        let client_ca = self.roots("client-ca-file", &files.client_ca);
        let proxy_client = self.pair(
            ("proxy-client-cert-file", &files.proxy_client_cert),
            ("proxy-client-key-file", &files.proxy_client_key),
        );
        let front =
            files.request_header_ca.as_ref().map(|file| self.roots("requestheader-client-ca-file", file));
        if let (Some(clients), Some(Some(fronts))) = (&client_ca, &front) {
            self.note(judge::shared_ca(self.config, clients, fronts));
        }
        let peer_ca = self.peer_ca(serving.as_deref(), client_ca.as_ref());
        Some(Credentials {
            serving: serving?,
            client_ca: client_ca?,
            request_header_ca: match front {
                Some(roots) => Some(roots?),
                None => None,
            },
            proxy_client: proxy_client?,
            peer_ca: peer_ca?,
        })
    }

    fn roots(&mut self, name: &'static str, file: &Path) -> Option<Arc<RootCertStore>> {
        self.note(files::roots(&self.config.origins.flag(name), file))
    }

    fn pair(
        &mut self,
        (certificate_name, certificate_file): (&'static str, &Path),
        (key_name, key_file): (&'static str, &Path),
    ) -> Option<Arc<CertifiedKey>> {
        let origins = &self.config.origins;
        let (certificate_flag, key_flag) = (origins.flag(certificate_name), origins.flag(key_name));
        let chain = self.note(files::certificates(&certificate_flag, certificate_file));
        let key = self.note(files::signing_key(&key_flag, key_file));
        let certified = CertifiedKey::new(chain?, key?);
        self.note(files::matching(certified, (certificate_flag, certificate_file), (key_flag, key_file)))
    }

    fn peer_ca(
        &mut self,
        serving: Option<&CertifiedKey>,
        client_ca: Option<&Arc<RootCertStore>>,
    ) -> Option<Arc<RootCertStore>> {
        if let Some(file) = &self.config.files.peer_ca {
            return self.roots("peer-ca-file", file);
        }
        match self.note(peer_ca::of_own_credentials(self.config))? {
            Some(roots) => Some(roots),
            None => self.note(peer_ca::of_clients(self.config, serving?, client_ca?)),
        }
    }

    fn note<T>(&mut self, result: Result<T, CredentialError>) -> Option<T> {
        result.map_err(|mistake| self.mistakes.push(mistake)).ok()
    }
}

/// Names whose certificates these are; neither keys nor encoded certificates are printed.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("serving", &verify::subject(&self.serving))
            .field("proxy_client", &verify::subject(&self.proxy_client))
            .field("client_ca", &self.client_ca.len())
            .field("request_header_ca", &self.request_header_ca.as_ref().map(|roots| roots.len()))
            .field("peer_ca", &self.peer_ca.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
