//! Reads a user from a client certificate.

use std::collections::BTreeMap;

use rustls_pki_types::CertificateDer;
use x509_parser::asn1_rs::Oid;
use x509_parser::oid_registry::{OID_X509_COMMON_NAME, OID_X509_ORGANIZATION_NAME};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::chain::{Roots, Untrusted};
use super::text;
use crate::standin::clock;
use crate::standin::user::User;

/// Why a certificate is not believed.
#[derive(Clone, Debug, thiserror::Error)]
pub(in crate::standin) enum CertificateError {
    #[error("the client certificate does not verify: {0}")]
    Untrusted(#[from] Untrusted),
    #[error("the front proxy's name {common_name:?} is not allowed")]
    NotAllowed { common_name: String },
    #[error("the client certificate carries {count} UIDs or an empty one")]
    AmbiguousUid { count: usize },
}

/// Certificates of one CA bundle, for client authentication.
pub(in crate::standin) struct ClientCertificates {
    roots: Roots,
}

impl ClientCertificates {
    pub(in crate::standin) fn new(ca_pem: &str) -> anyhow::Result<Self> {
        Ok(Self { roots: Roots::new(ca_pem)? })
    }

    pub(in crate::standin) fn ca_subjects(&self) -> Vec<rustls::DistinguishedName> {
        self.roots.subjects()
    }

    /// The subject of a certificate that verifies.
    pub(super) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<Subject, CertificateError> {
        // Go fails already when it parses a certificate with an attribute that is not text.
        let subject = Subject::of(leaf)?;
        self.roots.verify(leaf, intermediates)?;
        Ok(subject)
    }

    /// CN, every O, the UID attribute and the credential id; no user without a CN.
    pub(super) fn user(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<Option<User>, CertificateError> {
        let subject = self.verify(leaf, intermediates)?;
        if subject.common_name.is_empty() {
            return Ok(None);
        }
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, leaf);
        let credential = format!("X509SHA256={}", clock::hex(digest.as_ref()));
        Ok(Some(User {
            uid: subject.uid()?,
            name: subject.common_name,
            groups: subject.organizations,
            extra: BTreeMap::from([(
                "authentication.kubernetes.io/credential-id".to_owned(),
                vec![credential],
            )]),
        }))
    }
}

/// What kube-apiserver reads of a certificate's subject.
pub(super) struct Subject {
    /// The last of several, as Go's `pkix.Name` keeps it; empty when there is none.
    pub(super) common_name: String,
    organizations: Vec<String>,
    uids: Vec<String>,
}

impl Subject {
    fn of(der: &CertificateDer<'_>) -> Result<Self, Untrusted> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| Untrusted::Malformed)?;
        let mut subject = Self { common_name: String::new(), organizations: Vec::new(), uids: Vec::new() };
        for attribute in certificate.subject().iter_attributes() {
            let value = attribute.attr_value();
            let value = text::of(value.tag().0, value.data).ok_or(Untrusted::Malformed)?;
            let kind: &Oid<'_> = attribute.attr_type();
            if *kind == OID_X509_COMMON_NAME {
                subject.common_name = value;
            } else if *kind == OID_X509_ORGANIZATION_NAME {
                subject.organizations.push(value);
            } else if kind.to_id_string() == "1.3.6.1.4.1.57683.2" {
                subject.uids.push(value);
            }
        }
        Ok(subject)
    }

    /// Several UIDs or an empty one are an error, as in kube-apiserver ≥ 1.33.
    fn uid(&self) -> Result<String, CertificateError> {
        match &self.uids[..] {
            [] => Ok(String::new()),
            [uid] if !uid.is_empty() => Ok(uid.clone()),
            uids => Err(CertificateError::AmbiguousUid { count: uids.len() }),
        }
    }
}
