//! Cleans a client's headers and says who it is.

use std::net::IpAddr;

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Version};

use super::ForwardError;
use crate::identity::{Identity, IdentityHeaders};

/// Marks a request that a proxy already routed (KEP-4020): it is served locally, whatever the value.
pub const PEER_PROXIED: HeaderName = HeaderName::from_static("x-kubernetes-peer-proxied");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Different names in one message. A `HeaderMap` panics when it is to take more than 24,576, which fit into the 1 MiB of
/// headers that HTTP/2 takes from clients and upstreams; no more may come than leave place for the proxy's own.
const MAX_NAMES: usize = 8192;

/// Whether the proxy, and hyper after it, can add headers.
pub fn have_room(headers: &HeaderMap) -> bool {
    headers.keys_len() <= MAX_NAMES
}

/// Turns a client's request headers into those an upstream gets.
///
/// # Errors
/// When there are more names than the proxy can safely add to, or the body is coded in a way that is not undone here.
pub fn for_upstream(
    headers: &mut HeaderMap,
    identity: &Identity,
    names: &IdentityHeaders,
    client: IpAddr,
    client_is_trusted: bool,
) -> Result<(), ForwardError> {
    if !have_room(headers) {
        return Err(ForwardError::TooManyHeaders { names: headers.keys_len() });
    }
    if !is_understood(headers) {
        return Err(ForwardError::TransferCoding);
    }
    remove_hop_by_hop(headers);
    // What it announces does not follow.
    headers.remove(TRAILER);
    unite_lengths(headers);
    join_cookies(headers);
    // A body that the client holds back until asked is asked for by the server side of this proxy.
    headers.remove(EXPECT);
    headers.remove(HOST);
    remove_identity(headers, names);
    set_forwarded_for(headers, client, client_is_trusted);
    if let Identity::Asserted(assertion) = identity {
        // The API server would ignore it, and a token has no business on a connection that asserts a user.
        headers.remove(AUTHORIZATION);
        for (name, value) in assertion.iter() {
            headers.append(name.clone(), value.clone());
        }
    }
    Ok(())
}

/// Several Host headers would be several servers. HTTP/1.1 clients must send one (RFC 9112 section 3.2), and kube-apiserver
/// insists as well; HTTP/2 ones have `:authority`.
///
/// # Errors
/// When there are too many or too few.
pub fn check_host(version: Version, headers: &HeaderMap) -> Result<(), ForwardError> {
    match headers.get_all(HOST).iter().count() {
        1 => Ok(()),
        0 if version != Version::HTTP_11 => Ok(()),
        count => Err(ForwardError::Host { count }),
    }
}

/// Whether the body that hyper gives is the client's: it undoes one `chunked`, the last of all codings, and passes over
/// what else is listed. kube-apiserver answers 501 as well.
fn is_understood(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    codings.next().is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
        && codings.next().is_none()
}

/// h2 lets a Content-Length come twice if both are equal; over HTTP/1.1 there has to be one (RFC 9112 section 6.3).
fn unite_lengths(headers: &mut HeaderMap) {
    if headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some()
        && let Some(length) = headers.get(CONTENT_LENGTH).cloned()
    {
        headers.insert(CONTENT_LENGTH, length);
    }
}

/// HTTP/2 clients may split cookies, which HTTP/1.1 has in one header (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1
        && let Ok(cookies) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        headers.insert(COOKIE, cookies);
    }
}

/// Removes what belongs to one connection only (RFC 9110 section 7.6.1).
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .filter(|name| !carries_authority(name))
        .collect();
    for name in named {
        headers.remove(name);
    }
    let accepts_trailers = headers.get(TE).is_some_and(|value| {
        value
            .to_str()
            .is_ok_and(|value| value.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("trailers")))
    });
    for name in [
        CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRANSFER_ENCODING,
        UPGRADE,
    ] {
        headers.remove(name);
    }
    if accepts_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Whether a header decides whose authority a request has, or how far it goes.
///
/// It is never of one connection only (RFC 9110 section 7.6.1), and kube-apiserver reads it whatever Connection says. A
/// client of a careless front proxy could otherwise have that proxy's impersonation taken out of its request.
fn carries_authority(name: &HeaderName) -> bool {
    [AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL, PEER_PROXIED].contains(name)
        || name.as_str().starts_with("impersonate-")
}

/// Removes every header in which a front proxy could speak for somebody.
fn remove_identity(headers: &mut HeaderMap, names: &IdentityHeaders) {
    let spoofed: Vec<HeaderName> =
        headers.keys().filter(|name| names.is_identity_header(name)).cloned().collect();
    for name in spoofed {
        headers.remove(name);
    }
}

/// Audit logs take `sourceIPs` from these headers: only a trusted proxy's own list is believed, and continued.
fn set_forwarded_for(headers: &mut HeaderMap, client: IpAddr, client_is_trusted: bool) {
    headers.remove(REAL_IP);
    headers.remove(FORWARDED);
    let believed = if client_is_trusted { joined(headers, &FORWARDED_FOR) } else { None };
    let list = match believed {
        Some(list) => format!("{list}, {client}"),
        None => client.to_string(),
    };
    // An address and header text that was a header value before cannot be an invalid one.
    if let Ok(value) = HeaderValue::from_str(&list) {
        headers.insert(FORWARDED_FOR, value);
    } else {
        headers.remove(FORWARDED_FOR);
    }
}

fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

/// The protocol an HTTP/1.1 request asks to be upgraded to.
pub fn upgrade_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let asked = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split(',').any(|option| option.trim().eq_ignore_ascii_case("upgrade")));
    if asked { headers.get(UPGRADE).filter(|protocols| !leads_to_http(protocols)).cloned() } else { None }
}

/// Whether an upgrade would lead to HTTP again: over a connection that is a front proxy's a client could then say whatever
/// a front proxy may. kube-apiserver knows no such upgrade and serves the request as if it had not been asked for.
fn leads_to_http(protocols: &HeaderValue) -> bool {
    let mut protocols = protocols.as_bytes().split(|byte| *byte == b',');
    protocols.any(|protocol| {
        let name = protocol.split(|byte| *byte == b'/').next().unwrap_or_default().trim_ascii();
        [&b"h2"[..], b"h2c", b"http", b"tls"].iter().any(|known| name.eq_ignore_ascii_case(known))
    })
}

#[cfg(test)]
mod tests;
