//! Classifies a request line the way kube-apiserver's `RequestInfo` parser does.
//!
//! Works on the decoded path and never normalises `//` or `..`. Every field borrows from the path; only a name that a
//! field selector spells with escapes is a string of its own.
//! Source: k8s.io/apiserver `RequestInfoFactory`, with API prefixes `{api, apis}` and group-less prefix `{api}`.

use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;

mod field_selector;
pub(crate) mod query;

/// What a request asks for, in Kubernetes terms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo<'p> {
    /// Whether the path names an API resource rather than a non-resource URL.
    pub is_resource: bool,
    /// `get`, `list`, `watch`, `create`, …; for non-resource requests the lower-cased method, empty when it has no verb.
    pub verb: &'p str,
    /// API group, empty for the core group.
    pub group: &'p str,
    /// API version, whether or not it exists.
    pub version: &'p str,
    /// Resource, plural and lower-case by convention.
    pub resource: &'p str,
    /// Subresource, empty when there is none.
    pub subresource: &'p str,
    /// Namespace, empty when there is none.
    pub namespace: &'p str,
    /// Name from the path, or for list and watch the one that a `metadata.name` field selector requires; empty when
    /// there is none.
    pub name: Cow<'p, str>,
}

/// Why a path that looks like a resource request is not one; kube-apiserver answers such a request with 500.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClassifyError {
    /// `watch` or `proxy` stands where the resource should be and nothing follows.
    #[error("path ends after the legacy verb {verb:?}")]
    NothingAfterLegacyVerb {
        /// The verb.
        verb: &'static str,
    },
}

/// Deepest segment that means anything: `apis/G/V/watch/namespaces/NS/RESOURCE/NAME/SUBRESOURCE`.
const MEANINGFUL_SEGMENTS: usize = 9;

/// Percent-decodes a path; borrows when there is nothing to decode.
pub fn decode_path(path: &str) -> Cow<'_, str> {
    percent_decode_str(path).decode_utf8_lossy()
}

/// Classifies a request from its method, decoded path and raw query.
///
/// # Errors
/// When a legacy verb segment ends the path.
pub fn classify<'p>(
    method: &Method,
    decoded_path: &'p str,
    query: Option<&'p str>,
) -> Result<RequestInfo<'p>, ClassifyError> {
    let mut storage = [""; MEANINGFUL_SEGMENTS];
    let segments = split(decoded_path, &mut storage);
    let non_resource = RequestInfo { verb: lower_case(method), ..RequestInfo::default() };

    let (group, rest) = match segments {
        ["api", rest @ ..] if rest.len() >= 2 => ("", rest),
        ["apis", group, rest @ ..] if rest.len() >= 2 => (*group, rest),
        _ => return Ok(non_resource),
    };
    let (version, rest) = (rest[0], &rest[1..]);
    let (legacy_verb, rest) = strip_legacy_verb(rest)?;
    let (namespace, parts) = strip_namespace(rest);

    let part = |index: usize| parts.get(index).copied().unwrap_or_default();
    let mut info = RequestInfo {
        is_resource: true,
        verb: legacy_verb.unwrap_or_else(|| verb_of(method)),
        group,
        version,
        resource: part(0),
        name: Cow::Borrowed(part(1)),
        subresource: if legacy_verb == Some("proxy") { "" } else { part(2) },
        namespace,
    };
    if info.name.is_empty() {
        match info.verb {
            "get" => {
                info.verb = if query.is_some_and(asks_to_watch) { "watch" } else { "list" };
                info.name = query.and_then(field_selector::required_name).unwrap_or_default();
            }
            "delete" => info.verb = "deletecollection",
            _ => {}
        }
    }
    Ok(info)
}

/// Splits a path on single slashes after trimming the outer ones; an all-slash path has no segments.
fn split<'s, 'p>(path: &'p str, storage: &'s mut [&'p str; MEANINGFUL_SEGMENTS]) -> &'s [&'p str] {
    let path = path.trim_matches('/');
    if path.is_empty() {
        return &[];
    }
    let mut count = 0;
    for (slot, segment) in storage.iter_mut().zip(path.split('/')) {
        *slot = segment;
        count += 1;
    }
    &storage[..count]
}

fn strip_legacy_verb<'a, 'p>(
    rest: &'a [&'p str],
) -> Result<(Option<&'static str>, &'a [&'p str]), ClassifyError> {
    let verb = match rest.first() {
        Some(&"watch") => "watch",
        Some(&"proxy") => "proxy",
        _ => return Ok((None, rest)),
    };
    if rest.len() < 2 {
        return Err(ClassifyError::NothingAfterLegacyVerb { verb });
    }
    Ok((Some(verb), &rest[1..]))
}

/// Takes `namespaces/NS` off the front, unless what follows is a subresource of the namespace itself.
fn strip_namespace<'a, 'p>(rest: &'a [&'p str]) -> (&'p str, &'a [&'p str]) {
    match rest {
        ["namespaces", namespace, "status" | "finalize", ..] | ["namespaces", namespace] => (namespace, rest),
        ["namespaces", namespace, parts @ ..] => (namespace, parts),
        _ => ("", rest),
    }
}

fn verb_of(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::GET | Method::HEAD => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

fn lower_case(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        _ => "",
    }
}

/// Reads `watch` as kube-apiserver's list options do: the first value counts, and only `0` and `false` mean no.
fn asks_to_watch(query: &str) -> bool {
    query::first(query, "watch").is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
}

#[cfg(test)]
mod tests;
