//! Stands in for a kube-apiserver: behaves like one where a proxy can tell, and lets tests look inside.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use self::auth::Authenticator;
use self::loopback::Loopback;
use self::presence::Presence;
use self::recorder::Recorder;
use self::server::Shared;
use crate::pki::{Identity, Pki};
use crate::store::Store;

mod auth;
mod authorize;
mod call;
mod clock;
mod cut;
mod der;
mod discovery;
mod documents;
mod faults;
mod handle;
mod health;
mod loopback;
mod openapi;
mod presence;
mod query;
mod recorder;
mod request_info;
mod respond;
mod selector;
mod server;
mod status;
mod storage;
pub(crate) mod tls;
mod turn_away;
mod upgrade;
mod user;
mod watch;

pub use auth::{BadTokenFile, RequestHeader, StaticToken, parse_token_file};
pub use documents::{Aggregation, Documents, NAMES as DOCUMENT_NAMES, UnknownDocuments};
pub use faults::{Fault, Faults, TurnedAway};
pub use recorder::RecordedRequest;
pub use request_info::{RequestInfo, UnreadableUrl};
pub use server::{MAX_HEADER_BYTES, MAX_STREAMS};
pub use tls::LOOPBACK_SERVER_NAME;
pub use upgrade::websocket_accept;
pub use user::User;

/// What a stand-in is started with.
#[derive(Clone)]
pub struct StandinOptions {
    /// What it serves.
    pub documents: Documents,
    /// Where its objects live, possibly shared with others.
    pub store: Store,
    /// Where it listens; port 0 picks one.
    pub bind: SocketAddr,
    /// Where it dials itself; its own port when absent. Another server there is noticed as a failure.
    pub loopback: Option<SocketAddr>,
    /// Its address in the `kubernetes` `EndpointSlice`; the bound one when absent.
    pub advertise: Option<IpAddr>,
    /// Name its server ID is derived from; must differ between servers that share a store.
    pub hostname: String,
    /// Serving certificate and key.
    pub serving: Identity,
    /// CA bundle (PEM) of client certificates (`--client-ca-file`).
    pub client_ca: Option<String>,
    /// How front proxies assert identities (`--requestheader-*`).
    pub request_header: Option<RequestHeader>,
    /// Static tokens (`--token-auth-file`).
    pub tokens: Vec<StaticToken>,
    /// How often watches that allow bookmarks get one; kube-apiserver sends about one a minute.
    pub bookmark_interval: Duration,
    /// Time between what a write does and its answer: a server that is killed then leaves its client in doubt.
    pub answer_delay: Duration,
    /// Whether an unauthenticated request ends its HTTP/1.1 connection as well as an HTTP/2 one. kube-apiserver's
    /// gate does so over HTTP/2 only.
    pub close_unauthenticated_http1: bool,
}

impl StandinOptions {
    /// A server on an ephemeral port of 127.0.0.1 with certificates and CAs of `pki` and the token `bob-token`.
    ///
    /// # Errors
    /// When there are no recorded documents of that name or `hostname` is not a DNS name.
    pub fn from_pki(pki: &Pki, hostname: &str, documents: &str, store: &Store) -> Result<Self> {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Ok(Self {
            documents: Documents::load(documents)?,
            store: store.clone(),
            bind: SocketAddr::new(ip, 0),
            loopback: None,
            advertise: None,
            hostname: hostname.to_owned(),
            serving: pki.serving(hostname, ip)?,
            client_ca: Some(pki.ca_pem().to_owned()),
            request_header: Some(RequestHeader::usual(pki.front_proxy_ca_pem())),
            tokens: parse_token_file(crate::pki::TOKENS_CSV)?,
            bookmark_interval: Duration::from_secs(10),
            answer_delay: Duration::ZERO,
            close_unauthenticated_http1: true,
        })
    }
}

/// A running stand-in; dropping it is like killing its process.
pub struct Standin {
    /// Where it listens.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    presence: Arc<Presence>,
    server: JoinHandle<()>,
    background: Vec<JoinHandle<()>>,
}

/// What one stand-in has seen; outlives it.
pub struct Records(Arc<Shared>);

impl Records {
    /// The requests that arrived, oldest first; its own loopback requests are left out.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.0.recorder.all()
    }
}

