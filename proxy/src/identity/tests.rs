use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, KeyPair,
};

use super::*;
use crate::config::RequestHeaderNames;
use crate::credentials::CaBundle;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA")
}

/// A client certificate with a subject of (attribute, value).
fn certificate(
    authority: &Authority,
    subject: &[(DnType, &str)],
    usage: ExtendedKeyUsagePurpose,
) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for (attribute, value) in subject {
        params.distinguished_name.push(attribute.clone(), DnValue::Utf8String((*value).to_owned()));
    }
    params.extended_key_usages = vec![usage];
    let key = KeyPair::generate().expect("a key");
    params.signed_by(&key, authority).expect("a certificate").der().clone()
}

fn client(authority: &Authority, subject: &[(DnType, &str)]) -> CertificateDer<'static> {
    certificate(authority, subject, ExtendedKeyUsagePurpose::ClientAuth)
}

fn verifiers(client: &Authority, front_proxy: &Authority) -> ClientVerifiers {
    let bundle = |authority: &Authority| {
        Arc::new(CaBundle::new(vec![authority.der().clone()]).expect("a trust anchor"))
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let (client, front_proxy) = (bundle(client), bundle(front_proxy));
    ClientVerifiers::new(&client, &front_proxy, &provider, UnixTime::now()).expect("verifiers")
}

fn names(allowed: &[&str]) -> IdentityHeaders {
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    IdentityHeaders::new(&RequestHeaderNames {
        allowed_names: list(allowed),
        username: list(&["X-Remote-User"]),
        group: list(&["X-Remote-Group"]),
        uid: list(&["X-Remote-Uid"]),
        extra_prefix: list(&["X-Remote-Extra-"]),
    })
    .expect("header names")
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).expect("a name"),
            HeaderValue::from_str(value).expect("a value"),
        );
    }
    headers
}

