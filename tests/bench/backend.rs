//! Answers as fast as it can: bodies of any size, discovery documents, and watches.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::{NODE, say};

/// What the server shows and which API server it is.
#[derive(clap::Args)]
pub(crate) struct ServeArgs {
    /// Folder that `pki` wrote
    #[arg(long)]
    pki: PathBuf,
    /// Listens here
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Serves the discovery documents of Kubernetes 1.36 instead of those of 1.34
    #[arg(long)]
    newer: bool,
}

/// Recorded discovery documents of one Kubernetes version: `/api`, `/apis`, `/version`.
type Documents = [&'static str; 3];

const OLDER: Documents = [
    include_str!("../fixtures/kube-apiserver/v1.34/api.v2.json"),
    include_str!("../fixtures/kube-apiserver/v1.34/apis.v2.json"),
    include_str!("../fixtures/kube-apiserver/v1.34/version.json"),
];
const NEWER: Documents = [
    include_str!("../fixtures/kube-apiserver/v1.36/api.v2.json"),
    include_str!("../fixtures/kube-apiserver/v1.36/apis.v2.json"),
    include_str!("../fixtures/kube-apiserver/v1.36/version.json"),
];
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const JSON: &str = "application/json";
/// Largest body there is.
const LARGEST: usize = 64 << 20;
/// Streams per HTTP/2 connection, as kubeadm leaves kube-apiserver's.
const STREAMS: u32 = 100;
/// Body of the answer to a POST: the upload is what is measured.
const CREATED: usize = 256;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What all requests share.
struct Backend {
    documents: Documents,
    /// Text that all bodies are cut from.
    text: Bytes,
    /// Number of the latest event.
    events: watch::Receiver<u64>,
}

/// Serves until the process is ended.
///
/// # Errors
/// When the address is taken or the certificate cannot be read.
pub(crate) async fn serve(args: &ServeArgs) -> Result<()> {
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("{}", args.listen))?;
    let acceptor = TlsAcceptor::from(Arc::new(tls(args)?));
    let (tell, events) = watch::channel(0);
    let documents = if args.newer { NEWER } else { OLDER };
    let backend = Arc::new(Backend { documents, text: Bytes::from(vec![b'a'; LARGEST]), events });
    let mut events = signal(SignalKind::user_defined1())?;
    say(&format!("serving on {}", listener.local_addr()?))?;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                tokio::spawn(connection(Arc::clone(&backend), accepted?.0, acceptor.clone()));
            }
            _ = events.recv() => tell.send_modify(|number| *number += 1),
        }
    }
}

/// One cipher suite, so that all proxies encrypt the same way.
fn tls(args: &ServeArgs) -> Result<ServerConfig> {
    let node = args.pki.join(NODE);
    let chain = CertificateDer::pem_file_iter(node.join("apiserver.crt"))?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(node.join("apiserver.key"))?;
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

async fn connection(backend: Arc<Backend>, io: TcpStream, acceptor: TlsAcceptor) {
    // A client that leaves in the middle is none of the server's business.
    let _ = io.set_nodelay(true);
    let Ok(io) = acceptor.accept(io).await else { return };
    let is_http2 = io.get_ref().1.alpn_protocol() == Some(b"h2");
    let service = service_fn(move |request| {
        let backend = Arc::clone(&backend);
        async move { backend.answer(request).await }
    });
    if is_http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.max_concurrent_streams(STREAMS).initial_stream_window_size(256 * 1024);
        builder.initial_connection_window_size(STREAMS * 256 * 1024);
        let _ = builder.serve_connection(TokioIo::new(io), service).await;
    } else {
        let _ = http1::Builder::new().serve_connection(TokioIo::new(io), service).await;
    }
}

impl Backend {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
        let [api, apis, version] = self.documents;
        let (head, mut body) = request.into_parts();
        while let Some(frame) = body.frame().await {
            drop(frame?);
        }
        let path = head.uri.path();
        Ok(match path {
            "/api" => whole(StatusCode::OK, AGGREGATED, Bytes::from_static(api.as_bytes())),
            "/apis" => whole(StatusCode::OK, AGGREGATED, Bytes::from_static(apis.as_bytes())),
            "/version" => whole(StatusCode::OK, JSON, Bytes::from_static(version.as_bytes())),
            "/livez" | "/readyz" | "/healthz" => {
                whole(StatusCode::OK, "text/plain", Bytes::from_static(b"ok"))
            }
            _ if head.uri.query().is_some_and(|query| query.contains("watch=true")) => self.watch(),
            _ if head.method == Method::POST => whole(StatusCode::CREATED, JSON, self.body(CREATED)),
            _ => match path.rsplit('/').find_map(|segment| segment.parse().ok()) {
                Some(size) if size <= LARGEST => whole(StatusCode::OK, JSON, self.body(size)),
                _ => whole(StatusCode::NOT_FOUND, JSON, Bytes::from_static(b"{}")),
            },
        })
    }

    fn body(&self, size: usize) -> Bytes {
        self.text.slice(..size)
    }

    /// One event of 512 bytes at once, as of an object that is there already, and one each time. Without the first nginx would
    /// keep the head of the answer back.
    fn watch(&self) -> Response<Body> {
        let mut event = vec![b'a'; 512];
        event[511] = b'\n';
        let (mut events, event) = (self.events.clone(), Bytes::from(event));
        events.mark_unchanged();
        let events = stream::unfold((events, event, true), async |(mut events, event, is_first)| {
            if !is_first {
                events.changed().await.ok()?;
            }
            Some((Ok(Frame::data(event.clone())), (events, event, false)))
        });
        let mut response = with_headers(StatusCode::OK, JSON, StreamBody::new(events).boxed_unsync());
        // nginx would keep events back until its buffer is full.
        response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
        response
    }
}

fn whole(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Body> {
    with_headers(status, content_type, Full::new(body).boxed_unsync())
}

/// The headers that kube-apiserver sends with every answer.
fn with_headers(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        ("audit-id", "5f3c1c5e-6f0e-4b8a-9d5e-1f1f6d1d2a3b"),
        (CACHE_CONTROL.as_str(), "no-cache, private"),
        (CONTENT_TYPE.as_str(), content_type),
        ("x-kubernetes-pf-flowschema-uid", "0d4f1a4e-7a39-4c4c-8a53-3c9b7e1c8b11"),
        ("x-kubernetes-pf-prioritylevel-uid", "a41ac8a2-3a5c-4f86-a6f1-7f3a5a9d6c10"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
