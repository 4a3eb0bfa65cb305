//! Sends a request to the API servers that may answer it, and only again when that cannot have an effect twice.

use std::net::{IpAddr, SocketAddr};

use http::header::HOST;
use http::uri::{Authority, Scheme, Uri};
use http::{HeaderValue, Method, Request, Response, Version, request};
use tracing::debug;

use crate::account::RequestRecord;
use crate::identity::{Identity, TrustClass};
use crate::upstream::{Role, Upstream};

pub mod body;
pub mod connect;
pub mod headers;
pub mod pool;
pub mod splice;
pub mod upgrade;

pub use body::{RequestBody, ResponseBody};
pub use connect::{ConnectError, Connection, Dialer};
pub use pool::Pool;
pub use upgrade::Upgrade;

/// Why a request got no response.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// No upstream could be reached; nothing was sent.
    #[error("no upstream could be reached")]
    NotReached {
        /// The last try.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The upstream broke off after the request was sent.
    #[error("{address} broke off before it answered")]
    Broken {
        /// Upstream.
        address: SocketAddr,
        /// Cause.
        source: hyper::Error,
    },
    /// The peers that serve the resource left between routing and forwarding.
    #[error("no endpoint is known for the resource")]
    NoPeer,
    /// The Host header is not an authority.
    #[error("the Host header is not valid")]
    Target {
        /// Cause.
        source: http::uri::InvalidUri,
    },
}

/// How one try ended without a response.
#[derive(Debug)]
pub enum Unanswered {
    /// Nothing was sent: the request is whole and may go elsewhere.
    Unsent {
        /// The request.
        request: Box<Request<RequestBody>>,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
        /// Whether the connection was one from the pool that had gone away.
        stale: bool,
    },
    /// It may have been received.
    Broken(hyper::Error),
}

impl Unanswered {
    /// Nothing was sent because no connection came about.
    pub fn not_connected(request: Request<RequestBody>, source: ConnectError) -> Self {
        Unanswered::Unsent { request: Box::new(request), source: Box::new(source), stale: false }
    }
}

/// A request made ready for any upstream.
#[derive(Debug)]
pub struct Outbound {
    request: Request<RequestBody>,
    class: TrustClass,
    upgrade: Option<Upgrade>,
}

impl Outbound {
    /// Cleans the headers, asserts the identity, and takes the target as the client wrote it.
    ///
    /// # Errors
    /// When the Host header is not an authority.
    pub fn new(
        mut request: Request<hyper::body::Incoming>,
        identity: &Identity,
        names: &crate::identity::IdentityHeaders,
        client: IpAddr,
        client_is_front_proxy: bool,
    ) -> Result<Self, ForwardError> {
        let upgrade = match headers::upgrade_of(request.headers()) {
            Some(protocol) if request.version() == Version::HTTP_11 => {
                Some(Upgrade { protocol, client: hyper::upgrade::on(&mut request) })
            }
            _ => None,
        };
        let uri = absolute(&request)?;
        let (mut parts, body) = request.into_parts();
        headers::for_upstream(&mut parts.headers, identity, names, client, client_is_front_proxy);
        parts.uri = uri;
        parts.version = Version::HTTP_11;
        parts.extensions.clear();
        let request = Request::from_parts(parts, RequestBody::Incoming(body));
        Ok(Self { request, class: identity.trust_class(), upgrade })
    }

    /// The headers, for stages that adapt them.
    pub fn headers_mut(&mut self) -> &mut http::HeaderMap {
        self.request.headers_mut()
    }

    /// Tells the upstream that the server was chosen already (KEP-4020).
    pub fn mark_proxied(&mut self) {
        self.headers_mut().insert(headers::PEER_PROXIED, HeaderValue::from_static("true"));
    }
}

