//! Compares the proxy's classification of a request with the naive one.

use http::Method;
use mvproxy::classify::{classify, decode_path};

use crate::naive_request::{NaiveRequest, read};

/// Methods whose lower-cased name the proxy gives as verb of a non-resource request; it has none for others.
const NAMED: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Classifies a request both ways.
///
/// # Panics
/// When the results differ.
pub(crate) fn assert_classified_alike(method: &Method, path: &str, query: Option<&str>) {
    let mut expected = read(method.as_str(), path, query.unwrap_or_default());
    if let Some(request) = &mut expected
        && !request.is_resource
        && !NAMED.contains(&method.as_str())
    {
        request.verb.clear();
    }
    let decoded = decode_path(path);
    let seen = classify(method, &decoded, query).ok().map(|info| NaiveRequest {
        is_resource: info.is_resource,
        verb: info.verb.to_owned(),
        group: info.group.to_owned(),
        version: info.version.to_owned(),
        resource: info.resource.to_owned(),
        subresource: info.subresource.to_owned(),
        namespace: info.namespace.to_owned(),
        name: info.name.into_owned(),
    });
    assert_eq!(seen, expected, "{method} {path} {query:?}");
}
