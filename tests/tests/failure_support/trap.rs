//! Stands between a proxy and an API server and fails in the ways that only a network or a dying process can.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mvproxy_tests::pki::Identity;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Passes connections on until told otherwise.
pub struct Trap {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    target: SocketAddr,
    acceptor: TlsAcceptor,
    state: Mutex<State>,
}

struct State {
    /// Cancelled to reset all open connections.
    cut: CancellationToken,
    /// Cancelled to let nothing through any more, in any direction.
    frozen: CancellationToken,
    /// Whether new connections draw a GOAWAY that says that their request was not processed.
    goes_away: Option<Until>,
    /// Requests that drew one, without and with a body.
    sent_away: [usize; 2],
}

/// How long new connections draw a GOAWAY.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    AnyRequest,
    RequestWithBody,
}

impl Trap {
    /// A trap before `target`, which shows the certificate `serving`.
    pub async fn before(target: SocketAddr, serving: &Identity) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cut, frozen) = (CancellationToken::new(), CancellationToken::new());
        let state = Mutex::new(State { cut, frozen, goes_away: None, sent_away: [0; 2] });
        let shared = Arc::new(Shared { target, acceptor: acceptor(serving), state });
        let accepting = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(Arc::clone(&shared).serve(stream));
                }
            }
        });
        Self { address, shared, accepting }
    }

    /// Resets all open connections; new ones are served.
    pub fn cut(&self) {
        let mut state = self.shared.state.lock().unwrap();
        std::mem::take(&mut state.cut).cancel();
    }

    /// Refuses new connections and resets the open ones, as a dead process does.
    pub fn vanish(&self) {
        self.accepting.abort();
        self.cut();
    }

    /// Lets nothing through: neither open connections nor new ones get an answer, as when a machine hangs.
    pub fn freeze(&self) {
        self.shared.state.lock().unwrap().frozen.cancel();
    }

    /// Is well again; connections that were open while it was frozen are reset.
    pub fn thaw(&self) {
        self.shared.state.lock().unwrap().frozen = CancellationToken::new();
        self.cut();
    }

    /// The next request with a body draws a GOAWAY that says that it was not processed.
    pub fn go_away(&self) {
        self.shared.state.lock().unwrap().goes_away = Some(Until::RequestWithBody);
        self.cut();
    }

    /// The next request on a new connection draws such a GOAWAY; open connections go on.
    pub fn go_away_once(&self) {
        self.shared.state.lock().unwrap().goes_away = Some(Until::AnyRequest);
    }

    /// Requests that drew a GOAWAY, without and with a body.
    pub fn sent_away(&self) -> [usize; 2] {
        self.shared.state.lock().unwrap().sent_away
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        self.vanish();
    }
}

impl Shared {
    async fn serve(self: Arc<Self>, mut client: TcpStream) {
        let (cut, frozen, goes_away) = {
            let state = self.state.lock().unwrap();
            (state.cut.clone(), state.frozen.clone(), state.goes_away)
        };
        let passed_on = async {
            if goes_away.is_some() {
                // A client that leaves early is part of what is tested.
                let _ = self.send_away(&mut client).await;
                return;
            }
            let Ok(mut server) = TcpStream::connect(self.target).await else { return };
            tokio::select! {
                _ = copy_bidirectional(&mut client, &mut server) => {}
                () = frozen.cancelled() => std::future::pending().await,
            }
        };
        let was_cut = tokio::select! {
            () = passed_on => false,
            () = cut.cancelled() => true,
        };
        if was_cut {
            SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        }
    }

    /// Speaks just enough HTTP/2 to read one request and to refuse it (RFC 9113 section 6.8).
    async fn send_away(&self, client: &mut TcpStream) -> std::io::Result<()> {
        let mut tls = self.acceptor.accept(client).await?;
        let mut preface = [0; 24];
        tls.read_exact(&mut preface).await?;
        tls.write_all(&frame(SETTINGS, 0, &[])).await?;
        loop {
            let mut head = [0; 9];
            tls.read_exact(&mut head).await?;
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let mut payload = vec![0; length];
            tls.read_exact(&mut payload).await?;
            let (kind, flags) = (head[3], head[4]);
            match kind {
                SETTINGS if flags & ACK == 0 => tls.write_all(&frame(SETTINGS, ACK, &[])).await?,
                PING if flags & ACK == 0 => tls.write_all(&frame(PING, ACK, &payload)).await?,
                HEADERS | DATA if flags & END_STREAM != 0 => {
                    {
                        let mut state = self.state.lock().unwrap();
                        state.sent_away[usize::from(kind == DATA)] += 1;
                        if kind == DATA || state.goes_away == Some(Until::AnyRequest) {
                            state.goes_away = None;
                        }
                    }
                    // Last processed stream 0, no error.
                    tls.write_all(&frame(GOAWAY, 0, &[0; 8])).await?;
                    tls.shutdown().await?;
                    // Closing with bytes unread would reset the connection, and the client might never see the GOAWAY.
                    return tokio::io::copy(&mut tls, &mut tokio::io::sink()).await.map(drop);
                }
                _ => {}
            }
        }
    }
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;

/// A frame of the connection itself (stream 0).
fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("these frames are short");
    let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, 0];
    frame.extend(payload);
    frame
}

fn acceptor(serving: &Identity) -> TlsAcceptor {
    let chain = CertificateDer::pem_slice_iter(serving.cert_pem.as_bytes()).collect::<Result<_, _>>();
    let key = PrivateKeyDer::from_pem_slice(serving.key_pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(chain.unwrap(), key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}
