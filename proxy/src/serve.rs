//! Serves: accept → tls → identity → classify → route → forward → account.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use ipnet::IpNet;
use tokio::sync::Notify;
use tokio::sync::watch::Receiver;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::accept::Accepted;
use crate::account::{Accounts, RequestRecord};
use crate::causes::chain;
use crate::classify::{self, RequestInfo, classify};
use crate::discovery::openapi::OpenApi;
use crate::discovery::{Snapshot, accept};
use crate::error::RequestError;
use crate::forward::connect::MAX_HEADERS;
use crate::forward::headers::{PEER_PROXIED, remove_hop_by_hop};
use crate::forward::{self, Budget, ForwardError, Outbound, Pool, ResponseBody};
use crate::identity::{IdentityHeaders, Judged, identify};
use crate::limits::Sources;
use crate::metrics::Metrics;
use crate::readiness::{Readiness, asks_for_list};
use crate::route::{Marks, Route, is_about_this_server, route};
use crate::status::Encoding;
use crate::tls::TlsContext;
use crate::tls::handshake::{Handshake, Session, handshake};
use crate::upstream::Upstream;
use crate::vitals::Vitals;

mod deliver;
mod discover;
mod watch;

use deliver::deliver;
use watch::Watch;

/// What all workers share and only read.
#[derive(Debug)]
pub struct Shared {
    /// Replaced as a whole when certificates change.
    pub tls: Arc<ArcSwap<TlsContext>>,
    /// Header names of the request-header authenticator.
    pub names: IdentityHeaders,
    /// What every server serves; written by [`crate::discovery::sync::Syncer`] only.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Counters that have no place in a kernel map.
    pub metrics: Arc<Metrics>,
    /// The proxy's own readiness.
    pub readiness: Readiness,
    /// This node's API server.
    pub local: Upstream,
    /// How every API server does.
    pub vitals: Arc<Vitals>,
    /// Whether peers answer while the local API server cannot be reached (`--local-failover`).
    pub local_failover: bool,
    /// Whether a watch whose upstream died goes on at another server (`--watch-continuation`).
    pub watch_continuation: bool,
    /// Sources whose X-Forwarded-For is believed (`--trusted-proxies`).
    pub trusted_proxies: Vec<IpNet>,
    /// Connections by source.
    pub sources: Arc<Sources>,
    /// Asks for the local server's documents to be fetched at once.
    pub refresh: Arc<Notify>,
    /// Tells that the snapshot was replaced.
    pub changes: Receiver<()>,
    /// Cancelled when the process drains.
    pub drain: CancellationToken,
}

impl Shared {
    /// Whether an address is that of a proxy that may say whom it forwards for.
    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(&address))
    }
}

/// What the connections of one worker thread share.
#[derive(Debug)]
pub struct Worker {
    /// What all workers share.
    pub shared: Arc<Shared>,
    /// This worker's upstream connections.
    pub pool: Pool,
    /// This worker's counters.
    pub accounts: Accounts,
    /// Bounds this worker's second tries.
    pub budget: Budget,
    /// Rotates over the peers that could serve a request.
    pub turn: AtomicUsize,
}

/// One client's connection after its handshake.
#[derive(Debug)]
struct Client {
    worker: Arc<Worker>,
    address: IpAddr,
    certificate: Judged,
    /// Whether a first request came.
    served: AtomicBool,
}

/// Streams a client may have open on one HTTP/2 connection: kube-apiserver's own limit.
const STREAMS_PER_CLIENT: u32 = 100;
/// kube-apiserver's limit on request headers (`MaxHeaderBytes`).
const HEADER_LIST_LIMIT: u32 = 1024 * 1024;
/// Time a client has for its first request (kube-apiserver's limit on reading headers).
const FIRST_REQUEST: Duration = Duration::from_secs(32);
/// Time an HTTP/1.1 client has for each further one. hyper's timer runs between requests too, and kube-apiserver keeps idle
/// connections for 90 s: client-go counts on that.
const NEXT_REQUEST: Duration = Duration::from_secs(90);
/// Windows of clients' request bodies; all streams of a connection can have a full one, so that one that is not taken does
/// not stall the others.
const UPLOAD_WINDOW: u32 = 256 * 1024;
/// As client-go does from its side.
const CLIENT_PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(15));

/// Serves one connection to its end.
pub async fn serve_connection(worker: Arc<Worker>, accepted: Accepted) {
    let address = accepted.client;
    let Some(_place) = worker.shared.sources.enter(address.ip()) else {
        debug!(client = %address, "connection refused: its source has too many");
        return;
    };
    let tls = worker.shared.tls.load_full();
    match handshake(accepted, &tls).await {
        Ok(Handshake::Terminated(session)) => serve_session(worker, *session, address.ip()).await,
        Ok(Handshake::Splice { io, head, reason }) => {
            debug!(client = %address, ?reason, "connection passed on untouched");
            forward::splice::splice(worker.pool.dialer(), &worker.shared.local, io, &head).await;
        }
        Ok(Handshake::Closed) => {}
        Err(error) => debug!(client = %address, error = %chain(&error), "no TLS session"),
    }
}

