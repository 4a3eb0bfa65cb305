//! Finds out whether a request brings a token that kube-apiserver looks at.
//!
//! Only then may a request whose certificate does not count go on: without a token kube-apiserver would refuse it, but
//! from the proxy, which has no certificate of the client's, it would take it for anonymous.
//! Source: k8s.io/apiserver `authentication/request/{bearertoken,websocket}`.

use http::header::{AUTHORIZATION, CONNECTION, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderName};

const WEBSOCKET_PREFIX: &[u8] = b"base64url.bearer.authorization.k8s.io.";

/// Whether the Authorization header or the subprotocols of a WebSocket hold a token, right or wrong.
pub(super) fn is_in(headers: &HeaderMap) -> bool {
    is_bearer(first(headers, &AUTHORIZATION)) || (is_websocket(headers) && has_subprotocol_token(headers))
}

/// `Bearer`, one blank, a token; with two blanks it is ignored.
fn is_bearer(authorization: &[u8]) -> bool {
    let mut words = authorization.trim_ascii().split(|byte| *byte == b' ');
    words.next().is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer"))
        && words.next().is_some_and(|token| !token.is_empty())
}

fn is_websocket(headers: &HeaderMap) -> bool {
    first(headers, &UPGRADE).eq_ignore_ascii_case(b"websocket")
        && options(first(headers, &CONNECTION)).any(|option| option.eq_ignore_ascii_case(b"upgrade"))
}

/// What cannot be decoded, or stands there twice, is refused by whoever reads it.
fn has_subprotocol_token(headers: &HeaderMap) -> bool {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    values
        .flat_map(|value| options(value.as_bytes()))
        .any(|protocol| protocol.strip_prefix(WEBSOCKET_PREFIX).is_some_and(|token| !token.is_empty()))
}

fn options(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// The value that Go's `Header.Get` gives.
fn first<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a [u8] {
    headers.get(name).map_or(&[], |value| value.as_bytes())
}
