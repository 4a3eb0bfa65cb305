//! Serves /metrics, /livez, /readyz, /skew and /route on the admin address.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::{debug, info, warn};

use crate::explain::Explainer;
use crate::metrics::Metrics;
use crate::readiness::{Audience, Readiness};

/// Scrapes at once; more wait.
const CONNECTIONS: usize = 16;
/// Pause between two attempts to have the address.
const RETRY: Duration = Duration::from_secs(1);

/// What the admin endpoints read.
#[derive(Debug)]
pub struct Admin {
    /// For /metrics.
    pub metrics: Arc<Metrics>,
    /// For /readyz.
    pub readiness: Readiness,
    /// For /skew and /route.
    pub explainer: Explainer,
}

impl Admin {
    /// Serves until the task is dropped; begins when `address` is free, where `listener` is none.
    pub async fn serve(self: Arc<Self>, listener: Option<std::net::TcpListener>, address: SocketAddr) {
        let listener = freed(listener, address).await;
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
            let io = match listener.accept().await {
                Ok((io, _)) => io,
                Err(error) => {
                    debug!(%error, "admin connection not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let admin = Arc::clone(&self);
            tokio::spawn(async move {
                let service = service_fn(|request| {
                    let answer = admin.answer(&request);
                    async { Ok::<_, Infallible>(answer) }
                });
                let served = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(io), service);
                if let Err(error) = served.await {
                    debug!(%error, "admin connection ended");
                }
                drop(permit);
            });
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let verbose = crate::readiness::asks_for_list("/readyz", request.uri().query());
        match request.uri().path() {
            "/livez" => text(StatusCode::OK, "ok"),
            "/readyz" => {
                let ready = self.readiness.is_ready();
                let status = if ready { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
                if ready && !verbose {
                    return text(status, "ok");
                }
                let verdict = if ready { "passed" } else { "failed" };
                text(status, format!("{}readyz check {verdict}\n", self.readiness.lines(Audience::Operator)))
            }
            "/metrics" => match self.metrics.encode() {
                Ok(metrics) => {
                    let mut response = text(StatusCode::OK, metrics);
                    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(OPEN_METRICS));
                    response
                }
                Err(error) => {
                    text(StatusCode::INTERNAL_SERVER_ERROR, format!("metrics not encoded: {error}\n"))
                }
            },
            "/skew" => json(&self.explainer.skew()),
            "/route" => match asked_route(request.uri().query()) {
                Some((method, target)) => json(&self.explainer.route(&method, &target)),
                None => text(StatusCode::BAD_REQUEST, "give /route?method=GET&path=/apis/...\n"),
            },
            _ => text(
                StatusCode::NOT_FOUND,
                "not found; try /metrics, /livez, /readyz?verbose, /skew or /route?method=GET&path=/api\n",
            ),
        }
    }
}

/// Listens; `None` where another process has the address.
///
/// On a node, that is the proxy that this one replaces, until it has drained: a `DaemonSet` with `maxSurge` starts the new one
/// beside the old one, and the path of requests has no port that they could both want.
///
/// # Errors
/// When the address cannot be listened on, whoever has it.
pub fn listen(address: SocketAddr) -> io::Result<Option<std::net::TcpListener>> {
    match std::net::TcpListener::bind(address) {
        Ok(listener) => {
            listener.set_nonblocking(true)?;
            Ok(Some(listener))
        }
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
        Err(error) => Err(error),
    }
}

/// The listener, when it can be had.
async fn freed(listener: Option<std::net::TcpListener>, address: SocketAddr) -> TcpListener {
    let mut found = Ok(listener);
    let mut is_told = false;
    loop {
        let error = match found.and_then(|listener| listener.map(TcpListener::from_std).transpose()) {
            Ok(Some(listener)) => {
                if is_told {
                    info!(%address, "--admin-address is free: serving /metrics and /readyz");
                }
                return listener;
            }
            Ok(None) => io::ErrorKind::AddrInUse.into(),
            Err(error) => error,
        };
        if !std::mem::replace(&mut is_told, true) {
            warn!(
                %address, %error,
                "--admin-address: not to be had yet, and tried again each second; a proxy that is being replaced may have it"
            );
        }
        tokio::time::sleep(RETRY).await;
        found = listen(address);
    }
}

fn json(report: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(report) {
        Ok(body) => {
            let mut response = text(StatusCode::OK, body);
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("report not encoded: {error}\n")),
    }
}

/// Method and target of a query `method=GET&path=%2Fapis%2F…`.
fn asked_route(query: Option<&str>) -> Option<(Method, String)> {
    let value = |key: &str| {
        let pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.into_iter().find(|(found, _)| *found == key)?;
        percent_decode_str(value).decode_utf8().ok()
    };
    let target = value("path").filter(|target| target.starts_with('/'))?;
    Some((value("method")?.parse().ok()?, target.into_owned()))
}

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
