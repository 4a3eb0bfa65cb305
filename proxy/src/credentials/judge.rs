//! Judges loaded credentials as a whole: refuses a dangerous set, points out doubtful ones.

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::sign::CertifiedKey;
use rustls::{DistinguishedName, RootCertStore};
use rustls_pki_types::{TrustAnchor, UnixTime};
use x509_parser::prelude::{FromDer, X509Name};

use super::error::CredentialError;
use super::{CaBundle, Credentials, verify};
use crate::config::{Config, Flag};

/// Refuses a CA that both clients and front proxies have while any name may assert.
///
/// With it every client certificate could carry X-Remote-User: system:admin. kube-apiserver refuses it too.
pub(super) fn shared_ca(
    config: &Config,
    clients: &CaBundle,
    fronts: &CaBundle,
) -> Result<(), CredentialError> {
    if !config.request_header.allowed_names.is_empty() {
        return Ok(());
    }
    match common_anchor(&fronts.all(), &clients.all()) {
        None => Ok(()),
        Some(anchor) => Err(CredentialError::SharedCa {
            front_flag: config.origins.flag("requestheader-client-ca-file"),
            client_flag: config.origins.flag("client-ca-file"),
            subject: anchor_name(&anchor),
        }),
    }
}

/// Name and key make an anchor: the same CA with a renewed certificate is the same CA.
fn common_anchor(left: &RootCertStore, right: &RootCertStore) -> Option<TrustAnchor<'static>> {
    let same = |l: &TrustAnchor<'_>, r: &TrustAnchor<'_>| {
        l.subject == r.subject && l.subject_public_key_info == r.subject_public_key_info
    };
    left.roots.iter().find(|l| right.roots.iter().any(|r| same(l, r))).cloned()
}

fn anchor_name(anchor: &TrustAnchor<'_>) -> String {
    let name = DistinguishedName::in_sequence(&anchor.subject);
    X509Name::from_der(name.as_ref())
        .map_or_else(|_| "without a readable name".to_owned(), |(_, name)| name.to_string())
}

/// Something that works, or will stop working, but is probably not meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    Expired { flag: Flag, file: PathBuf, since: String },
    ExpiresSoon { flag: Flag, file: PathBuf, on: String },
    NotYetValid { flag: Flag, file: PathBuf, until: String },
    ReadableByOthers { flag: Flag, file: PathBuf, mode: u32 },
    NotAFrontProxy { flag: Flag, file: PathBuf, ca_flag: Flag },
    NameNotAllowed { flag: Flag, file: PathBuf, name: String, names_flag: Flag },
    AlsoAClient { flag: Flag, file: PathBuf, client_flag: Flag },
    HasGroups { flag: Flag, file: PathBuf },
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired { flag, file, since } => {
                write!(f, "{flag}: the certificate in {} expired on {since}; renew it", file.display())
            }
            Self::ExpiresSoon { flag, file, on } => {
                write!(f, "{flag}: the certificate in {} expires on {on}; renew it", file.display())
            }
            Self::NotYetValid { flag, file, until } => {
                write!(f, "{flag}: the certificate in {} is not valid before {until}", file.display())
            }
            Self::ReadableByOthers { flag, file, mode } => {
                let file = file.display();
                write!(f, "{flag}: {file} can be read by others (mode {mode:04o}); chmod 600 {file}")
            }
            Self::NotAFrontProxy { flag, file, ca_flag } => {
                let file = file.display();
                write!(f, "{flag}: {ca_flag} did not sign {file}, so API servers will not take its word")
            }
            Self::NameNotAllowed { flag, file, name, names_flag } => {
                let file = file.display();
                write!(f, "{flag}: {names_flag} does not list {name:?}, the common name in {file}")
            }
            Self::AlsoAClient { flag, file, client_flag } => {
                let file = file.display();
                write!(
                    f,
                    "{flag}: {client_flag} signed {file} too, which makes it a user; use a CA of its own"
                )
            }
            Self::HasGroups { flag, file } => {
                let file = file.display();
                write!(f, "{flag}: {file} has an organization, which is a group; issue one without")
            }
        }
    }
}

/// Everything doubtful about `credentials` and the files they came from.
pub(super) fn doubts(config: &Config, credentials: &Credentials) -> Vec<Doubt> {
    let (files, origins) = (&config.files, &config.origins);
    let keys = [
        ("tls-private-key-file", &files.tls_private_key),
        ("proxy-client-key-file", &files.proxy_client_key),
    ];
    let certificates = [
        ("tls-cert-file", &files.tls_cert, &credentials.serving),
        ("proxy-client-cert-file", &files.proxy_client_cert, &credentials.proxy_client),
    ];
    let open = keys.iter().filter_map(|(name, file)| readable_by_others(origins.flag(name), file));
    let stale =
        certificates.iter().filter_map(|(name, file, key)| out_of_date(origins.flag(name), file, key));
    open.chain(stale).chain(front_proxy_doubts(config, credentials)).collect()
}

fn readable_by_others(flag: Flag, file: &Path) -> Option<Doubt> {
    let mode = std::fs::metadata(file).ok()?.permissions().mode() & 0o7777;
    (mode & 0o044 != 0).then(|| Doubt::ReadableByOthers { flag, file: file.to_path_buf(), mode })
}

fn out_of_date(flag: Flag, file: &Path, certified: &CertifiedKey) -> Option<Doubt> {
    let leaf = certified.cert.first()?;
    let (validity, (not_before, not_after)) = (verify::validity(leaf)?, verify::validity_text(leaf)?);
    let (now, file) = (UnixTime::now(), file.to_path_buf());
    if now > validity.not_after {
        return Some(Doubt::Expired { flag, file, since: not_after });
    }
    if now < validity.not_before {
        return Some(Doubt::NotYetValid { flag, file, until: not_before });
    }
    let left = validity.not_after.as_secs() - now.as_secs();
    (left < SOON.as_secs()).then_some(Doubt::ExpiresSoon { flag, file, on: not_after })
}

/// Time before its end in which a certificate is pointed out.
const SOON: Duration = Duration::from_hours(7 * 24);

fn front_proxy_doubts(config: &Config, credentials: &Credentials) -> Vec<Doubt> {
    let origins = &config.origins;
    let flag = || origins.flag("proxy-client-cert-file");
    let file = || config.files.proxy_client_cert.clone();
    let certified = &credentials.proxy_client;
    let mut doubts = Vec::new();
    if verify::signed_client(certified, credentials.request_header_ca.all()).is_err() {
        let ca_flag = origins.flag("requestheader-client-ca-file");
        doubts.push(Doubt::NotAFrontProxy { flag: flag(), file: file(), ca_flag });
    }
    let names = &config.request_header.allowed_names;
    let name = certified.cert.first().and_then(verify::common_name).unwrap_or_default();
    if !names.is_empty() && !names.contains(&name) {
        let names_flag = origins.flag("requestheader-allowed-names");
        doubts.push(Doubt::NameNotAllowed { flag: flag(), file: file(), name, names_flag });
    }
    if verify::signed_client(certified, credentials.client_ca.all()).is_ok() {
        let client_flag = origins.flag("client-ca-file");
        doubts.push(Doubt::AlsoAClient { flag: flag(), file: file(), client_flag });
    }
    if certified.cert.first().is_some_and(verify::has_organization) {
        doubts.push(Doubt::HasGroups { flag: flag(), file: file() });
    }
    doubts
}