async fn serve_session(worker: Arc<Worker>, session: Session, address: IpAddr) {
    let shared = Arc::clone(&worker.shared);
    let certificate = Judged::new(session.certificates);
    let client = Arc::new(Client { worker, address, certificate, served: AtomicBool::new(false) });
    let life = Life { drain: &shared.drain, served: &client.served };
    let service = service_fn(|request| {
        let client = Arc::clone(&client);
        client.served.store(true, Ordering::Relaxed);
        async move { Ok::<_, Infallible>(serve_request(&client, request).await) }
    });
    let io = TokioIo::new(session.io);
    let ended = if session.http2 {
        let (interval, patience) = CLIENT_PING;
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_PER_CLIENT)
            .max_header_list_size(HEADER_LIST_LIMIT)
            .initial_stream_window_size(UPLOAD_WINDOW)
            .initial_connection_window_size(STREAMS_PER_CLIENT * UPLOAD_WINDOW)
            .keep_alive_interval(interval)
            .keep_alive_timeout(patience)
            .serve_connection(io, service);
        life.of(connection, http2::Connection::graceful_shutdown).await
    } else {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(NEXT_REQUEST)
            .max_headers(MAX_HEADERS)
            .max_buf_size(HEADER_LIST_LIMIT as usize)
            .serve_connection(io, service)
            .with_upgrades();
        life.of(connection, http1::UpgradeableConnection::graceful_shutdown).await
    };
    if let Err(error) = ended {
        debug!(client = %address, %error, "client connection ended");
    }
}

/// What ends a connection beside its client.
struct Life<'a> {
    drain: &'a CancellationToken,
    served: &'a AtomicBool,
}

impl Life<'_> {
    /// Runs a connection. A client that asks for nothing is left; when the process drains, clients are told to open no more
    /// requests and the open ones end.
    async fn of<C>(self, connection: C, shut_down: impl FnOnce(Pin<&mut C>)) -> Result<(), hyper::Error>
    where
        C: Future<Output = Result<(), hyper::Error>>,
    {
        let mut connection = pin!(connection);
        let was_served = || self.served.load(Ordering::Relaxed);
        tokio::select! {
            biased;
            ended = connection.as_mut() => return ended,
            () = self.drain.cancelled() => {}
            () = sleep(FIRST_REQUEST), if !was_served() => {
                if !was_served() {
                    return Ok(());
                }
                tokio::select! {
                    biased;
                    ended = connection.as_mut() => return ended,
                    () = self.drain.cancelled() => {}
                }
            }
        }
        if !was_served() {
            // It was taken off the queue a moment ago: its first request is on the way.
            if let Ok(ended) = timeout(LAST_FIRST_REQUEST, connection.as_mut()).await {
                return ended;
            }
        }
        shut_down(connection.as_mut());
        connection.await
    }
}

/// Time a connection from the queue has for its first request while the process drains.
const LAST_FIRST_REQUEST: Duration = Duration::from_millis(500);

/// Answers one request; every way out writes a response and closes exactly one record.
async fn serve_request(client: &Arc<Client>, request: Request<Incoming>) -> Response<ResponseBody> {
    let shared = &client.worker.shared;
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let mut record = client.worker.accounts.open(method.clone(), uri.clone());
    let path = classify::decode_path(uri.path());
    // A path that cannot be classified goes to the API server, which answers it with its own 500.
    let info = classify(&method, &path, uri.query()).ok();

    let encoding = Encoding::accepted_by(request.headers());
    let mut response = match answer(client, request, &path, info.as_ref(), &mut record).await {
        Ok(response) => response,
        Err(error) => {
            debug!(client = %client.address, fault = ?error.fault(), error = %chain(&error), "request failed");
            shared.metrics.request_failed(&error);
            let response = error.failure().into_response(encoding).map(ResponseBody::own);
            // Over HTTP/2 hyper sends what it is given, and a body in answer to HEAD breaks the stream.
            if method == Method::HEAD { response.map(|_| ResponseBody::empty()) } else { response }
        }
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        remove_hop_by_hop(response.headers_mut());
    }
    record.answered(response.status());
    response.map(|body| body.with_record(record))
}

async fn answer(
    client: &Arc<Client>,
    mut request: Request<Incoming>,
    decoded_path: &str,
    info: Option<&RequestInfo<'_>>,
    record: &mut RequestRecord,
) -> Result<Response<ResponseBody>, RequestError> {
    let worker = &client.worker;
    let shared = &worker.shared;
    let certificate = client.certificate.now(&shared.tls.load(), &shared.names);
    let identity = identify(&certificate, request.headers(), &shared.names)?;
    let snapshot = shared.snapshot.load_full();
    let target = request.uri().path_and_query().ok_or(RequestError::NoPath)?.clone();
    let marks = Marks {
        already_proxied: request.headers().contains_key(PEER_PROXIED),
        about_this_server: is_about_this_server(decoded_path),
        discovery: accept::asked(request.method(), decoded_path, target.query(), request.headers()),
        openapi: OpenApi::asked(request.method(), decoded_path),
    };
    let decision = route(info, marks, &snapshot);
    if marks.already_proxied {
        // Exactly the value that keeps a built-in proxy behind this one from sending it on.
        request.headers_mut().insert(PEER_PROXIED, HeaderValue::from_static("true"));
    }
    let is_trusted = certificate.is_front_proxy() || shared.trusts(client.address);
    let outbound = Outbound::new(request, &identity, &shared.names, client.address, is_trusted)?;
    let watch = info.and_then(|info| Watch::of(info, &outbound, shared.watch_continuation));

    let result = deliver(worker, decision, &snapshot, outbound, record).await;
    if let (Route::Peers(_), Some(info)) = (decision, info) {
        let code = result.as_ref().map_or_else(|error| error.failure().code, Response::status);
        shared.metrics.rerouted(code.as_u16(), info);
    }
    let response = result?;
    if let Some(watch) = watch {
        return Ok(watch.follow(worker, response));
    }
    if asks_for_list(target.path(), target.query()) {
        let broken = |source| ForwardError::Broken { address: shared.local.address, source };
        return Ok(shared.readiness.add_to(response).await.map_err(broken)?);
    }
    Ok(response)
}
