//! Speaks HTTP/2 frame by frame, where a library would not misbehave.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use mvproxy_tests::client::connect_tls;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::support::{Caller, Http};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const ACK: u8 = 1;
/// Error codes of RFC 9113, section 7.
pub const NO_ERROR: u32 = 0;
pub const CANCEL: u32 = 8;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// Types of RFC 9113, section 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Data = 0,
    Headers = 1,
    Reset = 3,
    Settings = 4,
    Ping = 6,
    GoAway = 7,
    Continuation = 9,
    Other = 255,
}

/// One frame.
#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: Kind,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// A connection after its TLS handshake.
pub struct Frames {
    pub reader: Reader,
    pub writer: WriteHalf<TlsStream<TcpStream>>,
}

pub struct Reader(ReadHalf<TlsStream<TcpStream>>);

impl Frames {
    /// Nothing is sent yet.
    pub async fn connect(caller: &Caller, address: SocketAddr) -> Self {
        let stream = connect_tls(&caller.options(address, Http::Two)).await.unwrap();
        let (reader, writer) = split(stream);
        Self { reader: Reader(reader), writer }
    }

    /// Ready for requests.
    pub async fn start(caller: &Caller, address: SocketAddr) -> Self {
        let mut this = Self::connect(caller, address).await;
        let hello =
            [PREFACE, &frame(Kind::Settings, 0, 0, &[]), &frame(Kind::Settings, ACK, 0, &[])].concat();
        this.writer.write_all(&hello).await.unwrap();
        this
    }
}

impl Reader {
    /// The next frame; an error when the connection is closed.
    pub async fn next(&mut self) -> Result<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        ensure!(length <= 1 << 14, "a frame of {length} bytes");
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).await?;
        let kind = match kind {
            0 => Kind::Data,
            1 => Kind::Headers,
            3 => Kind::Reset,
            4 => Kind::Settings,
            6 => Kind::Ping,
            7 => Kind::GoAway,
            9 => Kind::Continuation,
            _ => Kind::Other,
        };
        Ok(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }

    /// Everything up to the end of the connection.
    pub async fn rest(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Ok(frame) = self.next().await {
            frames.push(frame);
        }
        frames
    }
}

/// The error codes of all GOAWAY frames.
pub fn goaways(frames: &[Frame]) -> Vec<u32> {
    let goaways = frames.iter().filter(|frame| frame.kind == Kind::GoAway);
    goaways.map(|frame| u32::from_be_bytes(frame.payload[4..8].try_into().unwrap())).collect()
}

pub fn frame(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind as u8, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The head of a GET, and no body.
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(Kind::Headers, END_HEADERS | END_STREAM, stream, &block("GET", path))
}

pub fn reset(stream: u32) -> Vec<u8> {
    frame(Kind::Reset, 0, stream, &CANCEL.to_be_bytes())
}

/// Header fields of a request, in HPACK without any compression.
pub fn block(method: &str, path: &str) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [(":method", method), (":scheme", "https"), (":path", path), (":authority", "k")] {
        block.extend(field(name, value));
    }
    block
}

/// A literal field that is not indexed (RFC 7541, section 6.2.2), with a name and value of less than 127 bytes.
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        field.push(u8::try_from(text.len()).unwrap());
        field.extend(text.bytes());
    }
    field
}
