//! Reads a user out of a client certificate the way kube-apiserver's x509 authenticator does.

use std::fmt::Write as _;

use aws_lc_rs::digest;
use rustls_pki_types::CertificateDer;
use x509_parser::asn1_rs::{FromDer as _, Oid, oid};
use x509_parser::certificate::X509Certificate;

use super::text;

/// A user as Kubernetes knows one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// Name.
    pub name: String,
    /// Unique id, when the certificate has one.
    pub uid: Option<String>,
    /// Groups, in the certificate's order.
    pub groups: Vec<String>,
    /// Extra keys and values.
    pub extra: Vec<(String, String)>,
}

/// Why a certificate names no user although it verified.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not X.509.
    #[error("the certificate cannot be parsed")]
    Malformed,
    /// A subject attribute is not text.
    #[error("subject attribute {oid} is not text")]
    NotText {
        /// Attribute type.
        oid: String,
    },
    /// More than one UID attribute, or an empty one; kube-apiserver refuses both.
    #[error("the subject must have at most one, non-empty, UID attribute")]
    Uid,
}

const COMMON_NAME: Oid<'_> = oid!(2.5.4.3);
const ORGANIZATION: Oid<'_> = oid!(2.5.4.10);
/// Kubernetes' UID attribute, read since 1.33 (feature gate `AllowParsingUserUIDFromCertAuth`).
const UID: Oid<'_> = oid!(1.3.6.1.4.1.57683.2);
/// Extra key that names the credential in audit logs (KEP-4193).
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// The user a verified certificate names; `None` when it has no common name.
///
/// # Errors
/// When the subject cannot be read.
pub fn user_of(leaf: &CertificateDer<'_>) -> Result<Option<User>, CertificateError> {
    let Subject { common_name, groups, mut uids } = Subject::of(leaf)?;
    if common_name.is_empty() {
        return Ok(None);
    }
    let uid = uids.pop();
    if !uids.is_empty() || uid.as_deref() == Some("") {
        return Err(CertificateError::Uid);
    }
    let extra = vec![(CREDENTIAL_ID.to_owned(), credential_id(leaf))];
    Ok(Some(User { name: common_name, uid, groups, extra }))
}

/// The certificate's common name; empty when it has none.
///
/// # Errors
/// When the subject cannot be read.
pub fn common_name(leaf: &CertificateDer<'_>) -> Result<String, CertificateError> {
    Subject::of(leaf).map(|subject| subject.common_name)
}

/// What kube-apiserver reads of a subject, in encoding order, RDNs of several values included.
#[derive(Default)]
struct Subject {
    /// The last of several, as Go keeps it.
    common_name: String,
    groups: Vec<String>,
    uids: Vec<String>,
}

impl Subject {
    /// Every attribute has to be text, also those that nobody reads: Go parses no certificate with another.
    fn of(leaf: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| CertificateError::Malformed)?;
        let mut subject = Self::default();
        for attribute in certificate.subject().iter_attributes() {
            let (kind, value) = (attribute.attr_type(), attribute.attr_value());
            let value = text::of(value.tag(), value.data)
                .ok_or_else(|| CertificateError::NotText { oid: kind.to_id_string() })?;
            if *kind == COMMON_NAME {
                subject.common_name = value;
            } else if *kind == ORGANIZATION {
                subject.groups.push(value);
            } else if *kind == UID {
                subject.uids.push(value);
            }
        }
        Ok(subject)
    }
}

fn credential_id(leaf: &CertificateDer<'_>) -> String {
    let hash = digest::digest(&digest::SHA256, leaf);
    let mut id = String::from("X509SHA256=");
    for byte in hash.as_ref() {
        // Writing to a String cannot fail.
        let _ = write!(id, "{byte:02x}");
    }
    id
}
