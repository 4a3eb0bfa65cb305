//! Clients of different standing never share what one of them could spoil for the others.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mvproxy_tests::client::{ClientOptions, Trust};
use mvproxy_tests::pki::Identity;
use mvproxy_tests::pki::forge::{Attribute, CN, Draft, Signer};
use mvproxy_tests::standin::RecordedRequest;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use support::{
    BOTH, Caller, Cluster, Http, Session, both_serve, bounded, only_new_serves, promptly, request,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

#[test]
fn trust_classes_never_share_an_upstream_connection() {
    bounded(async {
        let cluster = Cluster::start().await;
        let pki = &cluster.pki;
        cluster.old.standin.clear_requests();
        cluster.new.standin.clear_requests();
        let callers = [
            Caller::alice(pki),
            Caller::bob(pki),
            Caller::nobody(pki),
            Caller::nobody(pki).token("wrong"),
            Caller::front_proxy(pki).header("x-remote-user", "carol"),
            Caller::front_proxy(pki).token("bob-token"),
        ];
        for _ in 0..2 {
            for caller in &callers {
                for http in BOTH {
                    for target in [both_serve().path(), only_new_serves().path(), "/version".to_owned()] {
                        caller.get(cluster.old.proxy.address, http, &target).await;
                    }
                }
            }
        }
        for node in [&cluster.old, &cluster.new] {
            let mut classes: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
            for request in &node.standin.requests() {
                let class = class_of(request);
                assert_eq!(request.client_certificate, class == "asserted", "{request:?}");
                classes.entry(request.connection).or_default().insert(class);
            }
            let all: BTreeSet<&str> = classes.values().flatten().copied().collect();
            assert_eq!(all, BTreeSet::from(["anonymous", "asserted", "bearer"]));
            assert!(classes.values().all(|classes| classes.len() == 1), "{classes:?}");
        }
    });
}

/// A request carries an asserted user or a token, never both.
fn class_of(request: &RecordedRequest) -> &'static str {
    let asserted = request.headers.contains_key("x-remote-user");
    match (asserted, request.headers.contains_key("authorization")) {
        (true, false) => "asserted",
        (false, true) => "bearer",
        (false, false) => "anonymous",
        (true, true) => panic!("both: {request:?}"),
    }
}

/// API servers end an HTTP/2 connection on which somebody failed to authenticate, or was said to be nobody.
#[test]
fn who_fails_to_authenticate_breaks_nobody_elses_connection_request_or_watch() {
    bounded(async {
        let cluster = Cluster::start().await;
        let pki = &cluster.pki;
        let nobody = Caller::front_proxy(pki).header("x-remote-user", "system:anonymous");
        for (good, bad, refusal) in [
            (Caller::bob(pki), Caller::nobody(pki).token("wrong"), 401),
            (Caller::alice(pki), nobody.header("x-remote-group", "system:unauthenticated"), 403),
        ] {
            for api in [both_serve(), only_new_serves()] {
                let address = cluster.old.proxy.address;
                let mut session = good.connect(address, Http::Two).await;
                let watch = format!("{}?watch=true", api.path());
                let mut watch = session.open(request("GET", &watch)).await.unwrap();
                assert_eq!(watch.status(), 200);
                for round in 0..10 {
                    for http in BOTH {
                        assert_eq!(bad.get(address, http, &api.path()).await.status, refusal);
                        assert_eq!(session.get(&api.path()).await.status, 200, "round {round}");
                    }
                }
                assert!(!session.client.is_closed(), "the connection of {} lives on", good.label);
                assert_eq!(write(&mut session, &api, &format!("after-{refusal}")).await, 201);
                let event = promptly("an event", http_body_util::BodyExt::frame(&mut watch)).await;
                let event = event.expect("the watch goes on").unwrap().into_data().unwrap();
                assert!(String::from_utf8_lossy(&event).contains("after"));
            }
        }
    });
}

/// The bad client and the good one are at it at the same time.
#[test]
fn good_tokens_never_fail_while_bad_ones_are_tried() {
    bounded(async {
        let cluster = Cluster::start().await;
        let address = cluster.old.proxy.address;
        let (bob, bad) = (Caller::bob(&cluster.pki), Caller::nobody(&cluster.pki).token("wrong"));
        let path = both_serve().path();
        let attacking = async {
            loop {
                assert_eq!(bad.get(address, Http::Two, &path).await.status, 401);
            }
        };
        let working = async {
            let mut session = bob.connect(address, Http::Two).await;
            for number in 0..30 {
                let answer = session.get(&path).await;
                assert_eq!(answer.status, 200, "request {number}: {}", answer.text());
                let name = format!("busy-{number}");
                let written = write(&mut session, &both_serve(), &name).await;
                assert_eq!(written, 201, "write {number}");
            }
        };
        tokio::select! {
            () = attacking => {}
            () = working => {}
        }
    });
}

