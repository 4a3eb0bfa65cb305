//! Sends requests on fresh or kept connections and says in one line what went wrong.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use mvproxy_tests::client::{Answer, Client, ClientOptions};
use tokio::time::timeout;

/// A client gives up after this time; everything that takes so long has failed.
const LIMIT: Duration = Duration::from_secs(10);

/// How a client uses connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connecting {
    /// A new one for each request, as `kubectl`.
    Fresh,
    /// One for as long as the server keeps it, as client-go.
    Kept,
}

/// One client.
pub struct Session {
    options: ClientOptions,
    connecting: Connecting,
    open: Option<Client>,
    /// Connections opened so far.
    pub connections: usize,
}

impl Session {
    pub fn new(options: ClientOptions, connecting: Connecting) -> Self {
        Self { options, connecting, open: None, connections: 0 }
    }

    /// One request and its whole answer.
    pub async fn fetch(&mut self, request: Request<Bytes>) -> Result<Answer, String> {
        let exchanged = async {
            let (client, response) = self.send(request).await?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(|error| format!("the body broke off: {error:#}"))?;
            let answer = Answer { status: head.status, headers: head.headers, body: body.to_bytes() };
            self.open = (self.connecting == Connecting::Kept).then_some(client);
            Ok(answer)
        };
        timeout(LIMIT, exchanged).await.unwrap_or_else(|_| Err(format!("nothing within {LIMIT:?}")))
    }

    /// One request and the head of its answer; the connection is kept for its body.
    pub async fn open(&mut self, request: Request<Bytes>) -> Result<Response<Incoming>, String> {
        let opened = async {
            let (client, response) = self.send(request).await?;
            self.open = Some(client);
            Ok(response)
        };
        timeout(LIMIT, opened).await.unwrap_or_else(|_| Err(format!("nothing within {LIMIT:?}")))
    }

    /// Sends a request; once more where the open connection ended before it was sent, as Go's and every other client does.
    async fn send(&mut self, request: Request<Bytes>) -> Result<(Client, Response<Incoming>), String> {
        let was_open = self.open.is_some();
        let mut client = self.client().await?;
        match client.send(request.clone()).await {
            Ok(response) => return Ok((client, response)),
            Err(error) if was_open && was_not_sent(&error) => {}
            Err(error) => return Err(format!("no answer: {error:#}")),
        }
        let mut client = self.client().await?;
        let response = client.send(request).await.map_err(|error| format!("no answer: {error:#}"))?;
        Ok((client, response))
    }

    /// The open connection unless the server has closed it, else a new one. It is forgotten until a request on it ends well.
    async fn client(&mut self) -> Result<Client, String> {
        if let Some(client) = self.open.take().filter(|client| !client.is_closed()) {
            return Ok(client);
        }
        self.connections += 1;
        Client::connect(&self.options).await.map_err(|error| format!("no connection: {error:#}"))
    }
}

fn was_not_sent(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(hyper::Error::is_canceled)
}
