//! Finds the CA that signs API servers' serving certificates when `--peer-ca-file` does not say.

use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;

use super::bundle::CaBundle;
use super::error::CredentialError;
use super::verify;
use crate::config::{Config, own_credentials};

/// A bundle, and whose it is in words.
type Found = (Arc<CaBundle>, String);

/// The CA of own credentials, if there are any that name one.
pub(super) fn of_own_credentials(config: &Config) -> Result<Option<Found>, CredentialError> {
    let certificates = own_credentials(config)?.and_then(|own| own.root_cert).unwrap_or_default();
    let whose = credentials_name(config);
    let bundle = CaBundle::new(certificates.into_iter().map(CertificateDer::from).collect()).map_err(
        |(_, source)| CredentialError::BadOwnCa { credentials: whose.clone(), source: Box::new(source) },
    )?;
    Ok((!bundle.is_empty()).then(|| (Arc::new(bundle), format!("the CA of {whose}"))))
}

fn credentials_name(config: &Config) -> String {
    match &config.kubeconfig {
        Some(file) => format!("{} {}", config.origins.flag("kubeconfig"), file.display()),
        None => "in-cluster credentials".to_owned(),
    }
}

/// The client CA, if it signed the own serving certificate too.
pub(super) fn of_clients(
    config: &Config,
    serving: &CertifiedKey,
    client_ca: &Arc<CaBundle>,
) -> Result<Found, CredentialError> {
    let client_flag = config.origins.flag("client-ca-file");
    verify::signed_serving(serving, &client_ca.all()).map_err(|source| CredentialError::NoPeerCa {
        client_flag: client_flag.clone(),
        serving_file: config.files.tls_cert.clone(),
        source: Box::new(source),
    })?;
    Ok((Arc::clone(client_ca), format!("{client_flag}, which signed the own serving certificate too")))
}
