//! Decides what clients' certificates prove, and asks for them in a way that never fails a handshake.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::TlsError;
use super::client_chain::ClientCa;
use super::client_signature::{verify_tls12_signature, verify_tls13_signature};
use crate::credentials::CaBundle;

/// Checks client certificates against the two CAs that may vouch for them.
#[derive(Clone, Debug)]
pub struct ClientVerifiers {
    client: ClientCa,
    front_proxy: ClientCa,
}

impl ClientVerifiers {
    /// Takes the certificates that are valid at `now`.
    ///
    /// # Errors
    /// When they cannot be trust anchors.
    pub fn new(
        client_ca: &Arc<CaBundle>,
        front_proxy_ca: &Arc<CaBundle>,
        provider: &Arc<CryptoProvider>,
        now: UnixTime,
    ) -> Result<Self, TlsError> {
        let build = |bundle, flag| {
            ClientCa::new(bundle, provider, now).map_err(|source| TlsError::ClientVerifier { flag, source })
        };
        Ok(Self {
            client: build(client_ca, "--client-ca-file")?,
            front_proxy: build(front_proxy_ca, "--requestheader-client-ca-file")?,
        })
    }

    /// Whether the certificate is an ordinary client's: chain, validity and clientAuth usage.
    pub fn is_client(&self, leaf: &CertificateDer<'_>, chain: &[CertificateDer<'_>], now: UnixTime) -> bool {
        self.client.vouches_for(leaf, chain, now)
    }

    /// Whether the certificate is a front proxy's; its name is not looked at.
    pub fn is_front_proxy(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> bool {
        self.front_proxy.vouches_for(leaf, chain, now)
    }

    /// Names of the CAs, for clients that have several certificates.
    fn root_hints(&self) -> Vec<DistinguishedName> {
        [&self.client, &self.front_proxy].into_iter().flat_map(ClientCa::subjects).cloned().collect()
    }
}

/// Accepts any client certificate whose key the client holds; what it proves is decided in [`crate::identity`].
///
/// kube-apiserver asks for a certificate and never fails a handshake over it: one that does not verify draws a 401, or
/// nothing when a token authenticates the request.
#[derive(Debug)]
pub(super) struct AnyClientCertificate {
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl AnyClientCertificate {
    pub(super) fn new(clients: &ClientVerifiers, provider: &CryptoProvider) -> Self {
        Self { hints: clients.root_hints(), algorithms: provider.signature_verification_algorithms }
    }
}

impl ClientCertVerifier for AnyClientCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