/// `user/group,group/uid`, or the kind of identity.
fn describe(identity: &Result<Identity, IdentityError>) -> String {
    let assertion = match identity {
        Ok(Identity::Asserted(assertion)) => assertion,
        Ok(Identity::Bearer) => return "bearer".to_owned(),
        Ok(Identity::Anonymous) => return "anonymous".to_owned(),
        Err(_) => return "401".to_owned(),
    };
    let all = |wanted: &str| -> String {
        let values = assertion.iter().filter(|(name, _)| name == wanted);
        values
            .map(|(_, value)| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect::<Vec<_>>()
            .join(",")
    };
    format!("{}/{}/{}", all("x-remote-user"), all("x-remote-group"), all("x-remote-uid"))
}

/// The outcome table recorded from kube-apiserver 1.36: what a connection presents, and who it is.
#[test]
fn who_a_request_speaks_for() {
    let (cluster, front_proxy_ca, stranger) =
        (authority("kubernetes"), authority("front-proxy-ca"), authority("x"));
    let verifiers = verifiers(&cluster, &front_proxy_ca);
    let names = names(&["front-proxy-client"]);
    let o = DnType::OrganizationName;
    let alice = client(&cluster, &[(DnType::CommonName, "alice"), (o.clone(), "dev")]);
    let nameless = client(&cluster, &[(o.clone(), "dev")]);
    let server = certificate(&cluster, &[(DnType::CommonName, "x")], ExtendedKeyUsagePurpose::ServerAuth);
    let proxy = client(&front_proxy_ca, &[(DnType::CommonName, "front-proxy-client")]);
    let other_proxy = client(&front_proxy_ca, &[(DnType::CommonName, "somebody")]);
    let unknown = client(&stranger, &[(DnType::CommonName, "alice")]);
    let token = ("authorization", "Bearer t");
    let bob = [
        ("x-remote-user", "bob"),
        ("x-remote-group", "qa"),
        ("x-remote-group", "ops"),
        ("x-remote-uid", "7"),
    ];
    let both = [token, ("x-remote-user", "bob")];

    for (what, certificate, headers, expected) in [
        ("nothing", None, headers(&[]), "anonymous"),
        ("a token", None, headers(&[token]), "bearer"),
        ("claims without a certificate", None, headers(&bob), "anonymous"),
        ("a certificate", Some(&alice), headers(&[]), "alice/dev/"),
        ("a certificate and a token", Some(&alice), headers(&[token]), "alice/dev/"),
        ("a certificate and claims", Some(&alice), headers(&bob), "alice/dev/"),
        ("a certificate without a name", Some(&nameless), headers(&[]), "401"),
        ("a certificate without a name and a token", Some(&nameless), headers(&[token]), "bearer"),
        ("a serving certificate", Some(&server), headers(&[]), "401"),
        ("a stranger's certificate", Some(&unknown), headers(&[]), "401"),
        ("a stranger's certificate and a token", Some(&unknown), headers(&[token]), "bearer"),
        ("a front proxy for bob", Some(&proxy), headers(&bob), "bob/qa,ops/7"),
        ("a front proxy for bob with a token", Some(&proxy), headers(&both), "bob//"),
        ("a front proxy for nobody", Some(&proxy), headers(&[]), "401"),
        ("a front proxy with an empty user", Some(&proxy), headers(&[("x-remote-user", "")]), "401"),
        ("a front proxy with a token", Some(&proxy), headers(&[token]), "bearer"),
        ("a front proxy that may not assert", Some(&other_proxy), headers(&bob), "401"),
    ] {
        let chain = certificate.map_or(&[][..], std::slice::from_ref);
        let proved = of_certificate(chain, &verifiers, &names, UnixTime::now());
        assert_eq!(describe(&identify(&proved, &headers, &names)), expected, "{what}");
    }
}

#[test]
fn one_authority_for_both_uses_tells_clients_from_front_proxies_by_name() {
    let shared = authority("kubernetes");
    let verifiers = verifiers(&shared, &shared);
    let names = names(&["front-proxy-client"]);
    let proxy = client(&shared, &[(DnType::CommonName, "front-proxy-client")]);
    let alice = client(&shared, &[(DnType::CommonName, "alice")]);
    let claims = headers(&[("x-remote-user", "root")]);
    let of = |certificate: &CertificateDer<'_>, headers: &HeaderMap| {
        describe(&identify(
            &of_certificate(std::slice::from_ref(certificate), &verifiers, &names, UnixTime::now()),
            headers,
            &names,
        ))
    };
    assert_eq!(of(&alice, &claims), "alice//");
    assert_eq!(of(&proxy, &claims), "root//");
    // Without a claim it is the client its certificate names, as on a direct connection.
    assert_eq!(of(&proxy, &headers(&[])), "front-proxy-client//");
}

#[test]
fn every_attribute_of_a_certificate_is_asserted() {
    let cluster = authority("kubernetes");
    let uid = DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 57683, 2]);
    let leaf =
        client(&cluster, &[(DnType::CommonName, "ülrich"), (DnType::OrganizationName, "a"), (uid, "u-1")]);
    let user = x509::user_of(&leaf).expect("a readable subject").expect("a name");
    assert_eq!((user.name.as_str(), user.uid.as_deref()), ("ülrich", Some("u-1")));
    let assertion = names(&[]).assertion_of(&user).expect("headers");
    let lines: Vec<String> = assertion
        .iter()
        .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
        .collect();
    assert_eq!(lines[..3], ["x-remote-user: ülrich", "x-remote-group: a", "x-remote-uid: u-1"]);
    let (name, id) = lines[3].split_once(": ").expect("a header line");
    assert_eq!(name, "x-remote-extra-authentication.kubernetes.io%2fcredential-id");
    assert!(id.starts_with("X509SHA256=") && id.len() == "X509SHA256=".len() + 64, "{id}");
}

#[test]
fn a_subject_that_cannot_be_a_header_is_nobody() {
    let cluster = authority("kubernetes");
    let other = authority("front-proxy-ca");
    let leaf = client(&cluster, &[(DnType::CommonName, "alice\r\nX-Remote-Group: system:masters")]);
    let proved = of_certificate(&[leaf], &verifiers(&cluster, &other), &names(&[]), UnixTime::now());
    assert!(matches!(proved, ClientCertificate::Unverified), "{proved:?}");
}
