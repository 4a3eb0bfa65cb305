//! Reads a user from a client certificate.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::standin::clock;
use crate::standin::user::User;

/// Why a certificate is not believed.
#[derive(Clone, Debug, thiserror::Error)]
pub(in crate::standin) enum CertificateError {
    #[error("the client certificate does not verify: {0}")]
    Unverifiable(String),
    #[error("the front proxy's name {common_name:?} is not allowed")]
    NotAllowed { common_name: String },
    #[error("the client certificate carries {count} UIDs or an empty one")]
    AmbiguousUid { count: usize },
}

/// Certificates of one CA bundle, for client authentication.
pub(in crate::standin) struct ClientCertificates {
    verifier: Arc<dyn ClientCertVerifier>,
}

impl ClientCertificates {
    pub(in crate::standin) fn new(ca_pem: &str) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        Ok(Self { verifier })
    }

    pub(in crate::standin) fn ca_subjects(&self) -> Vec<rustls::DistinguishedName> {
        self.verifier.root_hint_subjects().to_vec()
    }

    pub(super) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), CertificateError> {
        self.verifier
            .verify_client_cert(leaf, intermediates, UnixTime::now())
            .map(|_| ())
            .map_err(|error| CertificateError::Unverifiable(error.to_string()))
    }

    /// CN, every O, the UID attribute and the credential id; no user without a CN.
    pub(super) fn user(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<Option<User>, CertificateError> {
        self.verify(leaf, intermediates)?;
        let certificate = parse(leaf)?;
        let Some(name) = common_name(&certificate).filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let groups = certificate
            .subject()
            .iter_organization()
            .filter_map(|value| value.as_str().ok().map(str::to_owned))
            .collect();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, leaf);
        let credential = format!("X509SHA256={}", clock::hex(digest.as_ref()));
        Ok(Some(User {
            name,
            uid: uid(&certificate)?,
            groups,
            extra: BTreeMap::from([(
                "authentication.kubernetes.io/credential-id".to_owned(),
                vec![credential],
            )]),
        }))
    }
}

pub(super) fn parse<'a>(leaf: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CertificateError> {
    X509Certificate::from_der(leaf)
        .map(|(_, certificate)| certificate)
        .map_err(|error| CertificateError::Unverifiable(error.to_string()))
}

/// The last CN: Go's `pkix.Name` keeps the last of several.
pub(super) fn common_name(certificate: &X509Certificate<'_>) -> Option<String> {
    certificate.subject().iter_common_name().last()?.as_str().ok().map(str::to_owned)
}

/// The attribute 1.3.6.1.4.1.57683.2; several or an empty one are an error, as in kube-apiserver ≥ 1.33.
fn uid(certificate: &X509Certificate<'_>) -> Result<String, CertificateError> {
    let uids: Vec<&str> = certificate
        .subject()
        .iter_attributes()
        .filter(|attribute| attribute.attr_type().to_id_string() == "1.3.6.1.4.1.57683.2")
        .filter_map(|attribute| attribute.as_str().ok())
        .collect();
    match uids[..] {
        [] => Ok(String::new()),
        [uid] if !uid.is_empty() => Ok(uid.to_owned()),
        _ => Err(CertificateError::AmbiguousUid { count: uids.len() }),
    }
}
