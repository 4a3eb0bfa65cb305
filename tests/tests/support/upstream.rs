//! Stands in for an API server that does one thing only, for what no recorded server does.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mvproxy_tests::client::{ClientOptions, connect_tls};
use mvproxy_tests::pki::Identity;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// Far more than the proxy lets through.
const HEADER_LIMIT: usize = 16 << 20;

pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A TLS server with one handler for every request.
pub struct Upstream {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Upstream {
    pub async fn start<F, A>(serving: &Identity, handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Response<Body>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = acceptor(serving);
        let task = tokio::spawn(async move {
            while let Ok((stream, client)) = listener.accept().await {
                tokio::spawn(serve(stream, client, acceptor.clone(), handler.clone()));
            }
        });
        Self { address, task }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve<F, A>(stream: TcpStream, client: SocketAddr, acceptor: TlsAcceptor, handler: F)
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    // Clients that leave early are part of what is tested.
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = service_fn(move |mut request: Request<Incoming>| {
        // Tells connections apart.
        request.extensions_mut().insert(client);
        let answer = handler(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let io = TokioIo::new(stream);
    let _ = if is_http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.max_header_list_size(HEADER_LIMIT.try_into().unwrap()).serve_connection(io, service).await
    } else {
        http1::Builder::new().max_buf_size(HEADER_LIMIT).serve_connection(io, service).await
    };
}

fn acceptor(serving: &Identity) -> TlsAcceptor {
    let chain = CertificateDer::pem_slice_iter(serving.cert_pem.as_bytes()).collect::<Result<_, _>>();
    let key = PrivateKeyDer::from_pem_slice(serving.key_pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(chain.unwrap(), key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// A body known as a whole.
pub fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body of `chunks` chunks of 64 KiB that counts how many were taken.
pub fn endless(chunks: usize, taken: Arc<AtomicUsize>) -> Body {
    static CHUNK: [u8; 64 * 1024] = [b'x'; 64 * 1024];
    let frames = futures_util::stream::unfold(0, move |sent| {
        let taken = taken.clone();
        async move {
            (sent < chunks).then(|| {
                taken.fetch_add(1, Ordering::Relaxed);
                (Ok(Frame::data(Bytes::from_static(&CHUNK))), sent + 1)
            })
        }
    });
    StreamBody::new(frames).boxed_unsync()
}

/// A body that breaks off some time after its first bytes.
pub fn breaking(bytes: &'static [u8]) -> Body {
    let frames = futures_util::stream::unfold(0, move |sent| async move {
        if sent == 0 {
            return Some((Ok(Frame::data(Bytes::from_static(bytes))), 1));
        }
        // Errors overtake what was not written to the network yet.
        tokio::time::sleep(Duration::from_millis(50)).await;
        Some((Err(io::Error::other("broken off on purpose")), sent + 1))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// Sends one request whose body is made while it is sent.
pub async fn upload(
    options: &ClientOptions,
    mut request: Request<Body>,
) -> anyhow::Result<Response<Incoming>> {
    let io = TokioIo::new(connect_tls(options).await?);
    if options.http2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        Ok(sender.send_request(request).await?)
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        tokio::spawn(connection);
        request.headers_mut().insert("host", http::HeaderValue::from_static("kubernetes"));
        Ok(sender.send_request(request).await?)
    }
}
