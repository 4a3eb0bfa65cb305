//! Calls API servers as different people, over HTTP/1.1 and HTTP/2.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use hyper::body::Incoming;
use mvproxy_tests::client::{Answer, Client, ClientOptions, Trust};
use mvproxy_tests::pki::{Identity, Pki, Subject};
use serde_json::Value;

use super::promptly;

/// Protocol version of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http {
    One,
    Two,
}

pub const BOTH: [Http; 2] = [Http::One, Http::Two];

/// Somebody with a certificate, a token, headers, or nothing at all.
#[derive(Clone)]
pub struct Caller {
    pub label: String,
    pub trust: Trust,
    pub identity: Option<Identity>,
    pub headers: HeaderMap,
}

impl Caller {
    pub fn nobody(pki: &Pki) -> Self {
        let trust = Trust::Ca(pki.ca_pem().to_owned());
        Self { label: "nobody".to_owned(), trust, identity: None, headers: HeaderMap::new() }
    }

    /// With the token that stand-ins know.
    pub fn bob(pki: &Pki) -> Self {
        Self::nobody(pki).labelled("bob's token").token("bob-token")
    }

    pub fn alice(pki: &Pki) -> Self {
        let alice = Subject { common_name: "alice", organizations: &["dev", "ops"], uid: None };
        Self::nobody(pki).labelled("alice's certificate").certificate(pki.client(&alice))
    }

    pub fn admin(pki: &Pki) -> Self {
        let admin =
            Subject { common_name: "kubernetes-admin", organizations: &["system:masters"], uid: None };
        Self::nobody(pki).labelled("an administrator").certificate(pki.client(&admin))
    }

    /// A front proxy that asserts nobody yet.
    pub fn front_proxy(pki: &Pki) -> Self {
        let identity = pki.front_proxy_client().clone();
        Self { identity: Some(identity), ..Self::nobody(pki).labelled("a front proxy") }
    }

    #[must_use]
    pub fn labelled(self, label: &str) -> Self {
        Self { label: label.to_owned(), ..self }
    }

    #[must_use]
    pub fn certificate(self, issued: Result<Identity, impl std::fmt::Debug>) -> Self {
        Self { identity: Some(issued.unwrap()), ..self }
    }

    #[must_use]
    pub fn token(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    /// Adds a header to every request; the value may be any bytes that a header can carry.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        self.headers.append(name, HeaderValue::from_bytes(value.as_ref()).unwrap());
        self
    }

    pub fn options(&self, address: SocketAddr, http: Http) -> ClientOptions {
        ClientOptions {
            identity: self.identity.clone(),
            http2: http == Http::Two,
            ..ClientOptions::new(address, self.trust.clone())
        }
    }

    /// Opens a connection that is used until the session is dropped.
    pub async fn connect(&self, address: SocketAddr, http: Http) -> Session {
        let client = promptly("connecting", Client::connect(&self.options(address, http))).await;
        let client = client.unwrap_or_else(|error| panic!("{} over {http:?}: {error:#}", self.label));
        Session { client, headers: self.headers.clone() }
    }

    /// One request on a connection of its own.
    pub async fn ask(&self, address: SocketAddr, http: Http, request: Request<Bytes>) -> Answer {
        self.connect(address, http).await.fetch(request).await
    }

    /// One GET on a connection of its own.
    pub async fn get(&self, address: SocketAddr, http: Http, target: &str) -> Answer {
        self.ask(address, http, request("GET", target)).await
    }

    /// Who the server at `address` takes the caller for.
    pub async fn who_am_i(&self, address: SocketAddr, http: Http) -> Answer {
        let mut review = request("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews");
        *review.body_mut() =
            Bytes::from_static(br#"{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#);
        self.ask(address, http, review).await
    }
}

/// A request without body and headers.
pub fn request(method: &str, target: &str) -> Request<Bytes> {
    Request::builder().method(method).uri(target).body(Bytes::new()).unwrap()
}

/// One connection of one caller.
pub struct Session {
    pub client: Client,
    headers: HeaderMap,
}

impl Session {
    /// Sends a request and waits for the head of its answer.
    pub async fn open(&mut self, request: Request<Bytes>) -> anyhow::Result<Response<Incoming>> {
        let request = self.signed(request);
        promptly("the head of an answer", self.client.send(request)).await
    }

    /// Sends a request and reads the whole answer, unless that breaks off.
    pub async fn try_fetch(&mut self, request: Request<Bytes>) -> anyhow::Result<Answer> {
        let request = self.signed(request);
        promptly("a whole answer", self.client.fetch(request)).await
    }

    pub async fn fetch(&mut self, request: Request<Bytes>) -> Answer {
        let target = request.uri().to_string();
        self.try_fetch(request).await.unwrap_or_else(|error| panic!("{target}: {error:#}"))
    }

    pub async fn get(&mut self, target: &str) -> Answer {
        self.fetch(request("GET", target)).await
    }

    pub async fn json(&mut self, method: &str, target: &str, body: &Value) -> Answer {
        let media_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let mut request = request(method, target);
        request.headers_mut().insert("content-type", HeaderValue::from_static(media_type));
        *request.body_mut() = Bytes::from(body.to_string());
        self.fetch(request).await
    }

    fn signed(&self, mut request: Request<Bytes>) -> Request<Bytes> {
        for (name, value) in &self.headers {
            request.headers_mut().append(name, value.clone());
        }
        request
    }
}
