//! Verifies client certificates as Go's `crypto/x509` does for kube-apiserver: `Verify` with the key usage clientAuth.
//!
//! Written from Go's source and not on rustls-webpki, which the proxy uses and which refuses more: certificates of
//! version 1, CAs as clients, and `anyExtendedKeyUsage`. Name constraints are not supported; a CA with any is not used.

use rustls::DistinguishedName;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm};
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{ASN1Time, FromDer as _, X509Certificate, X509Version};

use crate::standin::der::{public_key, split};
use crate::standin::tls::provider;

/// Why no chain leads to a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::standin) enum Untrusted {
    #[error("a certificate cannot be parsed")]
    Malformed,
    #[error("a certificate has expired or is not yet valid")]
    Expired,
    #[error("a certificate has a critical extension that is not known")]
    UnknownExtension,
    #[error("certificate signed by unknown authority")]
    UnknownAuthority,
    #[error("certificate specifies an incompatible key usage")]
    IncompatibleUsage,
}

/// The certificates of one CA bundle.
pub(super) struct Roots(Vec<CertificateDer<'static>>);

impl Roots {
    pub(super) fn new(pem: &str) -> anyhow::Result<Self> {
        let roots = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        anyhow::ensure!(!roots.is_empty(), "a CA bundle without a certificate");
        roots.iter().try_for_each(|root| X509Certificate::from_der(root).map(drop))?;
        Ok(Self(roots))
    }

    pub(super) fn subjects(&self) -> Vec<DistinguishedName> {
        let subjects = self.0.iter().filter_map(|root| X509Certificate::from_der(root).ok());
        subjects.map(|(_, root)| DistinguishedName::from(root.subject().as_raw().to_vec())).collect()
    }

    /// Looks for a chain from `leaf` to a root that is good for client authentication.
    pub(super) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), Untrusted> {
        let leaf = Certificate::parse(leaf)?;
        let parse = |der| Certificate::parse(der).ok();
        let search = Search {
            roots: self.0.iter().filter_map(&parse).collect(),
            intermediates: intermediates.iter().filter_map(parse).collect(),
            algorithms: provider().signature_verification_algorithms,
            now: ASN1Time::now(),
        };
        leaf.is_usable(&search.now)?;
        let chains = if search.roots.iter().any(|root| root.der == leaf.der) {
            vec![vec![&leaf]]
        } else {
            search.chains(&mut vec![&leaf])
        };
        match chains {
            chains if chains.is_empty() => Err(Untrusted::UnknownAuthority),
            chains if chains.iter().any(|chain| allows_clients(chain)) => Ok(()),
            _ => Err(Untrusted::IncompatibleUsage),
        }
    }
}

/// Go's `checkChainForKeyUsage`: whoever restricts the usages of a chain must leave clientAuth.
fn allows_clients(chain: &[&Certificate<'_>]) -> bool {
    chain.iter().all(|one| match one.parsed.extended_key_usage() {
        Ok(Some(usage)) => usage.value.any || usage.value.client_auth,
        Ok(None) => true,
        Err(_) => false,
    })
}

struct Search<'a> {
    roots: Vec<Certificate<'a>>,
    intermediates: Vec<Certificate<'a>>,
    algorithms: WebPkiSupportedAlgorithms,
    now: ASN1Time,
}

impl<'a> Search<'a> {
    /// Go's `buildChains`: every way from the end of `chain` to a root.
    fn chains<'s>(&'s self, chain: &mut Vec<&'s Certificate<'a>>) -> Vec<Vec<&'s Certificate<'a>>> {
        let child = *chain.last().expect("a chain starts with its leaf");
        let may_follow = |parent: &Certificate<'_>, is_root: bool| {
            parent.is_usable(&self.now).is_ok()
                && parent.may_sign(is_root, chain.len() - 1)
                && child.parsed.issuer().as_raw() == parent.parsed.subject().as_raw()
                && !chain.iter().any(|known| known.is_same_entity(parent))
                && self.signed(child, parent)
        };
        let ends = self
            .roots
            .iter()
            .filter(|root| may_follow(root, true))
            .map(|root| [&chain[..], &[root]].concat());
        let mut found: Vec<_> = ends.collect();
        let between: Vec<_> = self.intermediates.iter().filter(|one| may_follow(one, false)).collect();
        for one in between {
            chain.push(one);
            found.extend(self.chains(chain));
            chain.pop();
        }
        found
    }

    fn signed(&self, child: &Certificate<'_>, parent: &Certificate<'_>) -> bool {
        let message = child.parsed.tbs_certificate.as_ref();
        let signature = &child.parsed.signature_value.data;
        let Some((key_algorithm, key)) = public_key(parent.parsed.public_key().raw) else { return false };
        let fits = |algorithm: &&&dyn SignatureVerificationAlgorithm| {
            Some(algorithm.signature_alg_id().as_ref()) == child.signature_algorithm()
                && algorithm.public_key_alg_id().as_ref() == key_algorithm
        };
        let fitting = self.algorithms.all.iter().filter(fits);
        fitting.into_iter().any(|algorithm| algorithm.verify_signature(key, message, signature).is_ok())
    }
}

struct Certificate<'a> {
    der: &'a [u8],
    parsed: X509Certificate<'a>,
}

impl<'a> Certificate<'a> {
    fn parse(der: &'a CertificateDer<'_>) -> Result<Self, Untrusted> {
        let (_, parsed) = X509Certificate::from_der(der).map_err(|_| Untrusted::Malformed)?;
        Ok(Self { der, parsed })
    }

    /// What Go's `isValid` asks of every certificate of a chain.
    fn is_usable(&self, now: &ASN1Time) -> Result<(), Untrusted> {
        let is_unknown = |extension: &ParsedExtension<'_>| {
            matches!(
                extension,
                ParsedExtension::UnsupportedExtension { .. }
                    | ParsedExtension::ParseError { .. }
                    | ParsedExtension::Unparsed
            )
        };
        let mut extensions = self.parsed.extensions().iter();
        if extensions.any(|one| one.critical && is_unknown(one.parsed_extension())) {
            return Err(Untrusted::UnknownExtension);
        }
        self.parsed.validity().is_valid_at(*now).then_some(()).ok_or(Untrusted::Expired)
    }

    /// Whether it may stand above `intermediates` others and a leaf.
    fn may_sign(&self, is_root: bool, intermediates: usize) -> bool {
        let constraints = self.parsed.basic_constraints();
        let is_ca = match &constraints {
            Ok(Some(constraints)) => {
                let limit = constraints.value.path_len_constraint;
                constraints.value.ca && limit.is_none_or(|limit| intermediates <= limit as usize)
            }
            // Before version 3 nothing told CAs from others; only who is trusted by name may be so old.
            Ok(None) => is_root && self.parsed.version() != X509Version::V3,
            Err(_) => false,
        };
        let signs =
            self.parsed.key_usage().is_ok_and(|usage| usage.is_none_or(|usage| usage.value.key_cert_sign()));
        is_ca && signs && matches!(self.parsed.name_constraints(), Ok(None))
    }

    fn is_same_entity(&self, other: &Self) -> bool {
        self.parsed.subject().as_raw() == other.parsed.subject().as_raw()
            && self.parsed.public_key().raw == other.parsed.public_key().raw
    }

    /// Contents of the algorithm's identifier outside of what is signed.
    fn signature_algorithm(&self) -> Option<&'a [u8]> {
        let (_, certificate, _) = split(self.der)?;
        let (_, _signed, rest) = split(certificate)?;
        split(rest).map(|(_, algorithm, _)| algorithm)
    }
}