impl Standin {
    /// Listens, announces itself in the store and connects to itself once.
    ///
    /// # Errors
    /// When certificates do not parse, the address is taken or the store cannot be reached.
    pub async fn start(options: StandinOptions) -> Result<Self> {
        let listener =
            TcpListener::bind(options.bind).await.with_context(|| format!("cannot bind {}", options.bind))?;
        let addr = listener.local_addr()?;
        let advertised =
            SocketAddr::new(options.advertise.unwrap_or(loopback::address(addr).ip()), addr.port());
        let loopback_address = options.loopback.unwrap_or(loopback::address(addr));
        let peer_address = options.documents.announces_peer_address();
        let presence =
            Arc::new(Presence::new(options.store.clone(), &options.hostname, advertised, peer_address));
        let (shared, acceptor) = assemble(options, advertised)?;
        presence.appear().await?;
        let server = tokio::spawn(server::run(shared.clone(), listener, acceptor));
        shared.loopback.observe(loopback_address).await;
        let background = vec![
            tokio::spawn(loopback::run(shared.clone(), loopback_address)),
            tokio::spawn(presence::run(presence.clone())),
        ];
        Ok(Self { addr, shared, presence, server, background })
    }

    /// The requests that arrived, oldest first; its own loopback requests are left out.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.shared.recorder.all()
    }

    /// The same, to be looked at when it has ended.
    pub fn records(&self) -> Records {
        Records(self.shared.clone())
    }

    /// Forgets the requests that arrived.
    pub fn clear_requests(&self) {
        self.shared.recorder.clear();
    }

    /// How many connections completed a TLS handshake, its own included.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// What goes wrong on purpose.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// How often it could not reach itself.
    pub fn loopback_failures(&self) -> u64 {
        self.shared.loopback.failures()
    }

    /// How often it reached itself.
    pub fn loopback_successes(&self) -> u64 {
        self.shared.loopback.successes()
    }

    /// Serves `documents` from the next request on, as after an upgrade or a change of CRDs.
    pub fn set_documents(&self, documents: Documents) {
        *self.shared.documents.write().expect("no holder of this lock panics") = Arc::new(documents);
    }

    /// Believes certificates of these CA bundles (PEM) from the next request on, on open connections too, as kube-apiserver
    /// does when the files change.
    ///
    /// # Errors
    /// When a bundle cannot be read.
    pub fn trust(&self, client_ca: Option<&str>, request_header: Option<RequestHeader>) -> Result<()> {
        let (tokens, loopback_token) = self.shared.tokens.clone();
        let renewed = Authenticator::new(client_ca, request_header, tokens, loopback_token)?;
        *self.shared.authenticator.write().expect("no holder of this lock panics") = Arc::new(renewed);
        Ok(())
    }

    /// Resets every open connection; new ones are served.
    pub fn reset_connections(&self) -> impl Future<Output = ()> + use<> {
        std::mem::take(&mut *self.shared.open.lock().expect("no holder of this lock panics")).reset()
    }

    /// Stops as kube-apiserver does on SIGTERM: not ready, lease and endpoint withdrawn, watches ended, GOAWAY on
    /// every connection; what does not finish in five seconds is cut.
    ///
    /// # Errors
    /// When the store could not be told; the server has stopped all the same.
    pub async fn stop(mut self) -> Result<()> {
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.background.drain(..).for_each(|task| task.abort());
        let told = self.presence.vanish().await;
        self.shared.draining.cancel();
        let ended = (&mut self.server).await;
        told.context("cannot withdraw from the store")?;
        ended.context("the server failed while it stopped")
    }
}

impl Drop for Standin {
    fn drop(&mut self) {
        self.shared.killed.cancel();
        self.background.drain(..).for_each(|task| task.abort());
        self.server.abort();
    }
}

fn assemble(options: StandinOptions, advertised: SocketAddr) -> Result<(Arc<Shared>, TlsAcceptor)> {
    let token = clock::uuid();
    let certificate = tls::loopback_certificate()?;
    let loopback = Loopback::new(token.clone(), certificate.end_entity_cert()?.clone().into_owned());
    let tokens = (options.tokens, token);
    let (client_ca, (known, loopback_token)) = (options.client_ca.as_deref(), tokens.clone());
    let authenticator = Authenticator::new(client_ca, options.request_header, known, loopback_token)?;
    let config = tls::server_config(&options.serving, certificate, authenticator.ca_subjects())?;
    let shared = Shared {
        address: advertised.to_string(),
        documents: RwLock::new(Arc::new(options.documents)),
        store: options.store,
        authenticator: RwLock::new(Arc::new(authenticator)),
        tokens,
        recorder: Recorder::default(),
        faults: Arc::new(Faults::default()),
        loopback,
        bookmark_interval: options.bookmark_interval,
        answer_delay: options.answer_delay,
        close_unauthenticated_http1: options.close_unauthenticated_http1,
        priority_ids: [clock::uuid(), clock::uuid()],
        connections: AtomicU64::new(0),
        stopping: AtomicBool::new(false),
        open: Mutex::default(),
        draining: CancellationToken::new(),
        killed: CancellationToken::new(),
    };
    Ok((Arc::new(shared), TlsAcceptor::from(Arc::new(config))))
}
