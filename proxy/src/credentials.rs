//! Loads certificates, keys and CA bundles, and says which flag and file is wrong.

use std::fmt;
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls_pki_types::UnixTime;

use crate::config::Config;

pub use self::bundle::CaBundle;
pub use self::error::CredentialError;
pub use self::verify::{Validity, validity};

mod bundle;
mod error;
mod files;
mod judge;
mod load;
mod peer_ca;
mod verify;

/// One consistent set of loaded certificates.
///
/// A reload makes a new one in which every part that did not change is the same [`Arc`].
#[derive(Clone)]
pub struct Credentials {
    /// The API server's own serving certificate and key.
    pub serving: Arc<CertifiedKey>,
    /// Further certificates, for clients that ask for certain names.
    pub sni: Vec<SniCertificate>,
    /// Trust anchors of ordinary client certificates.
    pub client_ca: Arc<CaBundle>,
    /// Trust anchors of front proxies' certificates.
    pub request_header_ca: Arc<CaBundle>,
    /// The front-proxy certificate and key this proxy asserts identities with.
    pub proxy_client: Arc<CertifiedKey>,
    /// Trust anchors of API servers' serving certificates.
    pub peer_ca: Arc<CaBundle>,
}

/// A pair of `--tls-sni-cert-key`.
#[derive(Clone)]
pub struct SniCertificate {
    /// The names it was given for, lower-case; empty for those in the certificate.
    pub names: Vec<String>,
    /// Certificate chain and key.
    pub certified: Arc<CertifiedKey>,
}

/// Until when one certificate can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiration {
    /// Flag that names its file, without dashes.
    pub flag: &'static str,
    /// Distinguished name.
    pub subject: String,
    /// Its last moment.
    pub not_after: UnixTime,
}

impl Credentials {
    /// Reads all files that `config` names.
    ///
    /// # Errors
    /// Every file that cannot be used, all at once, each with its flag.
    pub fn load(config: &Config) -> Result<Self, Vec<CredentialError>> {
        let mut loader = load::Loader { config, former: None, mistakes: Vec::new() };
        match loader.load() {
            Some(credentials) if loader.mistakes.is_empty() => Ok(credentials),
            _ => Err(loader.mistakes),
        }
    }

    /// Reads the files again. What cannot be used is reported, and its former state kept.
    pub fn reload(&self, config: &Config) -> (Self, Vec<CredentialError>) {
        let mut loader = load::Loader { config, former: Some(self), mistakes: Vec::new() };
        let fresh = loader.load().unwrap_or_else(|| self.clone());
        (fresh, loader.mistakes)
    }

    /// Flags, without dashes, of the parts that are not the very same in `other`.
    pub fn changes(&self, other: &Self) -> Vec<&'static str> {
        let certificates = |credentials: &Self| -> Vec<_> {
            credentials.sni.iter().map(|sni| Arc::as_ptr(&sni.certified)).collect()
        };
        let parts = [
            ("tls-cert-file", Arc::ptr_eq(&self.serving, &other.serving)),
            ("tls-sni-cert-key", certificates(self) == certificates(other)),
            ("client-ca-file", Arc::ptr_eq(&self.client_ca, &other.client_ca)),
            ("requestheader-client-ca-file", Arc::ptr_eq(&self.request_header_ca, &other.request_header_ca)),
            ("proxy-client-cert-file", Arc::ptr_eq(&self.proxy_client, &other.proxy_client)),
            ("peer-ca-file", Arc::ptr_eq(&self.peer_ca, &other.peer_ca)),
        ];
        parts.into_iter().filter(|(_, is_same)| !is_same).map(|(flag, _)| flag).collect()
    }

    /// What works, or will stop working, but is probably not meant: one sentence each.
    pub fn doubts(&self, config: &Config) -> Vec<String> {
        judge::doubts(config, self).iter().map(ToString::to_string).collect()
    }

    /// Until when each certificate can be used; of several with one name under one flag the one that ends last.
    pub fn expirations(&self) -> Vec<Expiration> {
        let mut all: Vec<Expiration> = Vec::new();
        let mut add = |flag, (subject, not_after)| match all
            .iter_mut()
            .find(|known| known.flag == flag && known.subject == subject)
        {
            Some(known) => known.not_after = known.not_after.max(not_after),
            None => all.push(Expiration { flag, subject, not_after }),
        };
        let sni = self.sni.iter().map(|sni| ("tls-sni-cert-key", &sni.certified));
        let pairs = [("tls-cert-file", &self.serving), ("proxy-client-cert-file", &self.proxy_client)];
        for (flag, certified) in pairs.into_iter().chain(sni) {
            let leaf = certified.cert.first();
            if let Some((leaf, validity)) = leaf.and_then(|leaf| Some((leaf, validity(leaf)?))) {
                add(flag, (verify::subject(leaf), validity.not_after));
            }
        }
        let bundles = [
            ("client-ca-file", &self.client_ca),
            ("requestheader-client-ca-file", &self.request_header_ca),
            ("peer-ca-file", &self.peer_ca),
        ];
        for (flag, bundle) in bundles {
            bundle.expirations().for_each(|expiration| add(flag, expiration));
        }
        all
    }
}

/// Names whose certificates these are; neither keys nor encoded certificates are printed.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = |certified: &CertifiedKey| certified.cert.first().map(verify::subject);
        f.debug_struct("Credentials")
            .field("serving", &subject(&self.serving))
            .field("proxy_client", &subject(&self.proxy_client))
            .field("client_ca", &self.client_ca.len())
            .field("request_header_ca", &self.request_header_ca.len())
            .field("peer_ca", &self.peer_ca.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
