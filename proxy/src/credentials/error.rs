//! Says which certificate, key or CA bundle cannot be used, and why.

use std::io;
use std::path::{Path, PathBuf};

use rustls_pki_types::pem;
use thiserror::Error;

use crate::config::{ConfigError, Flag};

/// One file, or pair of files, that cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// The file does not exist.
    #[error("{flag}: {} not found; give the file that kube-apiserver uses for the same flag", .file.display())]
    NotFound {
        /// The flag that names the file.
        flag: Flag,
        /// The file.
        file: PathBuf,
    },
    /// The file exists, but not for this user.
    #[error(
        "{flag}: no permission to read {}; run as a user that may, like root on a control-plane node",
        .file.display()
    )]
    Forbidden {
        /// The flag that names the file.
        flag: Flag,
        /// The file.
        file: PathBuf,
    },
    /// The file cannot be read for another reason.
    #[error("{flag}: cannot read {}", .file.display())]
    Unreadable {
        /// The flag that names the file.
        flag: Flag,
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file has a PEM section that is broken.
    #[error("{flag}: {} is damaged PEM", .file.display())]
    DamagedPem {
        /// The flag that names the file.
        flag: Flag,
        /// The file.
        file: PathBuf,
        /// Where it breaks.
        source: pem::Error,
    },
    /// The file has no certificate.
    #[error("{flag}: {} has no PEM certificate (-----BEGIN CERTIFICATE-----) in it", .file.display())]
    NoCertificate {
        /// The flag that names the file.
        flag: Flag,
        /// The file.
        file: PathBuf,
    },
    /// The file has no key that can be read without a passphrase.
    #[error("{flag}: {} has no unencrypted PEM private key (PKCS #8, PKCS #1 or SEC 1) in it", .file.display())]
    NoKey {
        /// The flag that names the file.
        flag: Flag,
        /// The file.
        file: PathBuf,
    },
    /// A PEM section is no X.509 certificate that can be used.
    #[error("{flag}: certificate {number} in {} cannot be used", .file.display())]
    BadCertificate {
        /// The flag that names the file.
        flag: Flag,
        /// The file.
        file: PathBuf,
        /// Which one, from 1.
        number: usize,
        /// Why.
        source: Box<rustls::Error>,
    },
    /// The key is of a kind that TLS here cannot use.
    #[error("{flag}: the key in {} cannot be used; give an RSA, ECDSA or Ed25519 key", .file.display())]
    BadKey {
        /// The flag that names the file.
        flag: Flag,
        /// The file.
        file: PathBuf,
        /// Why.
        source: Box<rustls::Error>,
    },
    /// Certificate and key do not belong together.
    #[error(
        "{key_flag}: the key in {} does not belong to the certificate in {} ({certificate_flag})",
        .key_file.display(), .certificate_file.display()
    )]
    KeyMismatch {
        /// The flag that names the key.
        key_flag: Flag,
        /// The key's file.
        key_file: PathBuf,
        /// The flag that names the certificate.
        certificate_flag: Flag,
        /// The certificate's file.
        certificate_file: PathBuf,
    },
    /// Any client could assert any identity: front proxies and clients have a CA in common and every name may
    /// assert.
    #[error(
        "{front_flag}: shares the CA {subject} with {client_flag} while --requestheader-allowed-names is empty, \
         so any client could act as anybody; give --requestheader-allowed-names=front-proxy-client, or a CA of \
         their own to front proxies"
    )]
    SharedCa {
        /// `--requestheader-client-ca-file`.
        front_flag: Flag,
        /// `--client-ca-file`.
        client_flag: Flag,
        /// Distinguished name of the CA in common.
        subject: String,
    },
    /// Nothing says which CA signed the API servers' serving certificates.
    #[error(
        "--peer-ca-file: not given, neither --kubeconfig nor in-cluster credentials have a CA, and {client_flag} \
         did not sign {}; give the CA of the API servers' serving certificates",
        .serving_file.display()
    )]
    NoPeerCa {
        /// `--client-ca-file`, the last one tried.
        client_flag: Flag,
        /// The own serving certificate.
        serving_file: PathBuf,
        /// Why it is not signed by that.
        source: Box<rustls::Error>,
    },
    /// The CA of own credentials cannot be used.
    #[error("the CA in {credentials} cannot be used; give --peer-ca-file=FILE")]
    BadOwnCa {
        /// `--kubeconfig` and file, or `in-cluster credentials`.
        credentials: String,
        /// Why.
        source: Box<rustls::Error>,
    },
    /// Own credentials cannot be read any more.
    #[error(transparent)]
    OwnCredentials(#[from] ConfigError),
}

impl CredentialError {
    /// The file that is wrong, where it is a single one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::NotFound { file, .. }
            | Self::Forbidden { file, .. }
            | Self::Unreadable { file, .. }
            | Self::DamagedPem { file, .. }
            | Self::NoCertificate { file, .. }
            | Self::NoKey { file, .. }
            | Self::BadCertificate { file, .. }
            | Self::BadKey { file, .. } => Some(file),
            Self::KeyMismatch { key_file, .. } => Some(key_file),
            Self::SharedCa { .. }
            | Self::NoPeerCa { .. }
            | Self::BadOwnCa { .. }
            | Self::OwnCredentials(_) => None,
        }
    }
}
