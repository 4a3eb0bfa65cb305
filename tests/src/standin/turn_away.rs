//! Refuses a request on a new HTTP/2 connection without processing it, as a server does that is about to leave.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Speaks just enough HTTP/2 to read one request and to say that it was not processed (RFC 9113 section 6.8). Returns
/// whether the request had a body.
pub(super) async fn turn_away(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<bool> {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await?;
    stream.write_all(&frame(SETTINGS, 0, &[])).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await?;
        let (kind, flags) = (head[3], head[4]);
        match kind {
            SETTINGS if flags & ACK == 0 => stream.write_all(&frame(SETTINGS, ACK, &[])).await?,
            PING if flags & ACK == 0 => stream.write_all(&frame(PING, ACK, &payload)).await?,
            HEADERS | DATA if flags & END_STREAM != 0 => {
                // Last processed stream 0, no error.
                stream.write_all(&frame(GOAWAY, 0, &[0; 8])).await?;
                stream.shutdown().await?;
                return Ok(kind == DATA);
            }
            _ => {}
        }
    }
}

/// Reads until the client closes. Closing with bytes unread would reset the connection, and the client might never see
/// the GOAWAY.
pub(super) async fn wait_for_the_end(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    tokio::io::copy(stream, &mut tokio::io::sink()).await.map(drop)
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
