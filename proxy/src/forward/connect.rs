//! Opens connections to API servers.

use std::future::{Future as _, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tracing::debug;

use super::lane::Lane;
use super::request::RequestBody;
use crate::accept::tune;
use crate::steering::LanePorts;
use crate::tls::cork::{CorkExecutor, cork};
use crate::tls::{APISERVER_NAME, TlsContext};
use crate::upstream::{Role, TrustClass, Upstream};

/// Time for TCP to connect; a peer that needs longer is passed over.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for the TLS handshake on top of that.
const TLS_TIMEOUT: Duration = Duration::from_secs(3);
/// HTTP/2 PINGs to peers: pause and patience. A dead one is noticed in 4 s, not in the 45 s of Go's defaults; a busy one
/// that stalls for less keeps its watches.
const PEER_PING: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3));
/// The local server shares this node's CPUs and may be slow to answer a PING; its death shows as a reset at once.
const LOCAL_PING: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(8));
/// Limit on response headers: what Go's clients take (`MaxResponseHeaderBytes`), kube-apiserver among them when it relays
/// what a pod answers. With a smaller one, h2 would end the connection, which others share, over one such answer.
const HEADER_LIST_LIMIT: u32 = 10 * 1024 * 1024;
/// What an upstream may send of one answer before its client reads it.
pub(super) const STREAM_WINDOW: u32 = 256 * 1024;
/// All streams of a connection can have a full window unread: clients that do not read must not stall those that do.
const CONNECTION_WINDOW: u32 = 100 * STREAM_WINDOW;

/// Why no connection came about. Nothing of any request was sent.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// TCP failed.
    #[error("cannot connect to {address}")]
    Tcp {
        /// Upstream.
        address: SocketAddr,
        /// Cause.
        source: io::Error,
    },
    /// TLS failed, most likely verification.
    #[error("TLS with {address} failed")]
    Tls {
        /// Upstream.
        address: SocketAddr,
        /// Cause.
        source: io::Error,
    },
    /// HTTP could not start.
    #[error("HTTP with {address} could not start")]
    Http {
        /// Upstream.
        address: SocketAddr,
        /// Cause.
        source: hyper::Error,
    },
    /// The connection that this request waited for failed.
    #[error(transparent)]
    Shared(Arc<ConnectError>),
    /// It took too long.
    #[error("{address} did not answer in time")]
    TimedOut {
        /// Upstream.
        address: SocketAddr,
    },
}

/// Opens connections with the right source address and credentials.
#[derive(Clone, Debug)]
pub struct Dialer {
    tls: Arc<ArcSwap<TlsContext>>,
    local_source: IpAddr,
    /// How peers are dialled.
    lane: Option<Arc<Lane>>,
}

/// A connection that can send requests.
#[derive(Debug)]
pub enum Connection {
    /// Many requests at once.
    Http2(Http2Sender),
    /// One request at a time.
    Http1(http1::SendRequest<RequestBody>),
}

/// The sending side of an HTTP/2 connection.
#[derive(Clone, Debug)]
pub struct Http2Sender {
    /// Sends requests.
    pub requests: http2::SendRequest<RequestBody>,
    /// Streams the server allows, from its latest SETTINGS.
    allowed: Arc<AtomicUsize>,
}

impl Http2Sender {
    /// Streams the server allows at once.
    pub fn allowed_streams(&self) -> usize {
        self.allowed.load(Relaxed)
    }
}

impl Dialer {
    /// A dialer whose connections to the local API server come from `local_source`, which is never steered.
    pub fn new(tls: Arc<ArcSwap<TlsContext>>, local_source: IpAddr) -> Self {
        Self { tls, local_source, lane: None }
    }

    /// Has connections to peers come from these ports.
    #[must_use]
    pub fn with_lane(self, ports: Option<LanePorts>) -> Self {
        Self { lane: ports.map(Lane::new).map(Arc::new), ..self }
    }

    /// Counts the changes of the credentials that connections are opened with.
    pub fn upstream_generation(&self) -> u64 {
        self.tls.load().upstream_generation
    }

