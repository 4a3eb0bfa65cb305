//! Cleans any request headers, and expects that nobody speaks for somebody else afterwards.
//!
//! Input: one byte that picks the kind of client, then lines of `name:value` in which bytes from 0x80 stand for words.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, LazyLock};

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use mvproxy::config::RequestHeaderNames;
use mvproxy::forward::ForwardError;
use mvproxy::forward::headers::{for_upstream, upgrade_of};
use mvproxy::identity::{ClientCertificate, Identity, IdentityHeaders, identify};

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const NAMES: [&str; 5] =
    ["x-remote-user", "x-remote-group", "x-remote-uid", "x-custom-user", "x-custom-group"];
const PREFIXES: [&str; 2] = ["x-remote-extra-", "x-custom-extra-"];

/// What has a meaning in headers; spelled out, the fuzzer would hardly ever put two of them together.
const WORDS: [&str; 30] = [
    "connection:",
    "impersonate-user",
    "impersonate-group",
    "authorization",
    "x-kubernetes-peer-proxied",
    "x-remote-user",
    "x_remote_group",
    "x-remote-uid",
    "x-remote-extra-",
    "x-custom_user",
    "x-custom-group",
    "x-custom-extra-a",
    "x-forwarded-for",
    "forwarded",
    "sec-websocket-protocol",
    "base64url.bearer.authorization.k8s.io.",
    "upgrade",
    "te:",
    "trailers",
    "host",
    "transfer-encoding",
    "proxy-connection",
    "chunked",
    "trailer",
    "cookie",
    "content-length",
    "bearer t",
    "websocket",
    ",",
    "\n",
];

static CONFIGURED: LazyLock<IdentityHeaders> = LazyLock::new(|| {
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    IdentityHeaders::new(&RequestHeaderNames {
        allowed_names: Vec::new(),
        username: list(&["X-Remote-User", "X_Custom_User"]),
        group: list(&["X-Remote-Group", "X-Custom-Group"]),
        uid: list(&["X-Remote-Uid"]),
        extra_prefix: list(&["X-Remote-Extra-", "X-Custom_Extra-"]),
    })
    .expect("header names")
});

fn speaks_for_somebody(name: &HeaderName) -> bool {
    let name = name.as_str().replace('_', "-");
    NAMES.contains(&&*name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn parsed(text: &[u8]) -> HeaderMap {
    let lines = text.split(|byte| *byte == b'\n').filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
        Some((HeaderName::from_bytes(&line[..colon]).ok()?, value))
    });
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(name, value);
    }
    headers
}

/// Replaces the bytes that stand for words.
fn spelled_out(data: &[u8]) -> Vec<u8> {
    let word = |byte: u8| WORDS.get(usize::from(byte.checked_sub(0x80)?));
    data.iter()
        .flat_map(|byte| word(*byte).map_or_else(|| vec![*byte], |word| word.as_bytes().to_vec()))
        .collect()
}

fn certificate(kind: u8) -> ClientCertificate {
    let user = || Arc::from([(HeaderName::from_static("x-remote-user"), HeaderValue::from_static("alice"))]);
    match kind % 5 {
        0 => ClientCertificate::Absent,
        1 => ClientCertificate::User(user()),
        2 => ClientCertificate::FrontProxy { own: None },
        3 => ClientCertificate::FrontProxy { own: Some(user()) },
        _ => ClientCertificate::Unverified,
    }
}

/// The headers of some names, by name; only among those of the same name does the order mean anything.
fn some(headers: &HeaderMap, wanted: impl Fn(&HeaderName) -> bool) -> Vec<(HeaderName, HeaderValue)> {
    by_name(
        headers.iter().filter(|(name, _)| wanted(name)).map(|(name, value)| (name.clone(), value.clone())),
    )
}

fn by_name(headers: impl Iterator<Item = (HeaderName, HeaderValue)>) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers: Vec<_> = headers.collect();
    headers.sort_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
    headers
}

fn is_chunked(codings: &[HeaderValue]) -> bool {
    matches!(codings, [coding] if coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
}

fn impersonates(name: &HeaderName) -> bool {
    name.as_str().starts_with("impersonate-")
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, text)) = data.split_first() else { return };
    let (mut headers, certificate) = (parsed(&spelled_out(text)), certificate(*kind));
    let _ = upgrade_of(&headers);
    let Ok(identity) = identify(&certificate, &headers, &CONFIGURED) else { return };
    let (impersonated, token) = (some(&headers, impersonates), headers.get(AUTHORIZATION).cloned());

    if matches!(certificate, ClientCertificate::Unverified) {
        assert!(
            matches!(identity, Identity::Bearer),
            "a certificate that does not count makes nobody anonymous"
        );
    }
    let codings: Vec<_> = headers.get_all(TRANSFER_ENCODING).iter().cloned().collect();
    match for_upstream(&mut headers, &identity, &CONFIGURED, CLIENT, certificate.is_front_proxy()) {
        Ok(()) => assert!(codings.is_empty() || is_chunked(&codings), "{codings:?}"),
        Err(ForwardError::TransferCoding) => {
            assert!(!is_chunked(&codings) && !codings.is_empty());
            return;
        }
        Err(error) => panic!("a few kilobytes hold few names: {error}"),
    }

    let left = some(&headers, speaks_for_somebody);
    match &identity {
        Identity::Asserted(assertion) => {
            assert_eq!(left, by_name(assertion.iter().cloned()));
            assert!(!headers.contains_key(AUTHORIZATION));
        }
        Identity::Bearer | Identity::Anonymous => {
            assert!(left.is_empty(), "{left:?}");
            assert_eq!(headers.get(AUTHORIZATION), token.as_ref());
        }
    }
    if !certificate.is_front_proxy() {
        assert_eq!(headers.get("x-forwarded-for").map(HeaderValue::as_bytes), Some(&b"192.0.2.1"[..]));
    }
    assert_eq!(headers.get_all("x-forwarded-for").iter().count(), 1);
    assert_eq!(some(&headers, impersonates), impersonated);
    for name in [CONTENT_LENGTH, COOKIE] {
        assert!(headers.get_all(&name).iter().count() <= 1, "{name}");
    }
    for name in [CONNECTION, HOST, TRAILER, TRANSFER_ENCODING, UPGRADE] {
        assert!(!headers.contains_key(&name), "{name}");
    }
    assert!(headers.get(TE).is_none_or(|value| value == "trailers"));
});
