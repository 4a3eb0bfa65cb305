//! Heads of requests and responses: as large as kube-apiserver takes them, and no trouble for others when larger.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use mvproxy_tests::client::{Client, connect_tls};
use mvproxy_tests::pki::Pki;
use tokio::io::AsyncWriteExt as _;
use tokio::time::sleep;

use super::support::{BOTH, Caller, Http, Proxy, ProxyOptions, Upstream, bounded, read_head, request, whole};

/// kube-apiserver's `MaxHeaderBytes`.
const MAX_HEADER_BYTES: usize = 1 << 20;
/// What an HTTP/2 header field counts beside its name and value.
const PER_FIELD: usize = 32;

/// An API server that answers with what its path asks for.
struct Verbose {
    pki: Pki,
    proxy: Proxy,
    _upstream: Upstream,
}

impl Verbose {
    async fn start() -> Self {
        let pki = Pki::generate().unwrap();
        let serving = pki.serving("lone", [127, 0, 0, 1].into()).unwrap();
        let upstream = Upstream::start(&serving, answer).await;
        let options = ProxyOptions {
            pki: &pki,
            serving: &serving,
            local: upstream.address,
            peers: &[],
            flags: &["--workers=1"],
        };
        Self { proxy: Proxy::start(&options), pki, _upstream: upstream }
    }

    /// Asks for an answer with so many headers, while somebody else waits for one on the same connection to the API server.
    async fn answers_beside_another(&self, http: Http, names: usize, size: usize, expected: StatusCode) {
        let [alice, _, _] = self.callers();
        let what = format!("{http:?}: {names} headers of {size} bytes");
        let mut other = Client::connect(&alice.options(self.proxy.address, Http::Two)).await.unwrap();
        // It is not sent again when the connection to the API server ends.
        let slow = other.fetch(request("POST", "/version/slow"));
        let large = async {
            let path = format!("/version/{names}/{size}");
            let io = connect_tls(&alice.options(self.proxy.address, http)).await.unwrap();
            fetch(io, http, &path).await
        };
        let (slow, large) = tokio::join!(slow, large);
        let (status, found) = large.unwrap_or_else(|error| panic!("{what}: {error:#}"));
        assert_eq!(status, expected, "{what}");
        if expected == StatusCode::OK {
            assert_eq!(found, names, "{what}");
        }
        assert_eq!(slow.unwrap().status, StatusCode::OK, "beside {what}");
    }

    fn callers(&self) -> [Caller; 3] {
        [Caller::alice(&self.pki), Caller::bob(&self.pki), Caller::nobody(&self.pki)]
    }
}

/// `/version/N/SIZE`: N different headers of SIZE bytes. `/version/slow`: an answer after a while. `/version`: how many
/// bytes of padding came.
async fn answer(request: Request<Incoming>) -> Response<super::support::Body> {
    let padding = request.headers().iter().filter(|(name, _)| name.as_str().starts_with("pad-"));
    let padding: usize = padding.map(|(_, value)| value.len()).sum();
    let mut response = Response::new(whole(padding.to_string()));
    let mut numbers = request.uri().path().split('/').skip(2);
    match (numbers.next(), numbers.next().and_then(|size| size.parse().ok())) {
        (Some("slow"), _) => sleep(Duration::from_millis(300)).await,
        (Some(count), Some(size)) => {
            for number in 0..count.parse().unwrap() {
                let name = HeaderName::try_from(format!("answer-{number}")).unwrap();
                response.headers_mut().append(name, HeaderValue::try_from("v".repeat(size)).unwrap());
            }
        }
        _ => {}
    }
    response
}

/// Padding in fields of at most 60,000 bytes, so that names, values and `per_field` for each come to `total`.
fn padding(mut total: usize, per_field: usize) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    while total > 0 {
        let name = format!("pad-{:02}", fields.len());
        let overhead = name.len() + per_field;
        // The last one takes the rest, which is more than a name.
        let value = if total < 120_000 { total - overhead } else { 60_000 };
        total -= overhead + value;
        fields.push((name, "p".repeat(value)));
    }
    fields
}

#[test]
fn a_mebibyte_of_request_headers_is_taken_over_http1_and_more_is_431() {
    bounded(async {
        let node = Verbose::start().await;
        for caller in node.callers() {
            for (total, expected) in [(MAX_HEADER_BYTES, "200"), (MAX_HEADER_BYTES + 8192, "431")] {
                let mut head = "GET /version HTTP/1.1\r\nHost: k\r\n".to_owned();
                for (name, value) in &caller.headers {
                    write!(head, "{name}: {}\r\n", value.to_str().unwrap()).unwrap();
                }
                let fields = padding(total - head.len() - 2, ": \r\n".len());
                let wanted: usize = fields.iter().map(|(_, value)| value.len()).sum();
                for (name, value) in &fields {
                    write!(head, "{name}: {value}\r\n").unwrap();
                }
                head.push_str("\r\n");
                assert_eq!(head.len(), total);
                let mut stream = connect_tls(&caller.options(node.proxy.address, Http::One)).await.unwrap();
                stream.write_all(head.as_bytes()).await.unwrap();
                let answer = read_head(&mut stream).await.unwrap();
                assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{}: {answer}", caller.label);
                if expected == "200" {
                    let length = format!("content-length: {}\r\n", wanted.to_string().len());
                    assert!(answer.contains(&length), "{}: {answer}", caller.label);
                }
            }
        }
    });
}

