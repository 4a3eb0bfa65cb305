//! Accepts connections, speaks TLS and HTTP on them, and ends them in the way kube-apiserver does.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::CertificateDer;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::auth::{Authenticator, StaticToken};
use super::documents::Documents;
use super::faults::Faults;
use super::handle;
use super::loopback::Loopback;
use super::recorder::Recorder;
use super::tls::LOOPBACK_SERVER_NAME;
use super::turn_away::{turn_away, wait_for_the_end};
use crate::store::Store;

/// Streams per HTTP/2 connection, kube-apiserver's `--http2-max-streams-per-connection` as kubeadm leaves it.
pub const MAX_STREAMS: u32 = 100;
/// Size of a request's header list, Go's `DefaultMaxHeaderBytes`.
pub const MAX_HEADER_BYTES: u32 = 1 << 20;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// What all connections of one stand-in share.
pub(super) struct Shared {
    /// Own address as clients dial it, `host:port`.
    pub(super) address: String,
    pub(super) documents: RwLock<Arc<Documents>>,
    pub(super) store: Store,
    pub(super) authenticator: RwLock<Arc<Authenticator>>,
    /// What an authenticator needs beside its CAs.
    pub(super) tokens: (Vec<StaticToken>, String),
    pub(super) recorder: Recorder,
    pub(super) faults: Arc<Faults>,
    pub(super) loopback: Loopback,
    pub(super) bookmark_interval: Duration,
    pub(super) answer_delay: Duration,
    pub(super) close_unauthenticated_http1: bool,
    pub(super) priority_ids: [String; 2],
    pub(super) connections: AtomicU64,
    /// /readyz turns red.
    pub(super) stopping: AtomicBool,
    /// Replaced when all open connections are reset.
    pub(super) open: Mutex<OpenConnections>,
    /// No new connections, watches end, others finish.
    pub(super) draining: CancellationToken,
    /// Everything ends at once.
    pub(super) killed: CancellationToken,
}

impl Shared {
    pub(super) fn documents(&self) -> Arc<Documents> {
        self.documents.read().expect("no holder of this lock panics").clone()
    }

    pub(super) fn authenticator(&self) -> Arc<Authenticator> {
        self.authenticator.read().expect("no holder of this lock panics").clone()
    }

    fn open(&self) -> OpenConnections {
        self.open.lock().expect("no holder of this lock panics").clone()
    }
}

/// The connections that are open at one moment.
#[derive(Clone, Default)]
pub(super) struct OpenConnections {
    reset: CancellationToken,
    connections: TaskTracker,
}

impl OpenConnections {
    /// Resets them all and waits until that is done.
    pub(super) async fn reset(self) {
        self.reset.cancel();
        self.connections.close();
        self.connections.wait().await;
    }
}

/// One TLS connection.
pub(super) struct Connection {
    pub(super) id: u64,
    /// The client's certificates, judged with every request.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// Asks for a GOAWAY (HTTP/2) or a close (HTTP/1.1) after the requests under way.
    pub(super) close: Notify,
}

/// Serves until drained; dropping the future cuts every connection.
pub(super) async fn run(shared: Arc<Shared>, listener: TcpListener, acceptor: TlsAcceptor) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shared.draining.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(serve_connection(shared.clone(), stream, peer, acceptor.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    // Out of descriptors, most likely; without a pause this loop would spin.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    drop(listener);
    let drained = timeout(DRAIN_TIMEOUT, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::info!(connections = connections.len(), "cutting connections that did not finish in time");
    }
}

async fn serve_connection(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr, acceptor: TlsAcceptor) {
    if shared.faults.refuses_connection() {
        // A linger time of zero turns the close into a reset.
        if let Err(error) = SockRef::from(&stream).set_linger(Some(Duration::ZERO)) {
            tracing::warn!(%error, "cannot reset a connection");
        }
        return;
    }
    let ended = match timeout(HANDSHAKE_TIMEOUT, accept_tls(stream, &acceptor)).await {
        Ok(Ok(stream)) => serve_until_reset(shared, stream).await,
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err("TLS handshake timeout".into()),
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended with an error");
    }
}

async fn accept_tls(stream: TcpStream, acceptor: &TlsAcceptor) -> io::Result<TlsStream<TcpStream>> {
    stream.set_nodelay(true)?;
    acceptor.accept(stream).await
}

type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

async fn serve_until_reset(shared: Arc<Shared>, mut stream: TlsStream<TcpStream>) -> Ended {
    if stream.get_ref().1.server_name() == Some(LOOPBACK_SERVER_NAME) {
        // What is done to clients does not make the server itself unready.
        return serve_http(shared, stream).await;
    }
    let open = shared.open();
    let _until_closed = open.connections.token();
    let socket = SockRef::from(stream.get_ref().0).try_clone()?;
    let served = async {
        if shared.faults.turns_away() && stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            shared.faults.has_turned_away(turn_away(&mut stream).await?);
            return Ok(wait_for_the_end(&mut stream).await?);
        }
        serve_http(shared, stream).await
    };
    tokio::select! {
        ended = served => ended,
        () = open.reset.cancelled() => Ok(socket.set_linger(Some(Duration::ZERO))?),
    }
}

async fn serve_http(shared: Arc<Shared>, stream: TlsStream<TcpStream>) -> Ended {
    let session = stream.get_ref().1;
    let is_http2 = session.alpn_protocol() == Some(b"h2");
    let chain = session.peer_certificates().unwrap_or_default();
    let connection = Arc::new(Connection {
        id: shared.connections.fetch_add(1, Ordering::Relaxed) + 1,
        chain: chain.iter().map(|certificate| certificate.clone().into_owned()).collect(),
        close: Notify::new(),
    });
    let draining = shared.draining.clone();
    let service = {
        let connection = connection.clone();
        service_fn(move |request| handle::handle(shared.clone(), connection.clone(), request))
    };
    let io = TokioIo::new(stream);
    // Both arms are one loop over two types: serve, and once asked to close, say goodbye and finish.
    macro_rules! serve {
        ($http:expr) => {{
            let mut http = pin!($http);
            tokio::select! {
                ended = http.as_mut() => return Ok(ended?),
                () = connection.close.notified() => {}
                () = draining.cancelled() => {}
            }
            http.as_mut().graceful_shutdown();
            Ok(http.await?)
        }};
    }
    if is_http2 {
        serve!(http2_builder().serve_connection(io, service))
    } else {
        serve!(http1_builder().serve_connection(io, service).with_upgrades())
    }
}

fn http2_builder() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(256 * 1024 * MAX_STREAMS);
    builder
}

fn http1_builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).max_headers(1_000).max_buf_size(MAX_HEADER_BYTES as usize + 64 * 1024);
    builder
}