    /// Opens a connection for ordinary requests.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(&self, upstream: &Upstream, class: TrustClass) -> Result<Connection, ConnectError> {
        let config = self.tls.load().upstreams.for_requests(upstream.role, class);
        let io = self.connect_tls(upstream, config).await?;
        if io.get_ref().1.alpn_protocol() == Some(b"h2") {
            start_http2(io, upstream).await
        } else {
            start_http1(io, upstream, false).await.map(Connection::Http1)
        }
    }

    /// Opens an HTTP/1.1 connection that can be upgraded.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect_for_upgrade(
        &self,
        upstream: &Upstream,
        class: TrustClass,
    ) -> Result<http1::SendRequest<RequestBody>, ConnectError> {
        let config = self.tls.load().upstreams.for_upgrades(upstream.role, class);
        start_http1(self.connect_tls(upstream, config).await?, upstream, true).await
    }

    /// The certificate that an API server shows; it is verified as for any request.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn certificate_of(
        &self,
        upstream: &Upstream,
        class: TrustClass,
    ) -> Result<Option<CertificateDer<'static>>, ConnectError> {
        let config = self.tls.load().upstreams.for_requests(upstream.role, class);
        let io = self.connect_tls(upstream, config).await?;
        let shown = io.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        Ok(shown.map(|leaf| leaf.clone().into_owned()))
    }

    /// Opens a bare TCP connection.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect_tcp(&self, upstream: &Upstream) -> Result<TcpStream, ConnectError> {
        let address = upstream.address;
        let connect = async {
            if let (Role::Peer, Some(lane)) = (upstream.role, &self.lane) {
                let io = lane.connect(address).await?;
                tune(&io)?;
                return Ok(io);
            }
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            if upstream.role == Role::Local && address.is_ipv4() == self.local_source.is_ipv4() {
                socket.bind(SocketAddr::new(self.local_source, 0))?;
            }
            let io = socket.connect(address).await?;
            tune(&io)?;
            Ok(io)
        };
        match timeout(CONNECT_TIMEOUT, connect).await {
            Ok(connected) => connected.map_err(|source| ConnectError::Tcp { address, source }),
            Err(_) => Err(ConnectError::TimedOut { address }),
        }
    }

    async fn connect_tls(
        &self,
        upstream: &Upstream,
        config: Arc<ClientConfig>,
    ) -> Result<TlsStream<TcpStream>, ConnectError> {
        let address = upstream.address;
        let io = self.connect_tcp(upstream).await?;
        let name = ServerName::try_from(APISERVER_NAME).expect("the constant is a DNS name");
        match timeout(TLS_TIMEOUT, TlsConnector::from(config).connect(name, io)).await {
            Ok(connected) => connected.map_err(|source| ConnectError::Tls { address, source }),
            Err(_) => Err(ConnectError::TimedOut { address }),
        }
    }
}

async fn start_http2(io: TlsStream<TcpStream>, upstream: &Upstream) -> Result<Connection, ConnectError> {
    let address = upstream.address;
    let (interval, patience) = match upstream.role {
        Role::Local => LOCAL_PING,
        Role::Peer => PEER_PING,
    };
    let (io, cork) = cork(io);
    let (sender, connection) = http2::Builder::new(CorkExecutor::new(cork))
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEADER_LIST_LIMIT)
        .keep_alive_interval(interval)
        .keep_alive_timeout(patience)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(io))
        .await
        .map_err(|source| ConnectError::Http { address, source })?;
    let allowed = Arc::new(AtomicUsize::new(connection.current_max_send_streams()));
    let learned = Arc::clone(&allowed);
    tokio::spawn(async move {
        let mut connection = pin!(connection);
        let ended = poll_fn(|cx| {
            let polled = connection.as_mut().poll(cx);
            if polled.is_pending() {
                learned.store(connection.current_max_send_streams(), Relaxed);
            }
            polled
        });
        if let Err(error) = ended.await {
            debug!(%address, %error, "HTTP/2 connection to upstream ended");
        }
    });
    Ok(Connection::Http2(Http2Sender { requests: sender, allowed }))
}

async fn start_http1(
    io: TlsStream<TcpStream>,
    upstream: &Upstream,
    upgradable: bool,
) -> Result<http1::SendRequest<RequestBody>, ConnectError> {
    let address = upstream.address;
    let (sender, connection) = http1::Builder::new()
        .max_headers(MAX_HEADERS)
        .max_buf_size(HEADER_LIST_LIMIT as usize)
        .handshake(TokioIo::new(io))
        .await
        .map_err(|source| ConnectError::Http { address, source })?;
    tokio::spawn(async move {
        let ended = if upgradable { connection.with_upgrades().await } else { connection.await };
        if let Err(error) = ended {
            debug!(%address, %error, "HTTP/1.1 connection to upstream ended");
        }
    });
    Ok(sender)
}

/// Go has no limit on the number of headers, only on their size; hyper's default is 100.
pub(crate) const MAX_HEADERS: usize = 1024;
