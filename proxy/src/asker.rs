//! Sends the proxy's own requests to API servers, under its own name.

use bytes::Bytes;
use http::header::{ACCEPT, IF_NONE_MATCH, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;

use crate::forward::headers::PEER_PROXIED;
use crate::forward::pool::Wanted;
use crate::forward::{Connection, Pool, RequestBody, to_origin_form};
use crate::identity::names::AssertionError;
use crate::identity::x509::User;
use crate::identity::{Assertion, IdentityHeaders};
use crate::tls::APISERVER_NAME;
use crate::upstream::{TrustClass, Upstream};

/// Asks over connections of its own, asserting its identity with the front-proxy certificate.
#[derive(Debug)]
pub struct Asker {
    pool: Pool,
    identity: Assertion,
}

/// Why a server did not answer.
pub type Unreached = Box<dyn std::error::Error + Send + Sync>;

/// Why an answer's body was not had.
#[derive(Debug)]
pub enum Unread {
    /// It has more bytes than it may.
    TooLarge,
    /// It broke off.
    Broken(Unreached),
}

/// A body of at most `limit` bytes. What is too large by its own account is not even begun.
///
/// # Errors
/// See [`Unread`].
pub async fn read(body: Incoming, limit: usize) -> Result<Bytes, Unread> {
    if body.size_hint().lower() > limit as u64 {
        return Err(Unread::TooLarge);
    }
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Unread::TooLarge),
        Err(error) => Err(Unread::Broken(error)),
    }
}

impl Asker {
    /// The user that the proxy is to API servers when it asks for itself. It has the rights it is given, and none by itself.
    pub const NAME: &'static str = "system:mixed-version-proxy";

    /// One that asserts `identity`.
    pub fn new(pool: Pool, identity: Assertion) -> Self {
        Self { pool, identity }
    }

    /// The headers that assert the proxy's own name.
    ///
    /// # Errors
    /// When no header name is configured for it.
    pub fn own_identity(names: &IdentityHeaders) -> Result<Assertion, AssertionError> {
        names.assertion_of(&User {
            name: Self::NAME.to_owned(),
            groups: vec!["system:authenticated".to_owned()],
            ..User::default()
        })
    }

    /// Forgets connections to all other servers.
    pub fn keep_only(&self, upstreams: &[Upstream]) {
        self.pool.keep_only(upstreams);
    }

    /// GETs a path; `etag` makes the request conditional.
    ///
    /// # Errors
    /// When the path is none, no connection came about or it broke off before a response header.
    pub async fn get(
        &self,
        upstream: &Upstream,
        path: &str,
        accept: &'static str,
        etag: Option<HeaderValue>,
    ) -> Result<Response<Incoming>, Unreached> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        if let Some(etag) = etag {
            headers.insert(IF_NONE_MATCH, etag);
        }
        self.send(upstream, Method::GET, path, headers, Bytes::new()).await
    }

    /// Sends a request of its own.
    ///
    /// # Errors
    /// When the path is none, no connection came about or it broke off before a response header.
    pub async fn send(
        &self,
        upstream: &Upstream,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, Unreached> {
        let mut request = self.request(method, path, headers, body)?;
        let mut lease = self.pool.acquire(upstream, TrustClass::Asserted, Wanted::Any).await?;
        Ok(match &mut lease.connection {
            Connection::Http2(sender) => sender.requests.send_request(request).await?,
            Connection::Http1(sender) => {
                to_origin_form(&mut request);
                sender.send_request(request).await?
            }
        })
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Request<RequestBody>, http::Error> {
        let body = if body.is_empty() { RequestBody::Empty } else { RequestBody::Own(Some(body)) };
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() =
            Uri::builder().scheme("https").authority(APISERVER_NAME).path_and_query(path).build()?;
        *request.headers_mut() = headers;
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("mvproxy/", env!("CARGO_PKG_VERSION"))));
        // A proxy in front of the peer must let the peer itself answer.
        headers.insert(PEER_PROXIED, HeaderValue::from_static("true"));
        for (name, value) in self.identity.iter() {
            headers.append(name.clone(), value.clone());
        }
        Ok(request)
    }
}
