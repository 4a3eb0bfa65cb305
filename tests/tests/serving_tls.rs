//! What clients see of TLS is what kube-apiserver's `--tls-*` flags say: certificates by name, versions, ciphers.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use mvproxy_tests::client::{Client, ClientOptions, Trust};
use mvproxy_tests::pki::{Identity, Pki};
use mvproxy_tests::standin::Documents;
use mvproxy_tests::store::Store;
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use support::{Proxy, ProxyOptions, bounded, standin};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The default certificate and those for names, as `--tls-sni-cert-key` has them.
#[test]
fn clients_are_shown_the_certificate_for_the_name_they_ask_for() {
    bounded(async {
        let (pki, files) = (Pki::generate().unwrap(), tempfile::tempdir().unwrap());
        let issue = |name: &str| {
            let identity = pki.serving(&format!("{name}.example.net"), "127.0.0.1".parse().unwrap()).unwrap();
            write(files.path(), name, &identity);
            identity
        };
        // The third one is given without names, so that it counts for those in it, `localhost` among them.
        let [given, wild, written, late] = ["given", "wild", "written", "late"].map(issue);
        let flags = [
            ("given", ":given.example.net,10.0.0.7,Upper.example.net"),
            ("wild", ":*.wild.example.net,127.0.0.1"),
            ("written", ""),
            ("late", ":given.example.net,late.example.net"),
        ]
        .map(|(name, names)| {
            let path = |kind| files.path().join(format!("{name}.{kind}")).display().to_string();
            format!("--tls-sni-cert-key={},{}{names}", path("crt"), path("key"))
        });
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let (proxy, default) = start(&pki, &flags).await;
        for (name, expected) in [
            ("kubernetes", &written),
            ("localhost", &written),
            ("written.example.net", &written),
            ("given.example.net", &given),
            ("GIVEN.example.net", &given),
            ("upper.example.net", &given),
            ("late.example.net", &late),
            ("a.wild.example.net", &wild),
            ("a.b.wild.example.net", &default),
            ("wild.example.net", &default),
            ("nobody.example.net", &default),
            // An address is never asked for by name: what counts is the one that was dialled, 127.0.0.1.
            ("127.0.0.1", &wild),
            ("10.0.0.7", &wild),
        ] {
            for http2 in [false, true] {
                let shown = shows(proxy.address, name, expected, http2).await;
                assert!(shown.is_ok(), "{name}: {:#}", shown.unwrap_err());
            }
            for other in [&default, &given, &wild, &written, &late] {
                let is_expected = other.cert_pem == expected.cert_pem;
                assert_eq!(shows(proxy.address, name, other, true).await.is_ok(), is_expected, "{name}");
            }
        }
    });
}

#[test]
fn versions_and_ciphers_are_those_of_the_flags() {
    bounded(async {
        let pki = Pki::generate().unwrap();
        let aes_256 = CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384;
        for (flags, over_1_2, over_1_3) in [
            (&[][..], true, true),
            (&["--tls-min-version=VersionTLS12"], true, true),
            (&["--tls-min-version=VersionTLS13"], false, true),
            (&["--tls-cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"], true, true),
            // Suites that rustls lacks, and one for RSA keys, which this server does not have.
            (&["--tls-cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA"], false, true),
            (&["--tls-cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"], false, true),
        ] {
            let (proxy, _) = start(&pki, flags).await;
            for (version, expected) in [(&TLS12, over_1_2), (&TLS13, over_1_3)] {
                let agreed = agree(&pki, proxy.address, version).await;
                assert_eq!(agreed.is_ok(), expected, "{flags:?} over {:?}: {agreed:?}", version.version);
                if let (Ok((ProtocolVersion::TLSv1_2, suite)), true) = (agreed, flags.len() == 1)
                    && flags[0].contains("AES_256")
                {
                    assert_eq!(suite, aes_256);
                }
            }
        }
    });
}

async fn start(pki: &Pki, flags: &[&str]) -> (Proxy, Identity) {
    let (local, serving) =
        standin(pki, &Store::in_memory(), "local", Documents::load("v1.36").unwrap()).await;
    let options = ProxyOptions { pki, serving: &serving, local: local.addr, peers: &[], flags };
    (Proxy::start(&options), serving)
}

fn write(folder: &Path, name: &str, identity: &Identity) {
    std::fs::write(folder.join(format!("{name}.crt")), &identity.cert_pem).unwrap();
    std::fs::write(folder.join(format!("{name}.key")), &identity.key_pem).unwrap();
}

/// Whether a client that asks for `name` is shown this very certificate.
async fn shows(address: SocketAddr, name: &str, expected: &Identity, http2: bool) -> anyhow::Result<()> {
    let leaf = CertificateDer::from_pem_slice(expected.cert_pem.as_bytes()).unwrap();
    let options = ClientOptions {
        server_name: name.to_owned(),
        http2,
        ..ClientOptions::new(address, Trust::Exactly(leaf))
    };
    Client::connect(&options).await.map(drop)
}

/// What a client of one TLS version and the proxy agree on.
async fn agree(
    pki: &Pki,
    address: SocketAddr,
    version: &'static SupportedProtocolVersion,
) -> std::io::Result<(ProtocolVersion, CipherSuite)> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pki.ca_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    let config = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
    let name = ServerName::try_from("kubernetes").unwrap();
    let stream = TlsConnector::from(config).connect(name, TcpStream::connect(address).await?).await?;
    let session = stream.get_ref().1;
    Ok((session.protocol_version().unwrap(), session.negotiated_cipher_suite().unwrap().suite()))
}
