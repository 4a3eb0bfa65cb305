//! Cleans a client's headers and says who it is.

use std::net::IpAddr;

use http::header::{
    AUTHORIZATION, CONNECTION, EXPECT, FORWARDED, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
    SEC_WEBSOCKET_PROTOCOL, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue};

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
/// When there are more names than the proxy can safely add to.
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
    remove_hop_by_hop(headers);
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
    if asked { headers.get(UPGRADE).cloned() } else { None }
}

#[cfg(test)]
mod tests;
