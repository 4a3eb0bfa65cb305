//! Decides whether a CA vouches for a client's certificate, as Go's `crypto/x509` does for kube-apiserver.
//!
//! webpki asks for more than Go: it refuses certificates of version 1 (`openssl x509 -req` without an extension file),
//! clients that are CAs, and the usage `anyExtendedKeyUsage`. What it refuses is looked at once more along Go's `Verify`,
//! which here refuses whatever it does not understand: name constraints and unknown critical extensions.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{DistinguishedName, RootCertStore};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{ASN1Time, FromDer as _, X509Certificate, X509Version};

use super::der::{PublicKey, split};
use crate::credentials::CaBundle;

/// Certificates between a client's and a CA. Go has no limit but on all signatures it checks; nobody has more than two.
const MAX_INTERMEDIATES: usize = 8;
/// Go's `maxChainSignatureChecks`: a client must not make the search expensive.
const MAX_SIGNATURE_CHECKS: u32 = 100;

/// The CAs of one bundle, as far as they are valid.
#[derive(Clone, Debug)]
pub(super) struct ClientCa {
    bundle: Arc<CaBundle>,
    /// `None` when no CA is valid: then they vouch for nobody.
    by_webpki: Option<Arc<dyn ClientCertVerifier>>,
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCa {
    /// Takes the CAs that are valid at `now`.
    ///
    /// # Errors
    /// When webpki has no use for them.
    pub(super) fn new(
        bundle: &Arc<CaBundle>,
        provider: &Arc<CryptoProvider>,
        now: UnixTime,
    ) -> Result<Self, VerifierBuilderError> {
        let roots = bundle.valid_at(now);
        let by_webpki: Option<Arc<dyn ClientCertVerifier>> = if roots.is_empty() {
            None
        } else {
            let (roots, provider) = (Arc::clone(&roots), Arc::clone(provider));
            Some(WebPkiClientVerifier::builder_with_provider(roots, provider).build()?)
        };
        let algorithms = provider.signature_verification_algorithms;
        Ok(Self { bundle: Arc::clone(bundle), by_webpki, roots, algorithms })
    }

    /// Their names, which the handshake offers to clients.
    pub(super) fn subjects(&self) -> &[DistinguishedName] {
        self.by_webpki.as_ref().map_or(&[], |verifier| verifier.root_hint_subjects())
    }

    /// Whether one of them vouches for `leaf` as a client, directly or through some of `intermediates`.
    pub(super) fn vouches_for(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> bool {
        let by_webpki = self.by_webpki.as_ref();
        by_webpki.is_some_and(|verifier| verifier.verify_client_cert(leaf, intermediates, now).is_ok())
            || self.is_one_of_them(leaf, now)
            || leads_to(&self.roots, leaf, intermediates, now, self.algorithms)
    }

    /// Go trusts what stands in the bundle, be it a CA or not.
    fn is_one_of_them(&self, leaf: &CertificateDer<'_>, now: UnixTime) -> bool {
        self.bundle.certificates_at(now).any(|known| known == leaf)
            && Link::parse(leaf).zip(moment(now)).is_some_and(|(leaf, now)| leaf.is_usable(now))
    }
}

fn moment(now: UnixTime) -> Option<ASN1Time> {
    i64::try_from(now.as_secs()).ok().and_then(|now| ASN1Time::from_timestamp(now).ok())
}

fn leads_to(
    roots: &RootCertStore,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
    algorithms: WebPkiSupportedAlgorithms,
) -> bool {
    let Some(now) = moment(now) else { return false };
    let usable = |der| Link::parse(der).filter(|link: &Link<'_>| link.is_usable(now));
    let Some(leaf) = usable(leaf) else { return false };
    let intermediates: Vec<Link<'_>> =
        intermediates.iter().take(MAX_INTERMEDIATES).filter_map(usable).collect();
    let mut search =
        Search { roots, intermediates: &intermediates, algorithms, checks: MAX_SIGNATURE_CHECKS };
    search.extend(&mut vec![&leaf])
}

struct Search<'a> {
    roots: &'a RootCertStore,
    /// Those that are usable at all.
    intermediates: &'a [Link<'a>],
    algorithms: WebPkiSupportedAlgorithms,
    /// Signatures that may still be checked.
    checks: u32,
}

impl<'a> Search<'a> {
    /// Whether the chain, which begins with the leaf, can be continued to a root.
    fn extend(&mut self, chain: &mut Vec<&'a Link<'a>>) -> bool {
        let Some(&child) = chain.last() else { return false };
        if self.roots.roots.iter().any(|root| self.is_signed_by_root(child, root)) {
            return true;
        }
        for parent in self.intermediates {
            let fits = parent.may_sign(chain.len() - 1)
                && child.certificate.issuer().as_raw() == parent.certificate.subject().as_raw()
                && !chain.iter().any(|known| known.is_same_entity(parent));
            if !fits || !parent.public_key().is_some_and(|key| self.is_signed(child, key)) {
                continue;
            }
            chain.push(parent);
            if self.extend(chain) {
                return true;
            }
            chain.pop();
        }
        false
    }