#[test]
fn a_mebibyte_of_request_headers_is_taken_over_http2_and_more_is_431() {
    bounded(async {
        let node = Verbose::start().await;
        for caller in node.callers() {
            let mut session = caller.connect(node.proxy.address, Http::Two).await;
            for (total, expected) in [(MAX_HEADER_BYTES, 200), (MAX_HEADER_BYTES + 8192, 431)] {
                let mut get = request("GET", &format!("https://{}/version", node.proxy.address));
                let authority = node.proxy.address.to_string();
                let own = caller.headers.iter().map(|(name, value)| (name.as_str(), value.len()));
                let pseudo = [(":method", 3), (":scheme", 5), (":path", 8), (":authority", authority.len())];
                let counted: usize =
                    own.chain(pseudo).map(|(name, value)| name.len() + value + PER_FIELD).sum();
                let fields = padding(total - counted, PER_FIELD);
                let wanted: usize = fields.iter().map(|(_, value)| value.len()).sum();
                for (name, value) in fields {
                    let name = HeaderName::try_from(name).unwrap();
                    get.headers_mut().append(name, HeaderValue::try_from(value).unwrap());
                }
                let answer = session.fetch(get).await;
                assert_eq!(answer.status, expected, "{}: {}", caller.label, answer.text());
                if expected == 200 {
                    assert_eq!(answer.text(), wanted.to_string(), "{}", caller.label);
                }
            }
            assert_eq!(session.get("/version").await.status, 200, "the connection goes on");
        }
    });
}

#[test]
fn more_header_names_than_can_be_handled_are_431() {
    bounded(async {
        let node = Verbose::start().await;
        let mut session = node.callers()[0].connect(node.proxy.address, Http::Two).await;
        for (names, expected) in [(8_000, 200), (9_000, 431)] {
            let mut get = request("GET", "/version");
            for number in 0..names {
                let name = HeaderName::try_from(format!("n{number}")).unwrap();
                get.headers_mut().append(name, HeaderValue::from_static("v"));
            }
            let answer = session.fetch(get).await;
            assert_eq!(answer.status, expected, "{names}: {}", answer.text());
        }
    });
}

#[test]
fn an_answer_with_too_many_headers_is_502_and_a_large_one_passes() {
    bounded(async {
        let node = Verbose::start().await;
        for http in BOTH {
            // Names, size of each value, and what becomes of them: Go's clients take 10 MiB.
            for (names, size, expected) in [
                (8_000, 10, StatusCode::OK),
                (9_000, 10, StatusCode::BAD_GATEWAY),
                (30, 80_000, StatusCode::OK),
            ] {
                node.answers_beside_another(http, names, size, expected).await;
            }
        }
    });
}

#[test]
fn an_answer_with_too_large_headers_is_502_and_hurts_nobody_else() {
    bounded(async {
        let node = Verbose::start().await;
        // Compressing so much takes a build without optimisation a while.
        node.answers_beside_another(Http::Two, 140, 80_000, StatusCode::BAD_GATEWAY).await;
    });
}

/// Status and number of `answer-` headers, by a client that takes any.
async fn fetch(
    io: tokio_rustls::client::TlsStream<tokio::net::TcpStream>,
    http: Http,
    path: &str,
) -> anyhow::Result<(StatusCode, usize)> {
    use hyper::client::conn::{http1, http2};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let uri = format!("https://kubernetes{path}");
    let get = Request::get(uri).header("host", "kubernetes").body(http_body_util::Full::new(Bytes::new()))?;
    let response = match http {
        Http::One => {
            let mut builder = http1::Builder::new();
            builder.max_buf_size(16 << 20).max_headers(16_384);
            let (mut sender, connection) = builder.handshake(TokioIo::new(io)).await?;
            tokio::spawn(connection);
            sender.send_request(get).await?
        }
        Http::Two => {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.max_header_list_size(16 << 20);
            let (mut sender, connection) = builder.handshake(TokioIo::new(io)).await?;
            tokio::spawn(connection);
            sender.send_request(get).await?
        }
    };
    let count = response.headers().keys().filter(|name| name.as_str().starts_with("answer-")).count();
    Ok((response.status(), count))
}
