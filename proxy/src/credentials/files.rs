//! Reads PEM files into rustls' types.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use rustls::Error;
use rustls::crypto::aws_lc_rs;
use rustls::sign::{CertifiedKey, SigningKey};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::bundle::CaBundle;
use super::error::CredentialError;
use crate::config::Flag;

/// Reads a CA bundle; every certificate in it counts.
pub(super) fn bundle(flag: &Flag, file: &Path) -> Result<Arc<CaBundle>, CredentialError> {
    CaBundle::new(certificates(flag, file)?)
        .map(Arc::new)
        .map_err(|(number, source)| bad_certificate(flag, file, number, source))
}

/// Reads a chain or bundle of at least one certificate.
pub(super) fn certificates(
    flag: &Flag,
    file: &Path,
) -> Result<Vec<CertificateDer<'static>>, CredentialError> {
    let bytes = read(flag, file)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match chain {
        Ok(chain) if chain.is_empty() => {
            Err(CredentialError::NoCertificate { flag: flag.clone(), file: file.to_path_buf() })
        }
        Ok(chain) => Ok(chain),
        Err(source) => Err(damaged(flag, file, source)),
    }
}

/// Reads the first key of a file.
pub(super) fn signing_key(flag: &Flag, file: &Path) -> Result<Arc<dyn SigningKey>, CredentialError> {
    let bytes = read(flag, file)?;
    let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => CredentialError::NoKey { flag: flag.clone(), file: file.to_path_buf() },
        source => damaged(flag, file, source),
    })?;
    aws_lc_rs::default_provider().key_provider.load_private_key(key).map_err(|source| {
        CredentialError::BadKey { flag: flag.clone(), file: file.to_path_buf(), source: Box::new(source) }
    })
}

/// Checks that a certificate and a key belong together.
pub(super) fn matching(
    certified: CertifiedKey,
    (certificate_flag, certificate_file): (Flag, &Path),
    (key_flag, key_file): (Flag, &Path),
) -> Result<Arc<CertifiedKey>, CredentialError> {
    match certified.keys_match() {
        Ok(()) => Ok(Arc::new(certified)),
        Err(Error::InconsistentKeys(_)) => Err(CredentialError::KeyMismatch {
            key_flag,
            key_file: key_file.to_path_buf(),
            certificate_flag,
            certificate_file: certificate_file.to_path_buf(),
        }),
        Err(source) => Err(bad_certificate(&certificate_flag, certificate_file, 1, source)),
    }
}

fn read(flag: &Flag, file: &Path) -> Result<Vec<u8>, CredentialError> {
    std::fs::read(file).map_err(|source| {
        let (flag, file) = (flag.clone(), file.to_path_buf());
        match source.kind() {
            ErrorKind::NotFound => CredentialError::NotFound { flag, file },
            ErrorKind::PermissionDenied => CredentialError::Forbidden { flag, file },
            _ => CredentialError::Unreadable { flag, file, source },
        }
    })
}

fn damaged(flag: &Flag, file: &Path, source: pem::Error) -> CredentialError {
    CredentialError::DamagedPem { flag: flag.clone(), file: file.to_path_buf(), source }
}

fn bad_certificate(flag: &Flag, file: &Path, number: usize, source: Error) -> CredentialError {
    CredentialError::BadCertificate {
        flag: flag.clone(),
        file: file.to_path_buf(),
        number,
        source: Box::new(source),
    }
}
