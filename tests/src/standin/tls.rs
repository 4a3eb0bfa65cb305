//! Sets up TLS: the serving certificate for everybody, the loopback certificate for the server itself.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::der::public_key;
use crate::pki::Identity;

/// The server name by which kube-apiserver's loopback client asks for the loopback certificate.
pub const LOOPBACK_SERVER_NAME: &str = "apiserver-loopback-client";

/// The provider of every TLS endpoint here.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A server that asks for client certificates of the CAs with `ca_subjects` and never refuses one.
pub(super) fn server_config(
    serving: &Identity,
    loopback: CertifiedKey,
    ca_subjects: Vec<DistinguishedName>,
) -> Result<ServerConfig> {
    let provider = provider();
    let verifier = AnyCertificate { ca_subjects, algorithms: provider.signature_verification_algorithms };
    let certificates =
        Certificates { serving: Arc::new(load(serving, &provider)?), loopback: Arc::new(loopback) };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(certificates));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// A new self-signed certificate that only this process holds.
pub(super) fn loopback_certificate() -> Result<CertifiedKey> {
    let made = rcgen::generate_simple_self_signed([LOOPBACK_SERVER_NAME.to_owned()])?;
    let identity = Identity { cert_pem: made.cert.pem(), key_pem: made.signing_key.serialize_pem() };
    load(&identity, &provider())
}

fn load(identity: &Identity, provider: &CryptoProvider) -> Result<CertifiedKey> {
    let chain = CertificateDer::pem_slice_iter(identity.cert_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .context("the serving certificate is not PEM")?;
    let key =
        PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).context("the serving key is not PEM")?;
    CertifiedKey::from_der(chain, key, provider)
        .context("the serving certificate and key do not fit together")
}

/// Picks the certificate by server name.
#[derive(Debug)]
struct Certificates {
    serving: Arc<CertifiedKey>,
    loopback: Arc<CertifiedKey>,
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let is_loopback = hello.server_name() == Some(LOOPBACK_SERVER_NAME);
        Some(if is_loopback { &self.loopback } else { &self.serving }.clone())
    }
}

/// Lets every client certificate through the handshake whose key the client holds; who is believed is decided per
/// request, as Go's `tls.RequestClientCert` leaves it.
#[derive(Debug)]
struct AnyCertificate {
    ca_subjects: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.ca_subjects
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let info = key_info(certificate)?;
        let (key_algorithm, key) = public_key(&info).ok_or(CertificateError::BadEncoding)?;
        let named = self.algorithms.mapping.iter().filter(|(scheme, _)| *scheme == signature.scheme);
        let fitting = named
            .flat_map(|(_, algorithms)| algorithms.iter())
            .filter(|algorithm| algorithm.public_key_alg_id().as_ref() == key_algorithm);
        if fitting.into_iter().any(|one| one.verify_signature(key, message, signature.signature()).is_ok()) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        Err(CertificateError::BadSignature.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature_with_raw_key(message, &key_info(certificate)?, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The key of any certificate that can be parsed at all; rustls itself reads none of version 1.
fn key_info(certificate: &CertificateDer<'_>) -> Result<SubjectPublicKeyInfoDer<'static>, Error> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    Ok(SubjectPublicKeyInfoDer::from(parsed.public_key().raw.to_vec()))
}
