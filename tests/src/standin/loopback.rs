//! Connects to the server's own port as kube-apiserver's loopback client does, and notices when somebody else answers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};
use rustls_pki_types::CertificateDer;
use tokio::time::timeout;

use super::server::Shared;
use super::tls::LOOPBACK_SERVER_NAME;
use crate::client::{Client, ClientOptions, Trust};

const INTERVAL: Duration = Duration::from_secs(1);
/// Longer than a steering proxy needs to be found hung.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The private credentials of the loopback client and how it fared.
pub(super) struct Loopback {
    token: String,
    certificate: CertificateDer<'static>,
    broken: AtomicBool,
    failures: AtomicU64,
    successes: AtomicU64,
}

impl Loopback {
    pub(super) fn new(token: String, certificate: CertificateDer<'static>) -> Self {
        let counter = || AtomicU64::new(0);
        Self { token, certificate, broken: AtomicBool::new(false), failures: counter(), successes: counter() }
    }

    /// Whether the newest connection failed.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    pub(super) fn successes(&self) -> u64 {
        self.successes.load(Ordering::Relaxed)
    }

    /// Whether a request carries the private token.
    pub(super) fn is_own(&self, headers: &HeaderMap) -> bool {
        headers.get(AUTHORIZATION).is_some_and(|value| value.as_bytes() == self.authorization().as_bytes())
    }

    fn authorization(&self) -> String {
        format!("Bearer {}", self.token)
    }

    /// One connection to `address` and one request on it.
    async fn check(&self, address: SocketAddr) -> Result<()> {
        let options = ClientOptions {
            server_name: LOOPBACK_SERVER_NAME.to_owned(),
            ..ClientOptions::new(address, Trust::Exactly(self.certificate.clone()))
        };
        let mut client = Client::connect(&options).await?;
        let request = http::Request::get("/healthz").header(AUTHORIZATION, self.authorization());
        let answer = client.fetch(request.body(bytes::Bytes::new())?).await?;
        ensure!(answer.status == StatusCode::OK, "answered {}", answer.status);
        Ok(())
    }

    /// Checks once and takes note.
    pub(super) async fn observe(&self, address: SocketAddr) {
        let failure = match timeout(TIMEOUT, self.check(address)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("{error:#}")),
            Err(_) => Some("no answer in time".to_owned()),
        };
        self.broken.store(failure.is_some(), Ordering::Relaxed);
        match failure {
            None => {
                self.successes.fetch_add(1, Ordering::Relaxed);
            }
            Some(failure) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%address, failure, "the loopback client cannot reach its own server");
            }
        }
    }
}

/// Checks every second, for ever. While connections are refused on purpose nothing is checked.
pub(super) async fn run(shared: Arc<Shared>, address: SocketAddr) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        if !shared.faults.is_refusing() {
            shared.loopback.observe(address).await;
        }
    }
}

/// Where the loopback client dials a server bound to `bound`: there, or loopback when it is bound everywhere.
pub(super) fn address(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, bound.port())
}
