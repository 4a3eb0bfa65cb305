//! Answers questions about one certificate: whose it is, since when and until when, signed by whom.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, Error, RootCertStore};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Distinguished name of the certificate's owner.
pub(super) fn subject(certificate: &CertificateDer<'_>) -> String {
    parsed(certificate).map_or_else(|| "unreadable".to_owned(), |it| it.subject().to_string())
}

/// First common name of the certificate's owner.
pub(super) fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = parsed(certificate)?;
    let name = certificate.subject().iter_common_name().next()?;
    name.as_str().ok().map(str::to_owned)
}

/// Whether the certificate's owner belongs to an organization, which Kubernetes reads as a group.
pub(super) fn has_organization(certificate: &CertificateDer<'_>) -> bool {
    parsed(certificate).is_some_and(|it| it.subject().iter_organization().next().is_some())
}

/// When a certificate may be used, both ends included (RFC 5280 section 4.1.2.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First moment.
    pub not_before: UnixTime,
    /// Last moment.
    pub not_after: UnixTime,
}

impl Validity {
    /// Whether a moment lies within.
    pub fn includes(&self, now: UnixTime) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// The next moment after `now` at which [`Self::includes`] changes.
    pub fn next_change(&self, now: UnixTime) -> Option<UnixTime> {
        let after_end = UnixTime::since_unix_epoch(Duration::from_secs(self.not_after.as_secs() + 1));
        [self.not_before, after_end].into_iter().find(|moment| *moment > now)
    }
}

/// The validity of a certificate that can be read.
pub fn validity(certificate: &CertificateDer<'_>) -> Option<Validity> {
    let validity = parsed(certificate)?.validity().clone();
    Some(Validity {
        not_before: moment(validity.not_before.timestamp()),
        not_after: moment(validity.not_after.timestamp()),
    })
}

/// Both ends of the validity, as RFC 2822 text.
pub(super) fn validity_text(certificate: &CertificateDer<'_>) -> Option<(String, String)> {
    let validity = parsed(certificate)?.validity().clone();
    Some((validity.not_before.to_string(), validity.not_after.to_string()))
}

/// Whether `roots` signed this serving certificate; its own expiry is another matter and does not count.
pub(super) fn signed_serving(certified: &CertifiedKey, roots: &RootCertStore) -> Result<(), Error> {
    let certificate = ParsedCertificate::try_from(certified.end_entity_cert()?)?;
    verify_server_cert_signed_by_trust_anchor(
        &certificate,
        roots,
        &certified.cert[1..],
        inside(certified),
        aws_lc_rs::default_provider().signature_verification_algorithms.all,
    )
}

/// Whether `roots` signed this client certificate, likewise.
pub(super) fn signed_client(certified: &CertifiedKey, roots: RootCertStore) -> Result<(), Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|_| Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
    verifier.verify_client_cert(certified.end_entity_cert()?, &certified.cert[1..], inside(certified))?;
    Ok(())
}

/// The moment inside the certificate's validity that is closest to now.
fn inside(certified: &CertifiedKey) -> UnixTime {
    let now = UnixTime::now();
    let validity = certified.end_entity_cert().ok().and_then(|leaf| validity(leaf));
    validity.map_or(now, |it| now.max(it.not_before).min(it.not_after))
}

fn parsed<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(certificate).ok().map(|(_, certificate)| certificate)
}

/// Seconds before 1970 count as 1970.
fn moment(timestamp: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(timestamp.try_into().unwrap_or(0)))
}
