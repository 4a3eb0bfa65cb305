//! TLS towards clients: which certificate they are shown, in which versions and with which ciphers.
//!
//! Source: kube-apiserver's `dynamiccertificates` for the choice of the certificate, and its `--tls-*` flags.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SupportedProtocolVersion, version};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::clients::{AnyClientCertificate, ClientVerifiers};
use super::{HTTP_1_1, HTTP_2, TlsError};
use crate::config::{MinTlsVersion, ServingTls};
use crate::credentials::{Credentials, SniCertificate};

/// Configurations of steered connections. Their session stores die with them, so no session outlives a CA.
#[derive(Debug)]
pub struct ServerConfigs {
    /// For clients that name the server, or dial an address without a certificate of its own.
    by_name: Arc<ServerConfig>,
    /// For clients that name no server: `--tls-sni-cert-key` can be given for an address.
    by_address: HashMap<IpAddr, Arc<ServerConfig>>,
}

impl ServerConfigs {
    /// Builds the configurations.
    ///
    /// # Errors
    /// When the flags leave no protocol version or cipher.
    pub fn new(
        credentials: &Credentials,
        options: &ServingTls,
        clients: &ClientVerifiers,
        provider: &CryptoProvider,
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(options.limit(provider.clone()));
        let verifier = Arc::new(AnyClientCertificate::new(clients, &provider));
        let certificates = named(&credentials.sni);
        let config = |certificates: Certificates| {
            let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(options.versions())
                .map_err(TlsError::Versions)?
                .with_client_cert_verifier(Arc::<AnyClientCertificate>::clone(&verifier))
                .with_cert_resolver(Arc::new(certificates));
            config.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_1_1.to_vec()];
            Ok(Arc::new(config))
        };
        let mut by_address = HashMap::new();
        for (name, certified) in &certificates {
            if let Ok(address) = name.parse::<IpAddr>() {
                let only = Certificates { default: Arc::clone(certified), named: HashMap::new() };
                by_address.insert(address, config(only)?);
            }
        }
        let default = Arc::clone(&credentials.serving);
        Ok(Self { by_name: config(Certificates { default, named: certificates })?, by_address })
    }

    /// The configuration for a client that dialled an address.
    pub fn choose(&self, hello: &ClientHello<'_>, dialled: IpAddr) -> Arc<ServerConfig> {
        let for_address = if hello.server_name().is_none() { self.by_address.get(&dialled) } else { None };
        Arc::clone(for_address.unwrap_or(&self.by_name))
    }
}

static ONLY_1_3: &[&SupportedProtocolVersion] = &[&version::TLS13];

impl ServingTls {
    fn versions(&self) -> &'static [&'static SupportedProtocolVersion] {
        match self.min_version {
            MinTlsVersion::Tls12 => rustls::DEFAULT_VERSIONS,
            MinTlsVersion::Tls13 => ONLY_1_3,
        }
    }

    /// Leaves the suites of TLS 1.2 that are listed; those of TLS 1.3 cannot be chosen, in Go neither.
    fn limit(&self, mut provider: CryptoProvider) -> CryptoProvider {
        if let Some(chosen) = &self.cipher_suites {
            provider.cipher_suites.retain(|it| it.tls13().is_some() || chosen.contains(&it.suite()));
        }
        provider
    }
}

/// Chooses by the name that a client asks for.
#[derive(Debug)]
struct Certificates {
    default: Arc<CertifiedKey>,
    named: HashMap<String, Arc<CertifiedKey>>,
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let found = hello.server_name().filter(|_| !self.named.is_empty()).and_then(|name| {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            self.named.get(&name).or_else(|| {
                let (_, domain) = name.split_once('.')?;
                self.named.get(&format!("*.{domain}"))
            })
        });
        Some(Arc::clone(found.unwrap_or(&self.default)))
    }
}

/// Who serves which name: given names win over those in certificates, and the first flag wins over later ones.
fn named(pairs: &[SniCertificate]) -> HashMap<String, Arc<CertifiedKey>> {
    let (mut given, mut written) = (HashMap::new(), HashMap::new());
    for pair in pairs.iter().rev() {
        for name in &pair.names {
            given.insert(name.clone(), Arc::clone(&pair.certified));
        }
        if pair.names.is_empty() {
            for name in names_in(&pair.certified) {
                written.insert(name, Arc::clone(&pair.certified));
            }
        }
    }
    written.extend(given);
    written
}

/// The DNS names in a certificate and its common name where that is one. Addresses in it are no names: a client cannot ask
/// for them (RFC 6066 section 3).
fn names_in(certified: &CertifiedKey) -> Vec<String> {
    let Some((_, leaf)) = certified.cert.first().and_then(|leaf| X509Certificate::from_der(leaf).ok()) else {
        return Vec::new();
    };
    let common = leaf.subject().iter_common_name().last().and_then(|name| name.as_str().ok());
    let common = common.filter(|name| is_domain(name)).map(str::to_ascii_lowercase);
    let alternative = leaf.subject_alternative_name().ok().flatten();
    let dns = alternative.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    common.into_iter().chain(dns).collect()
}

/// A DNS-1123 subdomain, perhaps with a leading wildcard.
fn is_domain(name: &str) -> bool {
    let is_label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    let domain = name.strip_prefix("*.").unwrap_or(name);
    name == "*"
        || (domain.len() <= 253 && domain.parse::<IpAddr>().is_err() && domain.split('.').all(is_label))
}
