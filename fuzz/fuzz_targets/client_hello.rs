//! Sends any first bytes over a real connection, and expects that what is passed on is what was sent.
//!
//! Input: one byte that says where the bytes are split in two; where it is odd the bytes follow, else changes to a valid
//! ClientHello with kube-apiserver's own name.
#![no_main]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use mvproxy::accept::Accepted;
use mvproxy::limits::TimeLimits;
use mvproxy::tls::handshake::{Handshake, SpliceReason, handshake};
use mvproxy::tls::{LOOPBACK_CLIENT_NAME, TlsContext};
use mvproxy_tests::pki::Pki;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

mod context;
mod patched;

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

static CONTEXT: LazyLock<TlsContext> = LazyLock::new(|| context::of(&Pki::generate().expect("certificates")));

static RUNTIME: LazyLock<(Runtime, TcpListener)> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let listener = runtime.block_on(TcpListener::bind(LOOPBACK)).expect("a listener");
    (runtime, listener)
});

static HELLO: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS 1.2 and 1.3")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = LOOPBACK_CLIENT_NAME.try_into().expect("a server name");
    let mut hello = Vec::new();
    let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
    client.write_tls(&mut hello).expect("a vector takes everything");
    hello
});

/// What becomes of a connection on which `data` is sent, at once or in two parts, and then nothing.
async fn after(data: &[u8], at: usize) -> Option<Handshake> {
    let (_, listener) = &*RUNTIME;
    let address = listener.local_addr().expect("an address");
    let mut client = TcpStream::connect(address).await.expect("a connection");
    let (io, from) = listener.accept().await.expect("a connection");
    // Thousands of connections a second would use up the ports if they ended in TIME_WAIT.
    client.set_zero_linger().expect("a socket option");
    io.set_zero_linger().expect("a socket option");
    let send = async {
        client.write_all(&data[..at]).await?;
        tokio::task::yield_now().await;
        client.write_all(&data[at..]).await?;
        client.shutdown().await
    };
    let accepted = Accepted { io, client: from, dialled: address };
    let receive = handshake(accepted, &CONTEXT, TimeLimits::default().handshake);
    // The proxy may hang up on what is no handshake while the rest is being sent.
    let (_, received) = tokio::join!(send, receive);
    received.ok()
}

fuzz_target!(|data: &[u8]| {
    let Some((at, data)) = data.split_first() else { return };
    let data = if at % 2 == 1 { data.to_vec() } else { patched::patched(&HELLO, data) };
    match RUNTIME.0.block_on(after(&data, usize::from(*at).min(data.len()))) {
        Some(Handshake::Splice { head, reason, .. }) => {
            assert!(data.starts_with(&head), "what was read is passed on as it came");
            assert!(reason == SpliceReason::LoopbackClient || !head.is_empty());
        }
        Some(Handshake::Closed) => assert!(data.is_empty()),
        Some(Handshake::Terminated(_)) => panic!("the handshake was never answered"),
        None => {}
    }
});
