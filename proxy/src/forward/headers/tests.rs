use std::sync::Arc;

use super::*;
use crate::config::RequestHeaderNames;

fn names() -> IdentityHeaders {
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    IdentityHeaders::new(&RequestHeaderNames {
        allowed_names: Vec::new(),
        username: list(&["X-Remote-User", "X-Custom-User"]),
        group: list(&["X-Remote-Group"]),
        uid: list(&["X-Remote-Uid"]),
        extra_prefix: list(&["X-Remote-Extra-", "X-Custom-Extra-"]),
    })
    .expect("header names")
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            (name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"))
        })
        .collect()
}

fn sorted(headers: &HeaderMap) -> Vec<String> {
    let mut lines: Vec<_> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
        .collect();
    lines.sort();
    lines
}

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

#[test]
fn nothing_a_client_says_about_who_it_is_gets_through() {
    let mut seen = headers(&[
        ("x-remote-user", "root"),
        ("X-Remote-Group", "system:masters"),
        ("x_remote_group", "system:masters"),
        ("X-Remote_Extra-scopes", "all"),
        ("x-custom-user", "root"),
        ("X-Custom-Extra-a", "b"),
        ("x-remote-extra-", "empty key"),
        ("x-real-ip", "10.0.0.1"),
        ("forwarded", "for=10.0.0.1"),
        ("x-forwarded-for", "10.0.0.1"),
        ("authorization", "Bearer t"),
        ("impersonate-user", "bob"),
        ("audit-id", "a"),
        ("host", "kubernetes"),
    ]);
    for_upstream(&mut seen, &Identity::Bearer, &names(), CLIENT, false).expect("few headers");
    let expected =
        ["audit-id: a", "authorization: Bearer t", "impersonate-user: bob", "x-forwarded-for: 192.0.2.1"];
    assert_eq!(sorted(&seen), expected);
}

#[test]
fn an_asserted_user_replaces_the_clients_claims_and_its_token() {
    let user: Arc<[_]> = Arc::from([
        (HeaderName::from_static("x-remote-user"), HeaderValue::from_static("alice")),
        (HeaderName::from_static("x-remote-group"), HeaderValue::from_static("dev")),
        (HeaderName::from_static("x-remote-group"), HeaderValue::from_static("ops")),
    ]);
    let mut seen =
        headers(&[("x-remote-user", "root"), ("x-remote-uid", "0"), ("authorization", "Bearer t")]);
    for_upstream(&mut seen, &Identity::Asserted(user), &names(), CLIENT, false).expect("few headers");
    let expected =
        ["x-forwarded-for: 192.0.2.1", "x-remote-group: dev", "x-remote-group: ops", "x-remote-user: alice"];
    assert_eq!(sorted(&seen), expected);
}

#[test]
fn a_front_proxys_list_of_sources_is_continued() {
    let mut seen = headers(&[("x-forwarded-for", "10.1.1.1"), ("x-forwarded-for", "10.2.2.2")]);
    for_upstream(&mut seen, &Identity::Anonymous, &names(), CLIENT, true).expect("few headers");
    assert_eq!(sorted(&seen), ["x-forwarded-for: 10.1.1.1, 10.2.2.2, 192.0.2.1"]);
}

#[test]
fn hop_by_hop_headers_end_here() {
    let mut seen = headers(&[
        ("connection", "close, X-Once"),
        ("x-once", "1"),
        ("keep-alive", "timeout=5"),
        ("transfer-encoding", "chunked"),
        ("te", "trailers, deflate"),
        ("upgrade", "h2c"),
        ("proxy-authorization", "Basic x"),
        ("trailer", "X-Sum"),
    ]);
    remove_hop_by_hop(&mut seen);
    assert_eq!(sorted(&seen), ["te: trailers", "trailer: X-Sum"]);
}

#[test]
fn a_connection_header_cannot_take_away_what_authority_depends_on() {
    let kept = [
        ("authorization", "Bearer t"),
        ("impersonate-extra-scopes", "view"),
        ("impersonate-user", "bob"),
        ("sec-websocket-protocol", "base64url.bearer.authorization.k8s.io.dA"),
        ("x-kubernetes-peer-proxied", "true"),
    ];
    let mut seen = headers(&kept);
    let names: Vec<&str> = kept.iter().map(|(name, _)| *name).collect();
    seen.insert(CONNECTION, HeaderValue::from_str(&names.join(", ")).expect("header names"));
    remove_hop_by_hop(&mut seen);
    assert_eq!(sorted(&seen), sorted(&headers(&kept)));
}