    fn is_signed_by_root(&mut self, child: &Link<'_>, root: &TrustAnchor<'_>) -> bool {
        let issuer = split(child.certificate.issuer().as_raw());
        root.name_constraints.is_none()
            && issuer.is_some_and(|(issuer, _)| issuer == root.subject.as_ref())
            && PublicKey::of(root.subject_public_key_info.as_ref())
                .is_some_and(|key| self.is_signed(child, key))
    }

    fn is_signed(&mut self, child: &Link<'_>, key: PublicKey<'_>) -> bool {
        let Some(left) = self.checks.checked_sub(1) else { return false };
        self.checks = left;
        let signed = &child.certificate;
        let (message, signature) = (signed.tbs_certificate.as_ref(), &signed.signature_value.data);
        let mut fitting = self.algorithms.all.iter().filter(|algorithm| {
            algorithm.signature_alg_id().as_ref() == child.signature_algorithm
                && algorithm.public_key_alg_id().as_ref() == key.algorithm
        });
        fitting.any(|algorithm| algorithm.verify_signature(key.key, message, signature).is_ok())
    }
}

/// One certificate of a chain.
struct Link<'a> {
    certificate: X509Certificate<'a>,
    /// Contents of the identifier that stands beside the signature.
    signature_algorithm: &'a [u8],
}

impl<'a> Link<'a> {
    fn parse(der: &'a CertificateDer<'_>) -> Option<Self> {
        let (rest, certificate) = X509Certificate::from_der(der).ok()?;
        // What is signed says once more how; Go parses no certificate in which the two differ.
        let is_sound =
            rest.is_empty() && certificate.signature_algorithm == certificate.tbs_certificate.signature;
        let (outer, _) = split(der)?;
        let (_signed, rest) = split(outer)?;
        let (signature_algorithm, _) = split(rest)?;
        is_sound.then_some(Self { certificate, signature_algorithm })
    }

    /// What is asked of every certificate of a chain: it is in force, it has no critical extension that would be passed
    /// over, and if it says what it may be used for, then client authentication is among that.
    fn is_usable(&self, now: ASN1Time) -> bool {
        let is_known = |extension: &ParsedExtension<'_>| {
            matches!(
                extension,
                ParsedExtension::KeyUsage(_)
                    | ParsedExtension::BasicConstraints(_)
                    | ParsedExtension::SubjectAlternativeName(_)
                    | ParsedExtension::CRLDistributionPoints(_)
                    | ParsedExtension::CertificatePolicies(_)
                    | ParsedExtension::ExtendedKeyUsage(_)
            )
        };
        let mut extensions = self.certificate.extensions().iter();
        let is_for_clients = self
            .certificate
            .extended_key_usage()
            .is_ok_and(|usage| usage.is_none_or(|usage| usage.value.any || usage.value.client_auth));
        is_for_clients
            && extensions.all(|one| !one.critical || is_known(one.parsed_extension()))
            && self.certificate.validity().is_valid_at(now)
    }

    /// Whether it is an authority that may stand above `intermediates` others and a leaf.
    fn may_sign(&self, intermediates: usize) -> bool {
        let certificate = &self.certificate;
        let is_authority = certificate.basic_constraints().is_ok_and(|constraints| {
            constraints.is_some_and(|constraints| {
                let limit = constraints.value.path_len_constraint;
                constraints.value.ca && limit.is_none_or(|limit| intermediates <= limit as usize)
            })
        });
        let signs =
            certificate.key_usage().is_ok_and(|usage| usage.is_none_or(|usage| usage.value.key_cert_sign()));
        is_authority
            && signs
            && certificate.version() == X509Version::V3
            && matches!(certificate.name_constraints(), Ok(None))
    }

    fn public_key(&self) -> Option<PublicKey<'_>> {
        split(self.certificate.public_key().raw).and_then(|(info, _)| PublicKey::of(info))
    }

    fn is_same_entity(&self, other: &Self) -> bool {
        self.certificate.subject().as_raw() == other.certificate.subject().as_raw()
            && self.certificate.public_key().raw == other.certificate.public_key().raw
    }
}

#[cfg(test)]
mod tests;
