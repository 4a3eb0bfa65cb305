//! Verifies what Go's x509 accepts of client certificates and webpki does not: X.509 version 1, as `openssl x509 -req`
//! makes them; a CA's own certificate; one that stands in the bundle itself.
//!
//! All of them are issued by a CA of the bundle without an intermediate, so there is no chain to build. The rules are those
//! of Go's `Certificate.Verify`, `isValid`, `CheckSignatureFrom` and `checkChainForKeyUsage`.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error};
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use x509_parser::asn1_rs::{Any, FromDer as _};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::x509::X509Version;

use crate::credentials::validity;

/// Whether one of `anchors` issued the certificate for use by a client, or is the certificate.
pub(super) fn is_issued_directly<'a>(
    leaf_der: &CertificateDer<'_>,
    mut anchors: impl Iterator<Item = &'a CertificateDer<'static>>,
    now: UnixTime,
    algorithms: &WebPkiSupportedAlgorithms,
) -> bool {
    let Ok(([], leaf)) = X509Certificate::from_der(leaf_der) else { return false };
    let is_usable = validity(leaf_der).is_some_and(|validity| validity.includes(now))
        && is_understood(&leaf)
        && allows_client_auth(&leaf);
    is_usable
        && anchors.any(|anchor_der| {
            anchor_der == leaf_der
                || X509Certificate::from_der(anchor_der)
                    .is_ok_and(|(_, anchor)| issued(&anchor, &leaf, algorithms))
        })
}

/// No critical extension that is not looked at here.
fn is_understood(leaf: &X509Certificate<'_>) -> bool {
    leaf.extensions().iter().filter(|extension| extension.critical).all(|extension| {
        matches!(
            extension.parsed_extension(),
            ParsedExtension::BasicConstraints(_)
                | ParsedExtension::KeyUsage(_)
                | ParsedExtension::ExtendedKeyUsage(_)
                | ParsedExtension::SubjectAlternativeName(_)
        )
    })
}

/// A certificate without extended key usages is good for all.
fn allows_client_auth(certificate: &X509Certificate<'_>) -> bool {
    match certificate.extended_key_usage() {
        Ok(None) => true,
        Ok(Some(usage)) => usage.value.any || usage.value.client_auth,
        Err(_) => false,
    }
}

fn issued(
    anchor: &X509Certificate<'_>,
    leaf: &X509Certificate<'_>,
    algorithms: &WebPkiSupportedAlgorithms,
) -> bool {
    let may_sign = match anchor.basic_constraints() {
        Ok(Some(constraints)) => constraints.value.ca,
        Ok(None) => anchor.version() != X509Version::V3,
        Err(_) => false,
    };
    let usage_allows = match anchor.key_usage() {
        Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
        Err(_) => false,
    };
    anchor.subject().as_raw() == leaf.issuer().as_raw()
        && may_sign
        && usage_allows
        && allows_client_auth(anchor)
        && matches!(anchor.name_constraints(), Ok(None))
        && signed(anchor, leaf, algorithms)
}

fn signed(
    anchor: &X509Certificate<'_>,
    leaf: &X509Certificate<'_>,
    algorithms: &WebPkiSupportedAlgorithms,
) -> bool {
    let (Some(signature_algorithm), Some(key)) =
        (signature_algorithm(leaf), PublicKey::of(anchor.public_key().raw))
    else {
        return false;
    };
    let (message, signature) = (leaf.tbs_certificate.as_ref(), leaf.signature_value.data.as_ref());
    let fits = |it: &&&dyn SignatureVerificationAlgorithm| {
        it.signature_alg_id().as_ref() == signature_algorithm
            && it.public_key_alg_id().as_ref() == key.algorithm
    };
    algorithms.all.iter().filter(fits).any(|it| it.verify_signature(key.bits, message, signature).is_ok())
}

/// The content of the algorithm identifier; inside and outside the signed part it is the same (RFC 5280 section 4.1.1.2).
fn signature_algorithm<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    (certificate.signature_algorithm == certificate.tbs_certificate.signature).then_some(())?;
    // The signed part: version (version 1 has none), serial number, algorithm identifier.
    let (_, signed) = Any::from_der(certificate.tbs_certificate.as_ref()).ok()?;
    let mut rest = signed.data;
    loop {
        let (after, element) = Any::from_der(rest).ok()?;
        if element.header.is_constructed() && element.header.tag().0 == SEQUENCE {
            return Some(element.data);
        }
        rest = after;
    }
}

/// ASN.1's universal tag of a sequence.
const SEQUENCE: u32 = 0x10;

/// A subject public key info, taken apart.
struct PublicKey<'a> {
    algorithm: &'a [u8],
    bits: &'a [u8],
}

impl<'a> PublicKey<'a> {
    fn of(info: &'a [u8]) -> Option<Self> {
        let (_, info) = Any::from_der(info).ok()?;
        let (rest, algorithm) = Any::from_der(info.data).ok()?;
        let (_, bits) = Any::from_der(rest).ok()?;
        // A bit string begins with the number of unused bits, which a key has none of.
        let (0, bits) = bits.data.split_first()? else { return None };
        Some(Self { algorithm: algorithm.data, bits })
    }
}

/// The public key info of a certificate that webpki does not read: one of version 1, or with a critical extension that
/// nobody knows. The client's handshake goes on all the same; what the certificate proves is another matter.
pub(super) fn unread_public_key(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    if ParsedCertificate::try_from(certificate).is_ok() {
        return None;
    }
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(certificate.public_key().raw.to_vec())
}

/// Verifies that a TLS 1.2 client holds the key; rustls does that for keys in certificates that webpki reads.
pub(super) fn verify_tls12_signature(
    message: &[u8],
    key: &[u8],
    dss: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    let key = PublicKey::of(key).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let offered = algorithms.mapping.iter().filter(|(scheme, _)| *scheme == dss.scheme);
    let verified = offered
        .flat_map(|(_, candidates)| *candidates)
        .filter(|it| it.public_key_alg_id().as_ref() == key.algorithm)
        .any(|it| it.verify_signature(key.bits, message, dss.signature()).is_ok());
    if verified {
        Ok(HandshakeSignatureValid::assertion())
    } else {
        Err(Error::InvalidCertificate(CertificateError::BadSignature))
    }
}
