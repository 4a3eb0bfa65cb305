//! Judges a connection's certificate for as long as the connection lives.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::{ClientCertificate, IdentityHeaders, of_certificate};
use crate::credentials::validity;
use crate::tls::TlsContext;

/// A connection's certificate and the latest judgement of it.
///
/// kube-apiserver verifies the certificate with every request, so one that expires, or whose CA is taken away, is refused on
/// open connections and resumed sessions too. Here the result is kept until one of both can have changed.
#[derive(Debug)]
pub struct Judged {
    /// Empty without a certificate.
    certificates: Vec<CertificateDer<'static>>,
    latest: ArcSwapOption<Judgement>,
}

/// What the certificate proves, and for how long that is known.
#[derive(Debug)]
struct Judgement {
    certificate: Arc<ClientCertificate>,
    /// Of the CAs it was judged by.
    generation: u64,
    /// When a certificate of the chain begins or ceases to be valid.
    until: Option<UnixTime>,
}

impl Judged {
    /// Judges nothing yet.
    pub fn new(certificates: Option<Vec<CertificateDer<'static>>>) -> Self {
        Self { certificates: certificates.unwrap_or_default(), latest: ArcSwapOption::empty() }
    }

    /// What the certificate proves now, by the CAs of `tls`.
    pub fn now(&self, tls: &TlsContext, names: &IdentityHeaders) -> Arc<ClientCertificate> {
        let now = UnixTime::now();
        if let Some(latest) = &*self.latest.load()
            && latest.generation == tls.generation
            && (self.certificates.is_empty() || latest.until.is_none_or(|until| now < until))
        {
            return Arc::clone(&latest.certificate);
        }
        let changes = self.certificates.iter().filter_map(|it| validity(it)?.next_change(now));
        let judgement = Judgement {
            certificate: Arc::new(of_certificate(&self.certificates, &tls.clients, names, now)),
            generation: tls.generation,
            until: changes.min(),
        };
        let certificate = Arc::clone(&judgement.certificate);
        self.latest.store(Some(Arc::new(judgement)));
        certificate
    }
}
