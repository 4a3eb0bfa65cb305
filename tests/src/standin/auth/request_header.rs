//! Believes front proxies when they assert a user in request headers.

use std::collections::BTreeMap;

use http::HeaderMap;
use rustls_pki_types::CertificateDer;

use super::certificate::{CertificateError, ClientCertificates};
use crate::standin::user::User;

/// The `--requestheader-*` flags.
#[derive(Clone, Debug)]
pub struct RequestHeader {
    /// CA bundle (PEM) of front proxies' client certificates.
    pub client_ca: String,
    /// CNs that front proxies may have; empty means any.
    pub allowed_names: Vec<String>,
    /// Headers that carry the user name; the first non-empty one wins.
    pub username_headers: Vec<String>,
    /// Headers that carry groups.
    pub group_headers: Vec<String>,
    /// Headers that carry the UID; kubeadm sets none.
    pub uid_headers: Vec<String>,
    /// Prefixes of headers that carry extra attributes.
    pub extra_headers_prefixes: Vec<String>,
}

impl RequestHeader {
    /// The usual X-Remote-* names, UID included, for `front-proxy-client`.
    pub fn usual(client_ca: &str) -> Self {
        Self {
            client_ca: client_ca.to_owned(),
            allowed_names: vec!["front-proxy-client".to_owned()],
            username_headers: vec!["X-Remote-User".to_owned()],
            group_headers: vec!["X-Remote-Group".to_owned()],
            uid_headers: vec!["X-Remote-Uid".to_owned()],
            extra_headers_prefixes: vec!["X-Remote-Extra-".to_owned()],
        }
    }
}

/// The front proxies that are believed.
pub(in crate::standin) struct FrontProxies {
    certificates: ClientCertificates,
    names: RequestHeader,
}

impl FrontProxies {
    pub(super) fn new(names: RequestHeader) -> anyhow::Result<Self> {
        Ok(Self { certificates: ClientCertificates::new(&names.client_ca)?, names })
    }

    pub(super) fn ca_subjects(&self) -> Vec<rustls::DistinguishedName> {
        self.certificates.ca_subjects()
    }

    /// Whether the certificate is a front proxy's.
    pub(super) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), CertificateError> {
        let common_name = self.certificates.verify(leaf, intermediates)?.common_name;
        if self.names.allowed_names.is_empty() || self.names.allowed_names.contains(&common_name) {
            Ok(())
        } else {
            Err(CertificateError::NotAllowed { common_name })
        }
    }

    /// The user that `headers` assert; none without a user name.
    pub(super) fn asserted(&self, headers: &HeaderMap) -> Option<User> {
        Some(User {
            name: first(headers, &self.names.username_headers)?,
            uid: first(headers, &self.names.uid_headers).unwrap_or_default(),
            groups: self.groups(headers),
            extra: self.extra(headers),
        })
    }

    /// Empty ones are no groups.
    fn groups(&self, headers: &HeaderMap) -> Vec<String> {
        let all = self.names.group_headers.iter().flat_map(|name| all(headers, name));
        all.filter(|group| !group.is_empty()).collect()
    }

    fn extra(&self, headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
        let mut extra = BTreeMap::new();
        for prefix in self.names.extra_headers_prefixes.iter().map(|prefix| prefix.to_ascii_lowercase()) {
            for name in headers.keys() {
                let Some(suffix) = name.as_str().strip_prefix(&prefix) else { continue };
                extra.entry(unescaped(suffix)).or_insert_with(Vec::new).extend(all(headers, name.as_str()));
            }
        }
        extra
    }
}

/// Go's `url.PathUnescape`; a key with a bad escape is kept as it came.
pub(super) fn unescaped(key: &str) -> String {
    let mut escapes = key.split('%').skip(1);
    if escapes.all(|rest| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2) {
        percent_encoding::percent_decode_str(key).decode_utf8_lossy().into_owned()
    } else {
        key.to_owned()
    }
}

fn first(headers: &HeaderMap, names: &[String]) -> Option<String> {
    names.iter().filter_map(|name| all(headers, name).next()).find(|value| !value.is_empty())
}

/// Every value of a header as text; Go does not care whether bytes are UTF-8.
fn all<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = String> + 'a {
    headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}
