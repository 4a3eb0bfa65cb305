//! Speaks HTTP/2 frame by frame, where a library would keep to the rules.

use std::net::SocketAddr;

use mvproxy_tests::client::connect_tls;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::support::{Caller, Http, promptly};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// A header field as it is sent; nothing about it is checked.
pub type Field<'a> = (&'a [u8], &'a [u8]);

/// What a server makes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A status.
    Answered(u16),
    /// `RST_STREAM` with this error code.
    Reset(u32),
    /// GOAWAY with this error code, or the end of the connection.
    Ended(u32),
}

/// `PROTOCOL_ERROR` (RFC 9113 section 7).
pub const PROTOCOL_ERROR: u32 = 1;
/// `CANCEL`.
pub const CANCEL: u32 = 8;

/// One connection.
pub struct Frames {
    stream: TlsStream<TcpStream>,
}

impl Frames {
    /// Connects and says hello.
    pub async fn open(caller: &Caller, address: SocketAddr) -> Self {
        let mut stream = connect_tls(&caller.options(address, Http::Two)).await.unwrap();
        let hello = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])].concat();
        stream.write_all(&hello).await.unwrap();
        Self { stream }
    }

    /// Sends frames. The server may have ended the connection already.
    pub async fn send(&mut self, frames: &[u8]) {
        let _ = self.stream.write_all(frames).await;
    }

    /// What becomes of a stream.
    pub async fn outcome(&mut self, stream: u32) -> Outcome {
        promptly("an answer over HTTP/2", self.read_outcome(stream)).await
    }

    async fn read_outcome(&mut self, wanted: u32) -> Outcome {
        loop {
            let mut head = [0; 9];
            if self.stream.read_exact(&mut head).await.is_err() {
                return Outcome::Ended(0);
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let mut payload = vec![0; length];
            if self.stream.read_exact(&mut payload).await.is_err() {
                return Outcome::Ended(0);
            }
            let code = |bytes: &[u8]| u32::from_be_bytes(bytes[..4].try_into().unwrap());
            match (head[3], head[4]) {
                (HEADERS, _) if stream == wanted => return Outcome::Answered(status(&payload)),
                (RST_STREAM, _) if stream == wanted => return Outcome::Reset(code(&payload)),
                (GOAWAY, _) => return Outcome::Ended(code(&payload[4..])),
                (SETTINGS, flags) if flags & ACK == 0 => self.send(&frame(SETTINGS, ACK, 0, &[])).await,
                (PING, flags) if flags & ACK == 0 => self.send(&frame(PING, ACK, 0, &payload)).await,
                _ => {}
            }
        }
    }
}

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header block of fields that are written out, names and values as they are (RFC 7541 section 6.2.2).
pub fn block(fields: &[Field<'_>]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

fn text(bytes: &[u8]) -> Vec<u8> {
    let mut coded = match bytes.len() {
        short @ 0..127 => vec![u8::try_from(short).unwrap()],
        long => {
            let mut rest = long - 127;
            let mut coded = vec![127];
            while rest >= 128 {
                coded.push(u8::try_from(rest % 128).unwrap() | 128);
                rest /= 128;
            }
            coded.push(u8::try_from(rest).unwrap());
            coded
        }
    };
    coded.extend(bytes);
    coded
}

/// The status, with which every answer begins: in the static table, or the name from there and digits in Huffman's code.
fn status(block: &[u8]) -> u16 {
    match *block {
        [indexed @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
        // Literals with an index, without one, and never to be indexed.
        [0x48 | 0x08 | 0x18, length, ref rest @ ..] if length & 0x80 != 0 => {
            digits(&rest[..usize::from(length & 0x7f)])
        }
        [0x48 | 0x08 | 0x18, 3, ref rest @ ..] => std::str::from_utf8(&rest[..3]).unwrap().parse().unwrap(),
        _ => panic!("an answer that does not begin with its status: {block:x?}"),
    }
}

/// Three digits: 0, 1 and 2 have five bits, the others six (RFC 7541 appendix B).
fn digits(coded: &[u8]) -> u16 {
    let mut bits = coded.iter().flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1)));
    let mut take = |count: usize| bits.by_ref().take(count).fold(0, |value, bit| value << 1 | bit);
    (0..3).fold(0, |status, _| {
        let digit = match take(5) {
            small @ 0..=2 => small,
            first => (first << 1 | take(1)) - 0b01_1001 + 3,
        };
        status * 10 + digit
    })
}

#[test]
fn statuses_are_read() {
    assert_eq!(status(&[0x88]), 200);
    assert_eq!(status(&[0x8d, 0x40]), 404);
    assert_eq!(status(&[0x48, 3, b'4', b'0', b'1']), 401);
    // 302 and 307, as in RFC 7541 appendix C.6.
    assert_eq!(status(&[0x48, 0x82, 0x64, 0x02]), 302);
    assert_eq!(status(&[0x48, 0x83, 0x64, 0x0e, 0xff]), 307);
}
