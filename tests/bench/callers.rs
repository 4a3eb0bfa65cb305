//! Opens HTTP/2 connections as a client with a token.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::Request;
use http::header::AUTHORIZATION;
use http_body_util::Empty;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Target;

/// Opens connections, all with the same memory of sessions.
#[derive(Clone)]
pub(crate) struct Caller {
    address: SocketAddr,
    connector: TlsConnector,
}

/// A connection, and whether its handshake was a resumption.
pub(crate) type Opened = (SendRequest<Empty<Bytes>>, bool);

impl Caller {
    /// A caller that resumes sessions or does not.
    pub(crate) fn new(target: &Target, resumes: bool) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&target.ca)? {
            roots.add(certificate?)?;
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption =
            if resumes { Resumption::in_memory_sessions(1024) } else { Resumption::disabled() };
        Ok(Self { address: target.address, connector: TlsConnector::from(Arc::new(config)) })
    }

    /// Opens a connection.
    pub(crate) async fn open(&self) -> Result<Opened> {
        let io = TcpStream::connect(self.address).await?;
        io.set_nodelay(true)?;
        let io = self.connector.connect(ServerName::try_from("kubernetes")?, io).await?;
        let resumed = io.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        let (sender, connection) = Builder::new(TokioExecutor::new()).handshake(TokioIo::new(io)).await?;
        tokio::spawn(connection);
        Ok((sender, resumed))
    }
}

/// A request with a token.
pub(crate) fn get(path: &str) -> Result<Request<Empty<Bytes>>> {
    let uri = format!("https://kubernetes{path}");
    Request::get(uri).header(AUTHORIZATION, "Bearer bob-token").body(Empty::new()).context("a request")
}