#[test]
fn what_http2_may_say_twice_is_said_once() {
    let mut seen = headers(&[
        ("content-length", "2"),
        ("content-length", "2"),
        ("cookie", "a=1"),
        ("cookie", "b=2; c=3"),
        ("accept", "a"),
        ("accept", "b"),
    ]);
    for_upstream(&mut seen, &Identity::Anonymous, &names(), CLIENT, false).expect("understood");
    let expected = [
        "accept: a",
        "accept: b",
        "content-length: 2",
        "cookie: a=1; b=2; c=3",
        "x-forwarded-for: 192.0.2.1",
    ];
    assert_eq!(sorted(&seen), expected);
}

#[test]
fn only_one_chunked_coding_is_understood() {
    for (codings, is_understood) in [
        (&["chunked"][..], true),
        (&["Chunked"], true),
        (&[], true),
        (&["gzip, chunked"], false),
        (&["chunked, chunked"], false),
        (&["chunked", "chunked"], false),
        (&["identity", "chunked"], false),
        (&[""], false),
    ] {
        let mut seen: HeaderMap = codings
            .iter()
            .map(|coding| (TRANSFER_ENCODING, HeaderValue::from_static(coding)))
            .fold(HeaderMap::new(), |mut all, (name, value)| {
                all.append(name, value);
                all
            });
        let made_ready = for_upstream(&mut seen, &Identity::Anonymous, &names(), CLIENT, false);
        assert_eq!(made_ready.is_ok(), is_understood, "{codings:?}: {made_ready:?}");
    }
}

#[test]
fn there_is_one_host_unless_http_2_or_1_0_has_none() {
    let hosts = |count: usize| headers(&["host"; 3].map(|name| (name, "k"))[..count]);
    for (version, counts) in [
        (Version::HTTP_10, [true, true, false, false]),
        (Version::HTTP_11, [false, true, false, false]),
        (Version::HTTP_2, [true, true, false, false]),
    ] {
        for (count, is_good) in counts.into_iter().enumerate() {
            assert_eq!(check_host(version, &hosts(count)).is_ok(), is_good, "{count} in {version:?}");
        }
    }
}

#[test]
fn no_upgrade_leads_to_http_again() {
    let asked = |protocol: &str| headers(&[("connection", "upgrade"), ("upgrade", protocol)]);
    for protocol in ["h2c", "H2C", "h2", "HTTP/2.0", "TLS/1.0", "websocket, h2c", "h2c , spdy/3.1"] {
        assert_eq!(upgrade_of(&asked(protocol)), None, "{protocol}");
    }
    for protocol in ["websocket", "SPDY/3.1", "spdy/3.1, websocket", "http-tunnel"] {
        assert!(upgrade_of(&asked(protocol)).is_some(), "{protocol}");
    }
}

#[test]
fn an_upgrade_needs_both_headers() {
    let both = headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "SPDY/3.1")]);
    assert_eq!(upgrade_of(&both), Some(HeaderValue::from_static("SPDY/3.1")));
    assert_eq!(upgrade_of(&headers(&[("upgrade", "SPDY/3.1")])), None);
    assert_eq!(upgrade_of(&headers(&[("connection", "upgrade")])), None);
}

#[test]
fn more_names_than_a_map_can_take_more_of_are_refused() {
    let named = |count: usize| -> HeaderMap {
        let name = |number: usize| HeaderName::try_from(format!("{number:x}")).expect("a name");
        (0..count).map(|number| (name(number), HeaderValue::from_static(""))).collect()
    };
    // As full as HTTP/2 lets a client make it, and well within the limit on the size of all headers.
    let mut full = named(24_576);
    let refused = for_upstream(&mut full, &Identity::Anonymous, &names(), CLIENT, false);
    assert!(matches!(refused, Err(ForwardError::TooManyHeaders { names: 24_576 })), "{refused:?}");
    assert!(!have_room(&full), "a response like this is refused too");
    for_upstream(&mut named(MAX_NAMES), &Identity::Anonymous, &names(), CLIENT, false).expect("not too many");
}
