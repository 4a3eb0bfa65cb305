//! Reads a client's first bytes and either terminates its TLS or leaves the connection to the API server.

use std::io::{self, Cursor};
use std::time::Duration;

use rustls::server::{Acceptor, ClientHello};
use rustls_pki_types::CertificateDer;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::StartHandshake;
use tokio_rustls::server::TlsStream;

use super::{HTTP_2, LOOPBACK_CLIENT_NAME, TlsContext};
use crate::accept::Accepted;

/// A ClientHello larger than this is not one (RFC 8446: 2^16 in a handshake message, far less in practice).
const HELLO_LIMIT: usize = 64 * 1024;

/// What becomes of a connection.
#[derive(Debug)]
pub enum Handshake {
    /// TLS ended here.
    Terminated(Box<Session>),
    /// The API server itself must see these bytes and all that follow.
    Splice {
        /// The connection.
        io: TcpStream,
        /// Bytes already read from it.
        head: Vec<u8>,
        /// Why.
        reason: SpliceReason,
    },
    /// The client left without a word, as TCP health checks do.
    Closed,
}

/// Why a connection is passed on unterminated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpliceReason {
    /// kube-apiserver talks to itself, with a certificate only it can present.
    LoopbackClient,
    /// The first bytes are not a TLS ClientHello.
    NotTls,
}

/// A terminated TLS connection.
#[derive(Debug)]
pub struct Session {
    /// The connection.
    pub io: TlsStream<TcpStream>,
    /// Whether the client speaks HTTP/2.
    pub http2: bool,
    /// The client's certificate chain, not yet judged.
    pub certificates: Option<Vec<CertificateDer<'static>>>,
}

/// Why a handshake came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The client was too slow.
    #[error("no complete TLS handshake within {limit:?}")]
    TimedOut {
        /// Time it had.
        limit: Duration,
    },
    /// The connection broke or the client and the proxy could not agree.
    #[error("the TLS handshake failed")]
    Failed(#[from] io::Error),
}

/// Reads the ClientHello and completes the handshake, unless the API server has to do that itself. `limit` is for all of
/// it, the wait for the first byte included.
///
/// # Errors
/// When the client is too slow, leaves, or breaks the protocol after a valid ClientHello.
pub async fn handshake(
    accepted: Accepted,
    context: &TlsContext,
    limit: Duration,
) -> Result<Handshake, HandshakeError> {
    // Whoever else uses that name is an ordinary client, and must not reach the API server from the exempt address.
    let is_local = accepted.is_from_this_node();
    let dialled = accepted.dialled.ip();
    let complete = async {
        let mut io = accepted.io;
        let (hello, head) = match read_client_hello(&mut io).await? {
            Hello::Tls(hello, head) => (hello, head),
            Hello::NotTls(head) => return Ok(Handshake::Splice { io, head, reason: SpliceReason::NotTls }),
            Hello::Closed => return Ok(Handshake::Closed),
        };
        if is_local && is_loopback_client(&hello.client_hello()) {
            return Ok(Handshake::Splice { io, head, reason: SpliceReason::LoopbackClient });
        }
        drop(head);
        let config = context.server.choose(&hello.client_hello(), dialled);
        let io = StartHandshake::from_parts(*hello, io).into_stream(config).await?;
        let (_, connection) = io.get_ref();
        Ok(Handshake::Terminated(Box::new(Session {
            http2: connection.alpn_protocol() == Some(HTTP_2),
            certificates: connection
                .peer_certificates()
                .map(|chain| chain.iter().map(|certificate| certificate.clone().into_owned()).collect()),
            io,
        })))
    };
    timeout(limit, complete).await.map_err(|_| HandshakeError::TimedOut { limit })?
}

enum Hello {
    Tls(Box<rustls::server::Accepted>, Vec<u8>),
    NotTls(Vec<u8>),
    Closed,
}

/// Keeps every byte it reads, so that a connection can still be handed on untouched.
async fn read_client_hello(io: &mut TcpStream) -> io::Result<Hello> {
    let mut acceptor = Acceptor::default();
    let mut head = Vec::with_capacity(2048);
    loop {
        let seen = head.len();
        if io.read_buf(&mut head).await? == 0 {
            return Ok(if head.is_empty() { Hello::Closed } else { Hello::NotTls(head) });
        }
        let mut fresh = Cursor::new(&head[seen..]);
        while fresh.position() < fresh.get_ref().len() as u64 {
            if acceptor.read_tls(&mut fresh).is_err() {
                return Ok(Hello::NotTls(head));
            }
        }
        match acceptor.accept() {
            Ok(Some(hello)) => return Ok(Hello::Tls(Box::new(hello), head)),
            Ok(None) if head.len() < HELLO_LIMIT => {}
            Ok(None) | Err(_) => return Ok(Hello::NotTls(head)),
        }
    }
}

fn is_loopback_client(hello: &ClientHello<'_>) -> bool {
    hello.server_name() == Some(LOOPBACK_CLIENT_NAME)
}
