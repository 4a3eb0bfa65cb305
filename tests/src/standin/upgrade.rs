//! Switches exec, attach and port-forward to a stream and echoes every byte of it.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::call::Call;
use super::respond::{self, Outcome};
use super::server::Shared;
use super::status::Status;

const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// Answers 101 and echoes from then on; 400 when the client asks for no upgrade, or over HTTP/2, which has none.
pub(super) fn serve(shared: &Arc<Shared>, call: &Call, mut request: Request<Incoming>) -> Outcome {
    let wanted = text(&call.headers, UPGRADE).unwrap_or_default().to_ascii_lowercase();
    let connection = text(&call.headers, CONNECTION).unwrap_or_default().to_ascii_lowercase();
    if call.version != Version::HTTP_11 || !connection.contains("upgrade") {
        return Err(Status::bad_request("Upgrade request required"));
    }
    let mut response = Response::new(respond::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    match wanted.as_str() {
        "spdy/3.1" => accept_spdy(&call.headers, headers),
        "websocket" => accept_websocket(&call.headers, headers)?,
        _ => return Err(Status::bad_request(format!("unable to upgrade: unknown protocol {wanted:?}"))),
    }
    let upgrading = hyper::upgrade::on(&mut request);
    let killed = shared.killed.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = killed.cancelled() => {}
            ended = echo(upgrading) => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "an upgraded stream broke");
                }
            }
        }
    });
    Ok(response)
}

fn accept_spdy(asked: &HeaderMap, headers: &mut HeaderMap) {
    headers.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    if let Some(protocol) = asked.get(STREAM_PROTOCOL) {
        headers.insert(STREAM_PROTOCOL, protocol.clone());
    }
}

fn accept_websocket(asked: &HeaderMap, headers: &mut HeaderMap) -> Result<(), Box<Status>> {
    let key =
        text(asked, SEC_WEBSOCKET_KEY).ok_or_else(|| Status::bad_request("missing Sec-WebSocket-Key"))?;
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let accept = HeaderValue::from_str(&websocket_accept(key)).expect("base64 is a header value");
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    let offered = text(asked, SEC_WEBSOCKET_PROTOCOL).unwrap_or_default();
    let chosen =
        offered.split(',').map(str::trim).find(|one| !one.is_empty() && !one.starts_with("base64url.bearer"));
    if let Some(protocol) = chosen.and_then(|one| HeaderValue::from_str(one).ok()) {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    Ok(())
}

/// `Sec-WebSocket-Accept` for a key (RFC 6455, 4.2.2).
pub fn websocket_accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    STANDARD.encode(digest)
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

async fn echo(upgrading: hyper::upgrade::OnUpgrade) -> std::io::Result<()> {
    let stream = upgrading.await.map_err(std::io::Error::other)?;
    let (mut read, mut write) = tokio::io::split(TokioIo::new(stream));
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = read.read(&mut buffer).await?;
        if count == 0 {
            return write.shutdown().await;
        }
        write.write_all(&buffer[..count]).await?;
        write.flush().await?;
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn accepts_the_rfc_s_example_key() {
        assert_eq!(super::websocket_accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
