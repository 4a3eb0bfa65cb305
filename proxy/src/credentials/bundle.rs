//! A CA bundle whose certificates count only while they are valid, as in Go's `x509.Verify`.

use std::fmt;
use std::sync::Arc;

use rustls::{Error, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::verify::{self, Validity};

/// Trust anchors with their validity, which [`RootCertStore`] forgets.
#[derive(Clone, PartialEq, Eq)]
pub struct CaBundle {
    certificates: Vec<CertificateDer<'static>>,
}

/// Names of the CAs.
impl fmt::Debug for CaBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.certificates.iter().map(|it| verify::subject(it))).finish()
    }
}

impl CaBundle {
    /// Takes every certificate.
    ///
    /// # Errors
    /// The first one that cannot be a trust anchor, counted from 1, and why.
    pub fn new(certificates: Vec<CertificateDer<'static>>) -> Result<Self, (usize, Error)> {
        for (index, certificate) in certificates.iter().enumerate() {
            RootCertStore::empty().add(certificate.clone()).map_err(|error| (index + 1, error))?;
        }
        Ok(Self { certificates })
    }

    /// Number of certificates.
    pub fn len(&self) -> usize {
        self.certificates.len()
    }

    /// Whether it vouches for nobody.
    pub fn is_empty(&self) -> bool {
        self.certificates.is_empty()
    }

    /// Whether it has every certificate of a PEM text. What cannot be read there is not missed here.
    pub fn holds_all_of(&self, pem: &[u8]) -> bool {
        CertificateDer::pem_slice_iter(pem)
            .flatten()
            .all(|certificate| self.certificates.contains(&certificate))
    }

    /// All anchors, those out of date included.
    pub fn all(&self) -> RootCertStore {
        store(self.certificates.iter())
    }

    /// The certificates that are valid at a moment.
    pub fn certificates_at(&self, now: UnixTime) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.certificates.iter().filter(move |it| verify::validity(it).is_some_and(|it| it.includes(now)))
    }

    /// The anchors that are valid at a moment.
    pub fn valid_at(&self, now: UnixTime) -> Arc<RootCertStore> {
        Arc::new(store(self.certificates_at(now)))
    }

    /// The next moment after `now` at which an anchor begins or ceases to be valid.
    pub fn next_change(&self, now: UnixTime) -> Option<UnixTime> {
        self.validities().filter_map(|validity| validity.next_change(now)).min()
    }

    /// Name and end of each certificate.
    pub(super) fn expirations(&self) -> impl Iterator<Item = (String, UnixTime)> {
        self.certificates.iter().filter_map(|it| Some((verify::subject(it), verify::validity(it)?.not_after)))
    }

    fn validities(&self) -> impl Iterator<Item = Validity> {
        self.certificates.iter().filter_map(|certificate| verify::validity(certificate))
    }
}

fn store<'a>(certificates: impl Iterator<Item = &'a CertificateDer<'static>>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    // Each was added once before, in `CaBundle::new`.
    roots.add_parsable_certificates(certificates.cloned());
    roots
}
