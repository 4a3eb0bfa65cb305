//! Sends the proxy's own requests to API servers, under its own name.

use http::header::{ACCEPT, IF_NONE_MATCH, USER_AGENT};
use http::{HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;

use crate::forward::headers::PEER_PROXIED;
use crate::forward::{Connection, Pool, RequestBody, to_origin_form};
use crate::identity::Assertion;
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

impl Asker {
    /// One that asserts `identity`.
    pub fn new(pool: Pool, identity: Assertion) -> Self {
        Self { pool, identity }
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
        let mut lease = self.pool.acquire(upstream, TrustClass::Asserted).await?;
        let mut request = self.request(path, accept, etag)?;
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
        path: &str,
        accept: &'static str,
        etag: Option<HeaderValue>,
    ) -> Result<Request<RequestBody>, http::Error> {
        let mut request = Request::new(RequestBody::Empty);
        *request.uri_mut() =
            Uri::builder().scheme("https").authority(APISERVER_NAME).path_and_query(path).build()?;
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("mvproxy/", env!("CARGO_PKG_VERSION"))));
        // A proxy in front of the peer must let the peer itself answer.
        headers.insert(PEER_PROXIED, HeaderValue::from_static("true"));
        for (name, value) in self.identity.iter() {
            headers.append(name.clone(), value.clone());
        }
        if let Some(etag) = etag {
            headers.insert(IF_NONE_MATCH, etag);
        }
        Ok(request)
    }
}
