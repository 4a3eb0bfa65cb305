//! Stands in for an API server that speaks HTTP/1.1 only and takes no byte that two readers could understand differently.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use mvproxy_tests::pki::Identity;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A server that records what it reads and answers every request with 200.
pub struct Wire {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

/// One request, or what was not one.
#[derive(Clone, Debug)]
pub enum Seen {
    Request(WireRequest),
    /// Bytes that a strict reader refuses, and why.
    Ambiguous(&'static str, String),
}

/// A request as it stood on the wire.
#[derive(Clone, Debug, Default)]
pub struct WireRequest {
    pub method: String,
    pub target: String,
    /// In order; names as they were written.
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    /// Whether the body came to its end.
    pub is_whole: bool,
}

impl Wire {
    pub async fn start(serving: &Identity) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (acceptor, seen) = (acceptor(serving), Arc::<Mutex<Vec<Seen>>>::default());
        let task = tokio::spawn({
            let seen = Arc::clone(&seen);
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, acceptor.clone(), Arc::clone(&seen)));
                }
            }
        });
        Self { address, seen, task }
    }

    /// What was read since the last call, without what the proxy asks for itself.
    pub fn take(&self) -> Vec<Seen> {
        let mut seen = std::mem::take(&mut *self.seen.lock().unwrap());
        seen.retain(|one| !matches!(one, Seen::Request(request) if request.is_the_proxys_own()));
        seen
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl WireRequest {
    pub fn values(&self, name: &str) -> Vec<&[u8]> {
        let named = self.headers.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_slice()).collect()
    }

    fn is_the_proxys_own(&self) -> bool {
        self.values("user-agent").iter().any(|agent| agent.starts_with(b"mvproxy/"))
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, seen: Arc<Mutex<Vec<Seen>>>) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let mut reader = Reader { stream, buffer: Vec::new() };
    loop {
        let (request, ended) = reader.request().await;
        let is_whole = ended.is_ok();
        let read = match ended {
            Err(Ended::Ambiguous(why, bytes)) => {
                Some(Seen::Ambiguous(why, String::from_utf8_lossy(&bytes).into_owned()))
            }
            // Nothing came, or the proxy hung up in the middle, as it does when its client does.
            Err(Ended::Early) if request.method.is_empty() => None,
            _ => Some(Seen::Request(request)),
        };
        seen.lock().unwrap().extend(read);
        if !is_whole {
            return;
        }
        let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
        if reader.stream.write_all(answer).await.is_err() {
            return;
        }
    }
}

/// Why a request was not read to its end.
enum Ended {
    Early,
    Ambiguous(&'static str, Vec<u8>),
}

struct Reader {
    stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
}

impl Reader {
    /// What was read of a request, and whether that is all of it.
    async fn request(&mut self) -> (WireRequest, Result<(), Ended>) {
        let mut request = WireRequest::default();
        let ended = self.read(&mut request).await;
        request.is_whole = ended.is_ok();
        (request, ended)
    }

    async fn read(&mut self, request: &mut WireRequest) -> Result<(), Ended> {
        let line = self.line().await?;
        let parts: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let [method, target, b"HTTP/1.1"] = parts[..] else {
            return Err(Ended::Ambiguous("not a request line", line));
        };
        if !is_token(method) || !target.iter().all(|byte| (0x21..0x7f).contains(byte) || *byte >= 0x80) {
            return Err(Ended::Ambiguous("not a request line", line));
        }
        (request.method, request.target) = (text(method), text(target));
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                break;
            }
            let header = header(&line).ok_or_else(|| Ended::Ambiguous("not a header", line.clone()))?;
            request.headers.push(header);
        }
        let (lengths, codings) = (request.values("content-length"), request.values("transfer-encoding"));
        match (&lengths[..], &codings[..]) {
            ([], []) => Ok(()),
            ([length], []) if !length.is_empty() && length.iter().all(u8::is_ascii_digit) => {
                let length = text(length).parse().map_err(|_| Ended::Ambiguous("length", length.to_vec()))?;
                request.body = self.exactly(length).await?;
                Ok(())
            }
            ([], [b"chunked"]) => self.chunks(request).await,
            _ => Err(Ended::Ambiguous("two ways to tell the length", format!("{request:?}").into_bytes())),
        }
    }

    async fn chunks(&mut self, request: &mut WireRequest) -> Result<(), Ended> {
        loop {
            let line = self.line().await?;
            let is_size = (1..=8).contains(&line.len()) && line.iter().all(u8::is_ascii_hexdigit);
            if !is_size {
                return Err(Ended::Ambiguous("not the size of a chunk", line));
            }
            let size = usize::from_str_radix(&text(&line), 16).unwrap();
            if size > 0 {
                request.body.extend(self.exactly(size).await?);
            }
            let end = self.line().await?;
            match (size, end.is_empty()) {
                (0, true) => return Ok(()),
                (0, false) => return Err(Ended::Ambiguous("a trailer", end)),
                (_, true) => {}
                (_, false) => return Err(Ended::Ambiguous("more than the chunk", end)),
            }
        }
    }

    /// A line without its CRLF; no CR or LF may stand elsewhere.
    async fn line(&mut self) -> Result<Vec<u8>, Ended> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.buffer[searched..].iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.buffer.drain(..=searched + end).collect();
                line.pop();
                if line.pop() != Some(b'\r') || line.iter().any(|byte| matches!(byte, b'\r' | 0)) {
                    return Err(Ended::Ambiguous("a bare CR, LF or NUL", line));
                }
                return Ok(line);
            }
            searched = self.buffer.len();
            self.more().await?;
        }
    }

    async fn exactly(&mut self, length: usize) -> Result<Vec<u8>, Ended> {
        while self.buffer.len() < length {
            self.more().await?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    async fn more(&mut self) -> Result<(), Ended> {
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(1..) => Ok(()),
            Ok(0) | Err(_) => Err(Ended::Early),
        }
    }
}

fn header(line: &[u8]) -> Option<(String, Vec<u8>)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    let is_value = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    (is_token(name) && value.iter().all(is_value)).then(|| (text(name), value.to_vec()))
}

/// RFC 9110 section 5.6.2.
fn is_token(name: &[u8]) -> bool {
    !name.is_empty()
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn acceptor(serving: &Identity) -> TlsAcceptor {
    let chain = CertificateDer::pem_slice_iter(serving.cert_pem.as_bytes()).collect::<Result<_, _>>();
    let key = PrivateKeyDer::from_pem_slice(serving.key_pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(chain.unwrap(), key).unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}
