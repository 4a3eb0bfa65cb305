//! Connections that only the API server can answer reach it untouched.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use mvproxy_tests::pki::Pki;
use mvproxy_tests::standin::LOOPBACK_SERVER_NAME;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use support::{BOTH, Caller, Cluster, Http, Proxy, ProxyOptions, bounded, promptly};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

/// Believes every certificate and remembers it.
#[derive(Debug, Default)]
struct Curious(Mutex<Option<CertificateDer<'static>>>);

impl ServerCertVerifier for Curious {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.0.lock().unwrap() = Some(leaf.clone().into_owned());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Writes a few bytes at a time, each in a segment of its own, as a slow path or a hostile client does.
struct Dribbling(TcpStream);

impl AsyncWrite for Dribbling {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let part = bytes.len().min(7);
        Pin::new(&mut self.0).poll_write(cx, &bytes[..part])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl AsyncRead for Dribbling {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

/// The certificate that is shown for `name`, and the answer to a request on that connection.
async fn shown(address: std::net::SocketAddr, name: &str) -> (CertificateDer<'static>, String) {
    let curious = Arc::new(Curious::default());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.dangerous().with_custom_certificate_verifier(curious.clone()).with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, Dribbling(stream));
    let mut stream = promptly("a TLS handshake", connecting).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    // A server need not say goodbye in TLS.
    let _ = promptly("the answer", stream.read_to_string(&mut answer)).await;
    let certificate = curious.0.lock().unwrap().take();
    (certificate.expect("a handshake shows a certificate"), answer)
}

#[test]
fn the_api_servers_own_loopback_client_reaches_the_api_server_itself() {
    bounded(async {
        let cluster = Cluster::start().await;
        let (standin, proxy) = (cluster.old.standin.addr, cluster.old.proxy.address);
        let (own, _) = shown(standin, LOOPBACK_SERVER_NAME).await;
        let (serving, _) = shown(standin, "kubernetes").await;
        assert_ne!(own, serving);
        let before = cluster.old.standin.connections();
        let (through, answer) = shown(proxy, LOOPBACK_SERVER_NAME).await;
        assert_eq!(through, own, "nobody but the API server can show this certificate");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(cluster.old.standin.connections() > before);
        for name in ["kubernetes", "kubernetes.default.svc", "anything.example.com", "127.0.0.1"] {
            let (terminated, answer) = shown(proxy, name).await;
            assert_eq!(terminated, serving, "{name}");
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
    });
}

/// A proxy before a local server that is no more than a TCP socket.
async fn before_a_socket() -> (Proxy, TcpListener) {
    let pki = Pki::generate().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let local = listener.local_addr().unwrap();
    let serving = pki.serving("lone", [127, 0, 0, 1].into()).unwrap();
    let rarely = ["--discovery-interval=1h"];
    let proxy =
        Proxy::start(&ProxyOptions { pki: &pki, serving: &serving, local, peers: &[], flags: &rarely });
    (proxy, listener)
}

/// The next connection whose first bytes are not the proxy's own TLS.
async fn next_plain(listener: &TcpListener) -> (TcpStream, Vec<u8>) {
    loop {
        let (mut server, _) = promptly("a connection", listener.accept()).await.unwrap();
        let mut first = vec![0; 1];
        server.read_exact(&mut first).await.unwrap();
        if first != [0x16] {
            return (server, first);
        }
    }
}

#[test]
fn bytes_that_are_no_tls_reach_the_api_server_and_its_answer_comes_back() {
    bounded(async {
        let (proxy, listener) = before_a_socket().await;
        for bytes in [
            &b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"[..],
            b"\x80\x2e\x01\x03\x01",
            b"\0",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ] {
            let mut client = TcpStream::connect(proxy.address).await.unwrap();
            client.write_all(bytes).await.unwrap();
            client.shutdown().await.unwrap();
            let (mut server, mut got) = next_plain(&listener).await;
            promptly("the half-close", server.read_to_end(&mut got)).await.unwrap();
            assert_eq!(got, bytes);
            server.write_all(b"answer after the half-close").await.unwrap();
            drop(server);
            let mut answer = Vec::new();
            promptly("the answer", client.read_to_end(&mut answer)).await.unwrap();
            assert_eq!(answer, b"answer after the half-close");
        }
    });
}

#[test]
fn plain_http_is_answered_as_straight() {
    bounded(async {
        let cluster = Cluster::start().await;
        let mut answers = Vec::new();
        for address in [cluster.old.standin.addr, cluster.old.proxy.address] {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
            let mut answer = Vec::new();
            promptly("the answer", client.read_to_end(&mut answer)).await.unwrap();
            answers.push(answer);
        }
        assert_eq!(answers[0], answers[1]);
        assert!(!answers[0].is_empty());
    });
}

#[test]
fn connections_that_say_nothing_do_no_harm() {
    bounded(async {
        let cluster = Cluster::start().await;
        let alice = Caller::alice(&cluster.pki);
        let mut idle = Vec::new();
        for address in &cluster.old.proxy.addresses {
            for _ in 0..100 {
                drop(TcpStream::connect(address).await.unwrap());
                idle.push(TcpStream::connect(address).await.unwrap());
            }
            // Half a ClientHello, and then nothing.
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await.unwrap();
            idle.push(stream);
        }
        for address in &cluster.old.proxy.addresses {
            for http in BOTH {
                assert_eq!(alice.get(*address, http, "/version").await.status, 200);
            }
        }
        assert_eq!(alice.get(cluster.old.standin.addr, Http::One, "/version").await.status, 200);
    });
}
