//! Reads and writes the headers in which front proxies assert a user.

use std::sync::Arc;

use http::header::{InvalidHeaderName, InvalidHeaderValue};
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::Assertion;
use super::x509::User;
use crate::config::RequestHeaderNames;

/// The configured header names, ready to match and to write.
#[derive(Clone, Debug)]
pub struct IdentityHeaders {
    allowed_names: Vec<String>,
    username: Vec<HeaderName>,
    group: Vec<HeaderName>,
    uid: Vec<HeaderName>,
    /// Lower-case.
    extra_prefix: Vec<String>,
    /// Folded names and prefixes that are removed from clients' requests, defaults included.
    removed_names: Vec<String>,
    removed_prefixes: Vec<String>,
}

/// Why a user cannot be put into headers.
#[derive(Debug, thiserror::Error)]
pub enum AssertionError {
    /// A name, group, UID or extra value holds a control character.
    #[error("a user attribute cannot be a header value")]
    Value(#[from] InvalidHeaderValue),
    /// A name, group, UID or extra value begins or ends with a blank. HTTP/1.1 drops those (RFC 9110 section 5.5), so
    /// it would arrive as somebody else's.
    #[error("a user attribute begins or ends with a blank")]
    Blank,
    /// An extra key cannot be a header name.
    #[error("an extra key cannot be a header name")]
    Name(#[from] InvalidHeaderName),
    /// The configuration names no header to put the attribute in.
    #[error("no request header name is configured for {attribute}")]
    Unnamed {
        /// User attribute.
        attribute: &'static str,
    },
}

/// Bytes of an extra key that cannot stand in a header name (RFC 9110 token), and `%` itself.
const ESCAPED_IN_KEYS: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'*')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// Removed whatever is configured: kube-apiserver always strips the standard set.
const STANDARD: [&str; 3] = ["x-remote-user", "x-remote-group", "x-remote-uid"];
const STANDARD_PREFIX: &str = "x-remote-extra-";

impl IdentityHeaders {
    /// Compiles the configured names.
    ///
    /// # Errors
    /// When one of them is not a header name.
    pub fn new(names: &RequestHeaderNames) -> Result<Self, InvalidHeaderName> {
        let parse = |list: &[String]| {
            list.iter().map(|name| HeaderName::from_bytes(name.as_bytes())).collect::<Result<Vec<_>, _>>()
        };
        let (username, group, uid) = (parse(&names.username)?, parse(&names.group)?, parse(&names.uid)?);
        let extra_prefix: Vec<String> =
            names.extra_prefix.iter().map(|prefix| prefix.to_ascii_lowercase()).collect();
        let configured = username.iter().chain(&group).chain(&uid).map(HeaderName::as_str);
        Ok(Self {
            removed_names: configured.chain(STANDARD).map(fold).collect(),
            removed_prefixes: extra_prefix
                .iter()
                .map(String::as_str)
                .chain([STANDARD_PREFIX])
                .map(fold)
                .collect(),
            allowed_names: names.allowed_names.clone(),
            username,
            group,
            uid,
            extra_prefix,
        })
    }

    /// Whether a front-proxy certificate with this common name may assert users; an empty list allows any.
    pub fn may_assert(&self, common_name: &str) -> bool {
        self.allowed_names.is_empty() || self.allowed_names.iter().any(|name| name == common_name)
    }

    /// Whether a header carries identity and so is never forwarded from a client, in whatever spelling.
    pub fn is_identity_header(&self, name: &HeaderName) -> bool {
        let name = name.as_str();
        self.removed_names.iter().any(|removed| folds_to(name, removed))
            || self
                .removed_prefixes
                .iter()
                .any(|prefix| name.get(..prefix.len()).is_some_and(|start| folds_to(start, prefix)))
    }

    /// The headers that assert a user.
    ///
    /// # Errors
    /// When an attribute cannot be expressed as a header.
    pub fn assertion_of(&self, user: &User) -> Result<Assertion, AssertionError> {
        let mut headers = vec![(first(&self.username, "the user name")?, value_of(&user.name)?)];
        for group in &user.groups {
            headers.push((first(&self.group, "groups")?, value_of(group)?));
        }
        if let (Some(uid), Some(name)) = (&user.uid, self.uid.first()) {
            headers.push((name.clone(), value_of(uid)?));
        }
        // An API server without a prefix takes no extra fields; in a certificate there is only the credential's id.
        if let Some(prefix) = self.extra_prefix.first() {
            for (key, value) in &user.extra {
                let name = format!("{prefix}{}", utf8_percent_encode(&key.to_lowercase(), ESCAPED_IN_KEYS));
                headers.push((HeaderName::from_bytes(name.as_bytes())?, value_of(value)?));
            }
        }
        Ok(headers.into())
    }

    /// The user a front proxy asserts in a request, rewritten to the first configured name of each kind.
    pub fn asserted_in(&self, headers: &HeaderMap) -> Option<Assertion> {
        let non_empty = |name: &HeaderName| headers.get(name).filter(|value| !value.is_empty()).cloned();
        let mut found = vec![(self.username.first()?.clone(), self.username.iter().find_map(non_empty)?)];
        if let (Some(name), Some(uid)) = (self.uid.first(), self.uid.iter().find_map(non_empty)) {
            found.push((name.clone(), uid));
        }
        if let Some(name) = self.group.first() {
            let groups = self.group.iter().flat_map(|name| headers.get_all(name));
            found.extend(groups.map(|group| (name.clone(), group.clone())));
        }
        let is_extra = |name: &HeaderName| {
            self.extra_prefix.iter().any(|prefix| name.as_str().starts_with(prefix.as_str()))
        };
        let extra = headers.iter().filter(|(name, _)| is_extra(name));
        found.extend(extra.map(|(name, value)| (name.clone(), value.clone())));
        Some(Arc::from(found))
    }
}

/// Header values are bytes to kube-apiserver: a non-ASCII name passes as its UTF-8 bytes.
fn value_of(text: &str) -> Result<HeaderValue, AssertionError> {
    if text.trim_matches([' ', '\t']) != text {
        return Err(AssertionError::Blank);
    }
    Ok(HeaderValue::from_bytes(text.as_bytes())?)
}

fn first(names: &[HeaderName], attribute: &'static str) -> Result<HeaderName, AssertionError> {
    names.first().cloned().ok_or(AssertionError::Unnamed { attribute })
}

/// Lower-cases and turns `_` into `-`: some servers read `X_Remote_User` as `X-Remote-User`.
fn fold(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

fn folds_to(name: &str, folded: &str) -> bool {
    name.len() == folded.len()
        && name.bytes().map(|byte| if byte == b'_' { b'-' } else { byte }).eq(folded.bytes())
}
