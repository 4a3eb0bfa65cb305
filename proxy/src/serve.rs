//! Serves: accept → tls → identity → classify → route → forward → account.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::{CONNECTION, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use ipnet::IpNet;
use tokio::sync::watch::Receiver;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::accept::Accepted;
use crate::account::{Accounts, RequestRecord};
use crate::causes::chain;
use crate::classify::{self, RequestInfo, classify};
use crate::discovery::openapi::OpenApi;
use crate::discovery::openapi::merger::OpenApiV2;
use crate::discovery::refresh::Refresh;
use crate::discovery::{Snapshot, accept};
use crate::dismissal::Dismissal;
use crate::error::RequestError;
use crate::forward::connect::MAX_HEADERS;
use crate::forward::headers::{PEER_PROXIED, remove_hop_by_hop};
use crate::forward::{self, Budget, ForwardError, Outbound, Pool, ResponseBody};
use crate::identity::{IdentityHeaders, Judged, identify};
use crate::limits::{SourceGuard, Sources, TimeLimits};
use crate::metrics::{Ended, Metrics};
use crate::readiness::{Readiness, asks_for_list};
use crate::route::{Marks, Route, is_about_this_server, route};
use crate::status::Encoding;
use crate::tls::TlsContext;
use crate::tls::cork::{Driven, cork};
use crate::tls::handshake::{Handshake, HandshakeError, Session, handshake};
use crate::upstream::Upstream;
use crate::vitals::Vitals;

mod activity;
mod deliver;
mod discover;
mod doubt;
mod life;
mod openapi;
mod watch;

use activity::{Activity, Watched};
use deliver::deliver;
use life::Life;
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
    /// How long clients may take.
    pub time_limits: TimeLimits,
    /// Has servers asked at once what they serve.
    pub refresh: Arc<Refresh>,
    /// The merged `/openapi/v2`; written by [`crate::discovery::openapi::merger::Merger`] only.
    pub openapi: Arc<OpenApiV2>,
    /// Tells that the snapshot was replaced.
    pub changes: Receiver<()>,
    /// Tells steered clients to leave when nothing is steered any more.
    pub dismissal: Arc<Dismissal>,
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
    /// Cancelled with [`Shared::drain`]; idle watches wait for it, and no other worker shall lock it.
    pub drain: CancellationToken,
}

/// One client's connection after its handshake.
#[derive(Debug)]
struct Client {
    worker: Arc<Worker>,
    address: IpAddr,
    certificate: Judged,
    /// Its place among those of its source; what its connection is upgraded to keeps it.
    place: Arc<SourceGuard>,
}

/// Streams a client may have open on one HTTP/2 connection: kube-apiserver's own limit, and what clients assume until they
/// are told.
const STREAMS_PER_CLIENT: u32 = 100;
/// Streams that were reset before anything was done for them, at one moment (CVE-2023-44487). A client that gives up all it
/// has open is no attacker; h2's own limit of 20 would take it for one.
const RESET_BEFORE_ACCEPT: usize = STREAMS_PER_CLIENT as usize;
/// Streams of one connection that the proxy had to reset for its client's mistakes, in all its time: h2's own limit.
const RESET_BY_MISTAKE: usize = 1024;
/// kube-apiserver's limit on request headers (`MaxHeaderBytes`).
const HEADER_LIMIT: u32 = 1024 * 1024;
/// What net/http allows on top of it: over HTTP/1.1, and over HTTP/2, where each field counts 32 bytes more.
const HEADER_SLOP: (u32, u32) = (4096, 10 * 32);
/// Windows of clients' request bodies; all streams of a connection can have a full one, so that one that is not taken does
/// not stall the others.
const UPLOAD_WINDOW: u32 = 256 * 1024;
/// As client-go does from its side.
const CLIENT_PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(15));

/// Serves one connection to its end.
pub async fn serve_connection(worker: Arc<Worker>, accepted: Accepted) {
    let (address, dialled) = (accepted.client, accepted.dialled);
    let shared = Arc::clone(&worker.shared);
    let Some(place) = shared.sources.enter(accepted.source()) else {
        debug!(client = %address, "connection closed: its source has too many");
        shared.metrics.connection_ended(Ended::SourceLimit);
        return;
    };
    let tls = shared.tls.load_full();
    match handshake(accepted, &tls, shared.time_limits.handshake).await {
        Ok(Handshake::Terminated(session)) => {
            serve_session(worker, *session, (address.ip(), dialled), place).await;
        }
        Ok(Handshake::Splice { io, head, reason }) => {
            debug!(client = %address, ?reason, "connection passed on untouched");
            forward::splice::splice(worker.pool.dialer(), &shared.local, io, &head).await;
        }
        Ok(Handshake::Closed) => {}
        Err(error) => {
            debug!(client = %address, error = %chain(&error), "no TLS session");
            if let HandshakeError::TimedOut { .. } = error {
                shared.metrics.connection_ended(Ended::Handshake);
            }
        }
    }
}

