//! Checks that a client holds the key of the certificate it shows, whatever else is in the certificate.
//!
//! rustls' own functions read the certificate with webpki, and so fail the handshake over one of version 1 or with a
//! critical extension they do not know. kube-apiserver takes the first and answers the second with 401.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::{CertificateError, DigitallySignedStruct, Error};
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::der::{PublicKey, split};

/// As `rustls::crypto::verify_tls12_signature`.
///
/// # Errors
/// When the certificate cannot be parsed, or its key did not make the signature.
pub(super) fn verify_tls12_signature(
    message: &[u8],
    cert: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
    supported: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    let info = key_info(cert)?;
    let key = split(info.as_ref())
        .and_then(|(info, _)| PublicKey::of(info))
        .ok_or(CertificateError::BadEncoding)?;
    let of_scheme = supported.mapping.iter().filter(|(scheme, _)| *scheme == dss.scheme);
    let mut fitting = of_scheme
        .flat_map(|(_, algorithms)| algorithms.iter())
        .filter(|algorithm| algorithm.public_key_alg_id().as_ref() == key.algorithm);
    if fitting.any(|algorithm| algorithm.verify_signature(key.key, message, dss.signature()).is_ok()) {
        Ok(HandshakeSignatureValid::assertion())
    } else {
        Err(CertificateError::BadSignature.into())
    }
}

/// As `rustls::crypto::verify_tls13_signature`.
///
/// # Errors
/// When the certificate cannot be parsed, or its key did not make the signature.
pub(super) fn verify_tls13_signature(
    message: &[u8],
    cert: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
    supported: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    verify_tls13_signature_with_raw_key(message, &key_info(cert)?, dss, supported)
}

fn key_info(cert: &CertificateDer<'_>) -> Result<SubjectPublicKeyInfoDer<'static>, Error> {
    let (_, certificate) = X509Certificate::from_der(cert).map_err(|_| CertificateError::BadEncoding)?;
    Ok(SubjectPublicKeyInfoDer::from(certificate.public_key().raw.to_vec()))
}
