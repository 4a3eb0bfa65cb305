//! Reads a user out of a client certificate the way kube-apiserver's x509 authenticator does.

use std::fmt::Write as _;

use aws_lc_rs::digest;
use rustls_pki_types::CertificateDer;
use x509_parser::asn1_rs::{FromDer as _, Oid, oid};
use x509_parser::certificate::X509Certificate;
use x509_parser::x509::X509Name;

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
    let certificate = parse(leaf)?;
    let name = last(values(certificate.subject(), &COMMON_NAME)?);
    if name.is_empty() {
        return Ok(None);
    }
    let uid = match &values(certificate.subject(), &UID)?[..] {
        [] => None,
        [uid] if !uid.is_empty() => Some(uid.clone()),
        _ => return Err(CertificateError::Uid),
    };
    Ok(Some(User {
        name,
        uid,
        groups: values(certificate.subject(), &ORGANIZATION)?,
        extra: vec![(CREDENTIAL_ID.to_owned(), credential_id(leaf))],
    }))
}

/// The certificate's common name; empty when it has none.
///
/// # Errors
/// When the subject cannot be read.
pub fn common_name(leaf: &CertificateDer<'_>) -> Result<String, CertificateError> {
    Ok(last(values(parse(leaf)?.subject(), &COMMON_NAME)?))
}

fn parse<'a>(leaf: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CertificateError> {
    X509Certificate::from_der(leaf)
        .map(|(_, certificate)| certificate)
        .map_err(|_| CertificateError::Malformed)
}

/// Go keeps the last common name of a subject.
fn last(mut names: Vec<String>) -> String {
    names.pop().unwrap_or_default()
}

/// Every value of an attribute, in encoding order, multi-valued RDNs included.
fn values(name: &X509Name<'_>, wanted: &Oid<'_>) -> Result<Vec<String>, CertificateError> {
    name.iter_attributes()
        .filter(|attribute| attribute.attr_type() == wanted)
        .map(|attribute| match attribute.as_str() {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(CertificateError::NotText { oid: wanted.to_id_string() }),
        })
        .collect()
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