/// Sends a request to the first upstream that takes it.
///
/// It is sent again only when nothing was sent before, or when it is safe, has no body and no response had begun.
///
/// # Errors
/// See [`ForwardError`].
pub async fn forward(
    pool: &Pool,
    upstreams: impl Iterator<Item = Upstream>,
    outbound: Outbound,
    record: &mut RequestRecord,
) -> Result<Response<ResponseBody>, ForwardError> {
    let Outbound { mut request, class, upgrade } = outbound;
    let spare = Spare::of(&request, upgrade.as_ref());
    let mut failure = ForwardError::NoPeer;
    for upstream in upstreams {
        if upstream.role == Role::Peer {
            debug!("Proxying request for {} to peer at {}", request.uri().path(), upstream.address);
        }
        // A second try at the same upstream is for a pooled connection that had gone away.
        for _ in 0..2 {
            let tried = match &upgrade {
                Some(upgrade) => upgrade::attempt(pool, &upstream, class, request, upgrade, record).await,
                None => attempt(pool, &upstream, class, request, record).await,
            };
            let unanswered = match tried {
                Ok(response) => return Ok(response),
                Err(unanswered) => unanswered,
            };
            record.failed_at(&upstream);
            let again = match unanswered {
                Unanswered::Unsent { request: unsent, source, stale } => {
                    debug!(address = %upstream.address, error = %source, "upstream not reached");
                    request = *unsent;
                    failure = ForwardError::NotReached { source };
                    stale
                }
                Unanswered::Broken(source) => {
                    let address = upstream.address;
                    debug!(%address, error = %source, "upstream broke off");
                    failure = ForwardError::Broken { address, source };
                    match spare.request() {
                        Some(copy) => request = copy,
                        None => return Err(failure),
                    }
                    true
                }
            };
            if !again {
                break;
            }
        }
    }
    Err(failure)
}

async fn attempt(
    pool: &Pool,
    upstream: &Upstream,
    class: TrustClass,
    mut request: Request<RequestBody>,
    record: &mut RequestRecord,
) -> Result<Response<ResponseBody>, Unanswered> {
    let mut lease = match pool.acquire(upstream, class).await {
        Ok(lease) => lease,
        Err(error) => return Err(Unanswered::not_connected(request, error)),
    };
    record.sent_to(upstream);
    let sent = match &mut lease.connection {
        Connection::Http2(sender) => sender.try_send_request(request).await,
        Connection::Http1(sender) => {
            to_origin_form(&mut request);
            sender.try_send_request(request).await
        }
    };
    let response = match sent {
        Ok(response) => response,
        Err(mut refused) => {
            return Err(match refused.take_message() {
                Some(request) => Unanswered::Unsent {
                    request: Box::new(to_absolute_form(request)),
                    source: Box::new(refused.into_error()),
                    stale: lease.reused,
                },
                None => Unanswered::Broken(refused.into_error()),
            });
        }
    };
    lease.guard.keep(lease.connection);
    let guard = lease.guard;
    Ok(response.map(|body| ResponseBody::upstream(body, Some(guard))))
}

/// The head of a request that may be sent twice.
#[derive(Debug)]
struct Spare(Option<request::Parts>);

impl Spare {
    fn of(request: &Request<RequestBody>, upgrade: Option<&Upgrade>) -> Self {
        let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        let whole = http_body::Body::is_end_stream(request.body());
        if !safe || !whole || upgrade.is_some() {
            return Self(None);
        }
        let mut head = Request::new(());
        *head.method_mut() = request.method().clone();
        *head.uri_mut() = request.uri().clone();
        *head.headers_mut() = request.headers().clone();
        Self(Some(head.into_parts().0))
    }

    fn request(&self) -> Option<Request<RequestBody>> {
        self.0.clone().map(|parts| Request::from_parts(parts, RequestBody::Empty))
    }
}

/// `https://AUTHORITY/PATH?QUERY` with path and query byte for byte as the client sent them.
fn absolute<B>(request: &Request<B>) -> Result<Uri, ForwardError> {
    let authority = match (request.uri().authority(), request.headers().get(HOST)) {
        (Some(authority), _) => authority.clone(),
        (None, Some(host)) => {
            Authority::try_from(host.as_bytes()).map_err(|source| ForwardError::Target { source })?
        }
        (None, None) => Authority::from_static(crate::tls::APISERVER_NAME),
    };
    let mut parts = request.uri().clone().into_parts();
    parts.scheme = Some(Scheme::HTTPS);
    parts.authority = Some(authority);
    Ok(Uri::from_parts(parts).expect("scheme, authority and a path taken from a valid target"))
}

/// Moves the authority into the Host header, as HTTP/1.1 wants it.
pub(crate) fn to_origin_form(request: &mut Request<RequestBody>) {
    let mut parts = request.uri().clone().into_parts();
    if let Some(authority) = parts.authority.take() {
        let host = HeaderValue::from_str(authority.as_str()).expect("an authority is visible ASCII");
        request.headers_mut().insert(HOST, host);
    }
    parts.scheme = None;
    *request.uri_mut() = Uri::from_parts(parts).expect("a path taken from a valid target");
}

/// Undoes [`to_origin_form`] for a request that comes back unsent.
fn to_absolute_form(mut request: Request<RequestBody>) -> Request<RequestBody> {
    if request.uri().authority().is_none()
        && let Ok(uri) = absolute(&request)
    {
        *request.uri_mut() = uri;
        request.headers_mut().remove(HOST);
    }
    request
}