/// A resumed session brings no certificate on the wire; it must not bring another identity, or none.
#[test]
fn a_resumed_tls_session_is_the_same_client() {
    bounded(async {
        let cluster = Cluster::start().await;
        let alice = Caller::alice(&cluster.pki).options(cluster.old.proxy.address, Http::One);
        let connector = TlsConnector::from(Arc::new(tls_of(&alice)));
        let mut kinds = Vec::new();
        for number in 0..3 {
            let stream = TcpStream::connect(alice.address).await.unwrap();
            let name = ServerName::try_from("kubernetes").unwrap();
            let mut stream = connector.connect(name, stream).await.unwrap();
            let target = format!("{}?resumed={number}", both_serve().path());
            let head = format!("GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            promptly("the answer", stream.read_to_end(&mut answer)).await.unwrap();
            kinds.push(stream.get_ref().1.handshake_kind().unwrap());
            let user = cluster.old.only_request_for(&target).user.unwrap();
            assert_eq!(
                (user.name.as_str(), &user.groups[..2]),
                ("alice", &["dev".to_owned(), "ops".to_owned()][..])
            );
        }
        assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed]);
    });
}

/// Whoever holds the key is the client, whatever the version of TLS or of the certificate; nobody else is.
#[test]
fn a_certificate_counts_with_its_key_only() {
    const ALICE: Draft<'static> = Draft::of(&[&[Attribute::utf8(CN, "alice")]]);
    bounded(async {
        let cluster = Cluster::start().await;
        let forge = |version| cluster.pki.forge(Signer::Cluster, &Draft { version, ..ALICE }).unwrap();
        let options = Caller::nobody(&cluster.pki).options(cluster.old.proxy.address, Http::One);
        for (number, tls) in [&TLS12, &TLS13].into_iter().enumerate() {
            for version in [1, 3] {
                let (shown, other) = (forge(version), forge(3));
                for (has_key, key) in [(true, &shown.key_pem), (false, &other.key_pem)] {
                    let target = format!("{}?key={number}{version}{has_key}", both_serve().path());
                    let identity = Identity { cert_pem: shown.cert_pem.clone(), key_pem: key.clone() };
                    let answer = ask_with(&options, tls, &identity, &target).await;
                    let seen = cluster.old.requests_for(&target);
                    if has_key {
                        assert!(answer.unwrap().starts_with("HTTP/1.1 200 "), "{target}");
                        assert_eq!(seen[0].user.as_ref().unwrap().name, "alice");
                    } else {
                        assert!(answer.is_err() && seen.is_empty(), "{target}: {answer:?} {seen:?}");
                    }
                }
            }
        }
    });
}

/// One request over one version of TLS; the key need not be the certificate's.
async fn ask_with(
    options: &ClientOptions,
    version: &'static SupportedProtocolVersion,
    identity: &Identity,
    target: &str,
) -> std::io::Result<String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = vec![CertificateDer::from_pem_slice(identity.cert_pem.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).unwrap();
    let certified = CertifiedKey::new(chain, provider.key_provider.load_private_key(key).unwrap());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots_of(options))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    let stream = TcpStream::connect(options.address).await?;
    let name = ServerName::try_from("kubernetes").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
    let head = format!("GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    promptly("the answer", stream.read_to_end(&mut answer)).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// A configuration for several connections, which so share their TLS sessions.
fn tls_of(client: &ClientOptions) -> ClientConfig {
    let roots = roots_of(client);
    let identity = client.identity.as_ref().unwrap();
    let chain = vec![CertificateDer::from_pem_slice(identity.cert_pem.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    builder.with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap()
}

fn roots_of(client: &ClientOptions) -> RootCertStore {
    let Trust::Ca(pem) = &client.trust else { panic!("callers believe a CA") };
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    roots
}

async fn write(session: &mut Session, api: &support::Api, name: &str) -> u16 {
    session.json("POST", &api.path(), &api.object(name)).await.status.as_u16()
}
