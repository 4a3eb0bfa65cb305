//! Sends a request to the API servers that may answer it, and only again when that cannot have an effect twice.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::header::HOST;
use http::uri::{Authority, Scheme, Uri};
use http::{HeaderValue, Method, Request, Response, Version};
use http_body::Body as _;
use tokio::time::timeout;
use tracing::debug;

use crate::account::RequestRecord;
use crate::causes::chain;
use crate::identity::Identity;
use crate::limits::SourceGuard;
use crate::upstream::{Role, TrustClass, Upstream};
use crate::vitals::Vitals;

pub mod body;
pub mod choose;
pub mod connect;
pub mod course;
pub mod headers;
mod lane;
pub mod pool;
pub mod replay;
pub mod request;
pub mod retry;
pub mod splice;
pub mod turned_away;
pub mod upgrade;
pub mod watch;
pub mod whole;

pub use body::ResponseBody;
pub use connect::{ConnectError, Connection, Dialer};
use course::Course;
pub use pool::Pool;
use pool::Wanted;
use replay::{Replay, ReplayBody};
pub use request::RequestBody;
use retry::Spare;
pub use retry::{Budget, Unanswered};
use turned_away::is_turned_away;
pub use upgrade::Upgrade;
use whole::BegunBody;

/// Why a request got no response.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// No upstream answered, and the request had no effect.
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
    /// The upstream did not answer in time, over HTTP/1.1.
    #[error("{address} did not answer within {} s", HEADER_PATIENCE.as_secs())]
    Late {
        /// Upstream.
        address: SocketAddr,
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
    /// An HTTP/1.1 request has no Host header, or a request has several.
    #[error("{count} Host headers where there has to be one")]
    Host {
        /// Their number.
        count: usize,
    },
    /// The request's body is coded in another way than `chunked`.
    #[error("the transfer coding of the request is not known")]
    TransferCoding,
    /// The request has more header names than can be handled.
    #[error("{names} different header names are too many")]
    TooManyHeaders {
        /// Their number.
        names: usize,
    },
    /// The response has more header names than can be handled.
    #[error("the response of {address} has too many different header names")]
    ResponseTooLarge {
        /// Upstream.
        address: SocketAddr,
    },
}

/// A request made ready for any upstream.
#[derive(Debug)]
pub struct Outbound {
    request: Request<RequestBody>,
    class: TrustClass,
    upgrade: Option<Upgrade>,
    replay: Option<Replay>,
}

impl Outbound {
    /// Cleans the headers, asserts the identity, and takes the target as the client wrote it.
    ///
    /// # Errors
    /// When there is not one Host header or it is not an authority, or other headers cannot be handled.
    pub fn new(
        mut request: Request<hyper::body::Incoming>,
        identity: &Identity,
        names: &crate::identity::IdentityHeaders,
        client: IpAddr,
        client_is_trusted: bool,
    ) -> Result<Self, ForwardError> {
        let upgrade = match headers::upgrade_of(request.headers()) {
            Some(protocol) if request.version() == Version::HTTP_11 => {
                Some(Upgrade { protocol, client: hyper::upgrade::on(&mut request), place: None })
            }
            _ => None,
        };
        headers::check_host(request.version(), request.headers())?;
        let uri = absolute(&request)?;
        let (mut parts, body) = request.into_parts();
        headers::for_upstream(&mut parts.headers, identity, names, client, client_is_trusted)?;
        parts.uri = uri;
        parts.version = Version::HTTP_11;
        parts.extensions.clear();
        let (body, replay) = if body.is_end_stream() {
            (RequestBody::Empty, None)
        } else {
            let (body, replay) = ReplayBody::new(body);
            (RequestBody::Client(body), Some(replay))
        };
        let request = Request::from_parts(parts, body);
        Ok(Self { request, class: identity.trust_class(), upgrade, replay })
    }

    /// A request without a body, made ready before, once more.
    pub fn again(head: Request<()>, class: TrustClass) -> Self {
        Self { request: head.map(|()| RequestBody::Empty), class, upgrade: None, replay: None }
    }

    /// Keeps a client's place among those of its source until the connection that this request upgrades has ended.
    pub fn hold_while_upgraded(&mut self, place: Arc<SourceGuard>) {
        if let Some(upgrade) = &mut self.upgrade {
            upgrade.place = Some(place);
        }
    }

    /// A copy of the head, if there is no body and no upgrade.
    pub fn plain_head(&self) -> Option<Request<()>> {
        (self.replay.is_none() && self.upgrade.is_none()).then(|| retry::head_of(&self.request))
    }

    /// The query, as the client wrote it.
    pub fn query(&self) -> Option<&str> {
        self.request.uri().query()
    }

    /// The class of upstream connection it may use.
    pub fn trust_class(&self) -> TrustClass {
        self.class
    }

    /// The headers, for stages that adapt them.
    pub fn headers_mut(&mut self) -> &mut http::HeaderMap {
        self.request.headers_mut()
    }
}

/// What forwarding draws on beside the connections.
#[derive(Clone, Copy, Debug)]
pub struct Means<'a> {
    /// Connections.
    pub pool: &'a Pool,
    /// Bounds second tries.
    pub budget: &'a Budget,
    /// Learns how servers do.
    pub vitals: &'a Vitals,
}