async fn serve_session(
    worker: Arc<Worker>,
    session: Session,
    (address, dialled): (IpAddr, SocketAddr),
    place: SourceGuard,
) {
    let shared = Arc::clone(&worker.shared);
    let certificate = Judged::new(session.certificates);
    let client = Arc::new(Client { worker, address, certificate, place: Arc::new(place) });
    let activity = Activity::new(shared.time_limits);
    let life = Life {
        drain: &shared.drain,
        dismissed: shared.dismissal.of(dialled),
        activity: &activity,
        metrics: &shared.metrics,
    };
    let service = service_fn(|request| {
        let (client, open) = (Arc::clone(&client), activity.open_request());
        // On the heap: it is large, and hyper would move it about for each request and keep its place for as long as the
        // response lasts, hours for a watch.
        Box::pin(async move {
            let response = serve_request(&client, request).await;
            Ok::<_, Infallible>(response.map(|body| open.answered(body)))
        })
    });
    let ended = if session.http2 {
        let (io, cork) = cork(session.io);
        let connection = http2().serve_connection(TokioIo::new(io), service);
        life.of(Driven::new(connection, cork), |driven| {
            driven.get_mut().connection.as_mut().graceful_shutdown();
        })
        .await
    } else {
        let io = Watched { io: session.io, activity: Arc::clone(&activity) };
        let connection = http1().serve_connection(TokioIo::new(io), service).with_upgrades();
        life.of(connection, http1::UpgradeableConnection::graceful_shutdown).await
    };
    if let Err(error) = ended {
        debug!(client = %address, %error, "client connection ended");
    }
}

fn http2() -> http2::Builder<TokioExecutor> {
    let (interval, patience) = CLIENT_PING;
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_PER_CLIENT)
        .max_pending_accept_reset_streams(RESET_BEFORE_ACCEPT)
        .max_local_error_reset_streams(RESET_BY_MISTAKE)
        .max_header_list_size(HEADER_LIMIT + HEADER_SLOP.1)
        .initial_stream_window_size(UPLOAD_WINDOW)
        .initial_connection_window_size(STREAMS_PER_CLIENT * UPLOAD_WINDOW)
        .keep_alive_interval(interval)
        .keep_alive_timeout(patience);
    builder
}

fn http1() -> http1::Builder {
    let limit = (HEADER_LIMIT + HEADER_SLOP.0) as usize;
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // `Life` bounds heads, and the wait between requests by another limit.
        .header_read_timeout(None)
        .max_headers(MAX_HEADERS)
        .max_header_size(limit)
        .max_buf_size(limit);
    builder
}

/// Answers one request; every way out writes a response and closes exactly one record.
async fn serve_request(client: &Arc<Client>, request: Request<Incoming>) -> Response<ResponseBody> {
    let shared = &client.worker.shared;
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let mut record = client.worker.accounts.open(method.clone(), uri.clone());
    let path = classify::decode_path(uri.path());
    // A path that cannot be classified goes to the API server, which answers it with its own 500.
    let info = classify(&method, &path, uri.query()).ok();

    let encoding = Encoding::accepted_by(request.headers());
    // hyper drops a Content-Length beside chunks before anybody here sees it. What comes after such a request must not be
    // taken for another one (RFC 9112 section 6.1).
    let ends_connection = request.headers().contains_key(TRANSFER_ENCODING);
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
        if ends_connection {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
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
    if request.method() == Method::CONNECT {
        return Err(RequestError::Connect);
    }
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
    // A peer's proxy brings tokens as they are, without the front-proxy certificate.
    let is_of_peer = marks.already_proxied && snapshot.has_peer_at(client.address);
    let is_trusted = certificate.is_front_proxy() || is_of_peer || shared.trusts(client.address);
    let mut outbound = Outbound::new(request, &identity, &shared.names, client.address, is_trusted)?;
    outbound.hold_while_upgraded(Arc::clone(&client.place));
    let watch = info.and_then(|info| Watch::of(info, &outbound, shared.watch_continuation));

    let result = deliver(worker, decision, &snapshot, outbound, record).await;
    if let (Route::Peers(_), Some(info)) = (decision, info) {
        let code = result.as_ref().map_or_else(|error| error.failure().code, Response::status);
        shared.metrics.rerouted(code.as_u16(), info);
    }
    let response = result?;
    doubt::note(&shared.refresh, decision, info, &response, record);
    if let Some(watch) = watch {
        return Ok(watch.follow(worker, response));
    }
    if asks_for_list(target.path(), target.query()) {
        let broken = |source| ForwardError::Broken { address: shared.local.address, source };
        return Ok(Box::pin(shared.readiness.add_to(response)).await.map_err(broken)?);
    }
    Ok(response)
}
