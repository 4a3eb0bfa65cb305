//! Loads one file after the other, goes on after a mistake, and keeps what is still good when it is done again.

use std::path::Path;
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use tracing::info;

use super::bundle::CaBundle;
use super::error::CredentialError;
use super::{Credentials, SniCertificate, files, judge, peer_ca};
use crate::config::Config;

/// One round of loading.
pub(super) struct Loader<'a> {
    pub(super) config: &'a Config,
    /// What stands in for a file that cannot be used.
    pub(super) former: Option<&'a Credentials>,
    pub(super) mistakes: Vec<CredentialError>,
}

/// A part that can be told from another one of its kind.
trait Part {
    fn is_same(&self, other: &Self) -> bool;
}

impl Part for CaBundle {
    fn is_same(&self, other: &Self) -> bool {
        self == other
    }
}

impl Part for CertifiedKey {
    /// A pair was checked to be one, so the certificate stands for the key.
    fn is_same(&self, other: &Self) -> bool {
        self.cert == other.cert
    }
}

type Named<'a> = (&'static str, &'a Path);

impl Loader<'_> {
    /// Everything, or `None` when a part is neither there nor was.
    pub(super) fn load(&mut self) -> Option<Credentials> {
        let (config, former) = (self.config, self.former);
        let files = &config.files;
        let serving = self.pair(
            [("tls-cert-file", &files.tls_cert), ("tls-private-key-file", &files.tls_private_key)],
            former.map(|former| &former.serving),
        );
        let sni = self.sni();
        let client_cas = self.client_cas();
        let proxy_client = self.pair(
            [
                ("proxy-client-cert-file", &files.proxy_client_cert),
                ("proxy-client-key-file", &files.proxy_client_key),
            ],
            former.map(|former| &former.proxy_client),
        );
        let peer_ca = self.peer_ca(serving.as_deref(), client_cas.as_ref().map(|[client_ca, _]| client_ca));
        let [client_ca, request_header_ca] = client_cas?;
        Some(Credentials {
            serving: serving?,
            sni: sni?,
            client_ca,
            request_header_ca,
            proxy_client: proxy_client?,
            peer_ca: peer_ca?,
        })
    }

    /// The CAs of clients and, where configured, of front proxies. Two that must not be used together are both left as they
    /// were.
    fn client_cas(&mut self) -> Option<[Arc<CaBundle>; 2]> {
        let (config, former) = (self.config, self.former);
        let flag_and_file = ("client-ca-file", config.files.client_ca.as_path());
        let clients = self.bundle(flag_and_file, former.map(|former| &former.client_ca));
        let flag_and_file = ("requestheader-client-ca-file", config.files.request_header_ca.as_path());
        let fronts = self.bundle(flag_and_file, former.map(|former| &former.request_header_ca));
        let (clients, fronts) = (clients?, fronts?);
        if self.note(judge::shared_ca(config, &clients, &fronts)).is_none()
            && let Some(former) = former
        {
            return Some([Arc::clone(&former.client_ca), Arc::clone(&former.request_header_ca)]);
        }
        Some([clients, fronts])
    }

    fn sni(&mut self) -> Option<Vec<SniCertificate>> {
        let config = self.config;
        let former = |index: usize| self.former.and_then(|former| former.sni.get(index));
        let loaded: Vec<_> = config
            .sni_cert_keys
            .iter()
            .enumerate()
            .map(|(index, given)| (given, former(index).map(|former| &former.certified)))
            .collect();
        let mut all = Vec::with_capacity(loaded.len());
        for (given, former) in loaded {
            let pair = [("tls-sni-cert-key", given.cert.as_path()), ("tls-sni-cert-key", &given.key)];
            all.push(
                self.pair(pair, former)
                    .map(|certified| SniCertificate { names: given.names.clone(), certified }),
            );
        }
        all.into_iter().collect()
    }

    fn bundle(&mut self, (name, file): Named<'_>, former: Option<&Arc<CaBundle>>) -> Option<Arc<CaBundle>> {
        let fresh = files::bundle(&self.config.origins.flag(name), file);
        self.keep(fresh, former)
    }

    fn pair(
        &mut self,
        [certificate, key]: [Named<'_>; 2],
        former: Option<&Arc<CertifiedKey>>,
    ) -> Option<Arc<CertifiedKey>> {
        let origins = &self.config.origins;
        let (certificate_flag, key_flag) = (origins.flag(certificate.0), origins.flag(key.0));
        let chain = self.note(files::certificates(&certificate_flag, certificate.1));
        let signing_key = self.note(files::signing_key(&key_flag, key.1));
        let (Some(chain), Some(signing_key)) = (chain, signing_key) else { return former.cloned() };
        let certified = CertifiedKey::new(chain, signing_key);
        let fresh = files::matching(certified, (certificate_flag, certificate.1), (key_flag, key.1));
        self.keep(fresh, former)
    }

    fn peer_ca(
        &mut self,
        serving: Option<&CertifiedKey>,
        client_ca: Option<&Arc<CaBundle>>,
    ) -> Option<Arc<CaBundle>> {
        let (config, former) = (self.config, self.former.map(|former| &former.peer_ca));
        if let Some(file) = &config.files.peer_ca {
            return self.bundle(("peer-ca-file", file), former);
        }
        let derived = match peer_ca::of_own_credentials(config) {
            Ok(Some(found)) => Ok(found),
            Ok(None) => peer_ca::of_clients(config, serving?, client_ca?),
            Err(error) => Err(error),
        };
        let (derived, whose) = match derived {
            Ok((bundle, whose)) => (Ok(bundle), whose),
            Err(error) => (Err(error), String::new()),
        };
        let kept = self.keep(derived, former);
        if let (Some(kept), None) = (&kept, former) {
            info!(certificates = kept.len(), "--peer-ca-file is not given: peers are verified with {whose}");
        }
        kept
    }

    /// The fresh part, the former where they are equal, and the former also where the fresh one cannot be used.
    fn keep<T: Part>(
        &mut self,
        fresh: Result<Arc<T>, CredentialError>,
        former: Option<&Arc<T>>,
    ) -> Option<Arc<T>> {
        let Some(fresh) = self.note(fresh) else { return former.cloned() };
        match former {
            Some(former) if former.is_same(&fresh) => Some(Arc::clone(former)),
            _ => Some(fresh),
        }
    }

    fn note<T>(&mut self, result: Result<T, CredentialError>) -> Option<T> {
        result.map_err(|mistake| self.mistakes.push(mistake)).ok()
    }
}