/// Sends a request to the first upstream that takes it.
///
/// It goes to another connection or upstream only while it cannot have an effect twice: nothing was sent, or the server
/// did not process it, or it is safe and no response had begun. An upgrade is never sent twice.
///
/// # Errors
/// See [`ForwardError`].
pub async fn forward(
    means: Means<'_>,
    upstreams: impl Iterator<Item = Upstream>,
    outbound: Outbound,
    record: &mut RequestRecord,
) -> Result<Response<ResponseBody>, ForwardError> {
    let Outbound { mut request, class, upgrade, replay } = outbound;
    let already_proxied = request.headers().contains_key(headers::PEER_PROXIED);
    let spare = upgrade.is_none().then(|| Spare::of(&request, replay));
    means.budget.deposit();
    let mut course = Course::new(upstreams).ok_or(ForwardError::NoPeer)?;
    loop {
        let upstream = course.upstream();
        if upstream.role == Role::Peer {
            debug!("Proxying request for {} to peer at {}", request.uri().path(), upstream.address);
            // Whoever serves it must not send it on (KEP-4020).
            request.headers_mut().insert(headers::PEER_PROXIED, HeaderValue::from_static("true"));
        } else if !already_proxied {
            request.headers_mut().remove(headers::PEER_PROXIED);
        }
        let tried = match &upgrade {
            Some(upgrade) => {
                Box::pin(upgrade::attempt(means.pool, &upstream, class, request, upgrade, record)).await
            }
            None => attempt(means.pool, &upstream, course.wanted(), class, request, record).await,
        };
        let unanswered = match tried {
            Ok(response) => {
                means.vitals.answered(&upstream);
                // What a pod answers through the API server's proxy subresources is as hostile as a client.
                if headers::have_room(response.headers()) {
                    return Ok(response);
                }
                return Err(ForwardError::ResponseTooLarge { address: upstream.address });
            }
            Err(unanswered) => unanswered,
        };
        record.failed_at(&upstream, unanswered.kind());
        let connection_end = unanswered.connection_end();
        if connection_end.is_none() && unanswered.blames_server() {
            means.vitals.failed(&upstream);
        } else if matches!(unanswered, Unanswered::TurnedAway { .. }) {
            means.vitals.doubted();
        }
        let goes_on = course.goes_on_after(&unanswered, means.vitals);
        let budget = goes_on.then_some(means.budget);
        let (again, outcome) = after(unanswered, upstream, spare.as_ref(), budget);
        match &outcome {
            Ok(_) => debug!(address = %upstream.address, "turned away: the server is shutting down"),
            Err(failure) => debug!(error = %chain(failure), ?connection_end, "no answer"),
        }
        request = match again {
            Some(request) if goes_on => request,
            _ => return outcome,
        };
    }
}

/// Time an HTTP/1.1 upstream has for its response header; kube-apiserver's own limit on a request is 60 s.
const HEADER_PATIENCE: Duration = Duration::from_secs(75);

/// What is left to send after a try, and what the client gets if that is nothing. Without a budget nothing is sent again.
fn after(
    unanswered: Unanswered,
    upstream: Upstream,
    spare: Option<&Spare>,
    budget: Option<&Budget>,
) -> (Option<Request<RequestBody>>, Result<Response<ResponseBody>, ForwardError>) {
    match unanswered {
        Unanswered::Unsent { request, source, .. } => {
            (Some(*request), Err(ForwardError::NotReached { source }))
        }
        Unanswered::TurnedAway { response } => {
            (spare.zip(budget).and_then(|(spare, budget)| spare.after_turned_away(budget)), Ok(*response))
        }
        Unanswered::Broken { source, .. } => {
            let again = spare.zip(budget).and_then(|(spare, budget)| spare.again(&source, budget));
            // What may be sent again by this proxy may be so by the client; it is told to.
            let repeatable = spare.is_some_and(|spare| spare.is_repeatable(&source));
            let address = upstream.address;
            let failure = if repeatable {
                ForwardError::NotReached { source: Box::new(source) }
            } else {
                ForwardError::Broken { address, source }
            };
            (again, Err(failure))
        }
        Unanswered::Late => (None, Err(ForwardError::Late { address: upstream.address })),
    }
}

async fn attempt(
    pool: &Pool,
    upstream: &Upstream,
    wanted: Wanted,
    class: TrustClass,
    mut request: Request<RequestBody>,
    record: &mut RequestRecord,
) -> Result<Response<ResponseBody>, Unanswered> {
    let mut lease = match pool.acquire(upstream, class, wanted).await {
        Ok(lease) => lease,
        Err(error) => return Err(Unanswered::not_connected(request, error)),
    };
    record.sent_to(upstream);
    // Its answer has the length of a body and none.
    let asks_for_head = request.method() == Method::HEAD;
    let sent = match &mut lease.connection {
        Connection::Http2(sender) => sender.requests.try_send_request(request).await,
        Connection::Http1(sender) => {
            to_origin_form(&mut request);
            let sent = timeout(HEADER_PATIENCE, sender.try_send_request(request)).await;
            sent.map_err(|_| Unanswered::Late)?
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
                None => Unanswered::Broken { source: refused.into_error(), stale: lease.reused },
            });
        }
    };
    let (head, body) = response.into_parts();
    let body = if asks_for_head { Ok(body.into()) } else { BegunBody::whole_if_small(body).await };
    let body = body.map_err(|source| Unanswered::Broken { source, stale: lease.reused })?;
    let turned_away = is_turned_away(&head, &body);
    lease.guard.keep(lease.connection);
    let response = Response::from_parts(head, ResponseBody::upstream(body, Some(lease.guard)));
    if turned_away { Err(Unanswered::TurnedAway { response: Box::new(response) }) } else { Ok(response) }
}

/// `https://AUTHORITY/PATH?QUERY` with path and query byte for byte as the client sent them.
fn absolute<B>(request: &Request<B>) -> Result<Uri, ForwardError> {
    // An empty one is what clients send that have no name for the server (RFC 9112 section 3.2).
    let host = request.headers().get(HOST).filter(|host| !host.is_empty());
    let authority = match (request.uri().authority(), host) {
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
