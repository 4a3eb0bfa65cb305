//! Finds the CA that signs API servers' serving certificates when `--peer-ca-file` does not say.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use tracing::info;

use super::error::CredentialError;
use super::verify;
use crate::config::{Config, own_credentials};

/// The CA of own credentials, if there are any that name one.
pub(super) fn of_own_credentials(config: &Config) -> Result<Option<Arc<RootCertStore>>, CredentialError> {
    let Some(certificates) = own_credentials(config)?.and_then(|own| own.root_cert) else { return Ok(None) };
    let mut roots = RootCertStore::empty();
    for der in certificates {
        roots.add(CertificateDer::from(der)).map_err(|source| CredentialError::BadOwnCa {
            credentials: credentials_name(config),
            source: Box::new(source),
        })?;
    }
    if roots.is_empty() {
        return Ok(None);
    }
    info!(
        "peers are verified with the CA of {}, because --peer-ca-file is not given",
        credentials_name(config)
    );
    Ok(Some(Arc::new(roots)))
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
    client_ca: &Arc<RootCertStore>,
) -> Result<Arc<RootCertStore>, CredentialError> {
    let client_flag = config.origins.flag("client-ca-file");
    verify::signed_serving(serving, client_ca).map_err(|source| CredentialError::NoPeerCa {
        client_flag: client_flag.clone(),
        serving_file: config.files.tls_cert.clone(),
        source: Box::new(source),
    })?;
    info!("peers are verified with {client_flag}, which signed the own serving certificate too");
    Ok(Arc::clone(client_ca))
}
