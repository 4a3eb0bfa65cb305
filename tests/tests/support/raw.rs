//! Speaks HTTP/1.1 byte by byte, where a library would tidy up.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use mvproxy_tests::client::{ClientOptions, connect_tls};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::{Caller, Http, promptly};

/// Sends `bytes` over TLS and reads until the server closes.
pub async fn exchange(options: &ClientOptions, bytes: &[u8]) -> Result<String> {
    let mut stream = connect_tls(options).await?;
    stream.write_all(bytes).await?;
    let mut answer = Vec::new();
    promptly("the server closes", stream.read_to_end(&mut answer)).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Reads an HTTP/1.1 head, and not a byte more.
pub async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(head.len() < 64 * 1024, "a head without end");
        let byte = promptly("the head of an answer", stream.read_u8()).await;
        head.push(byte.with_context(|| format!("ended after {:?}", String::from_utf8_lossy(&head)))?);
    }
    Ok(String::from_utf8(head)?)
}

/// A connection after its 101, or its refusal.
pub struct Upgraded {
    pub head: String,
    pub stream: TlsStream<TcpStream>,
}

impl Upgraded {
    /// Asks for an upgrade; `headers` are whole lines, beside the caller's own headers.
    pub async fn ask(caller: &Caller, address: SocketAddr, target: &str, headers: &[&str]) -> Result<Self> {
        let mut stream = connect_tls(&caller.options(address, Http::One)).await?;
        let own = caller.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
        let mut request = format!("POST {target} HTTP/1.1\r\nHost: kubernetes\r\n");
        for line in headers.iter().map(ToString::to_string).chain(own) {
            request.push_str(&line);
            request.push_str("\r\n");
        }
        stream.write_all(format!("{request}\r\n").as_bytes()).await?;
        Ok(Self { head: read_head(&mut stream).await?, stream })
    }

    /// Sends `bytes` and reads as many back.
    pub async fn echo(&mut self, bytes: &[u8]) -> Result<Vec<u8>> {
        self.stream.write_all(bytes).await?;
        let mut back = vec![0; bytes.len()];
        promptly("an echo", self.stream.read_exact(&mut back)).await?;
        Ok(back)
    }

    /// Closes the own half and reads the rest of the other.
    pub async fn finish(mut self) -> Result<Vec<u8>> {
        self.stream.shutdown().await?;
        let mut rest = Vec::new();
        promptly("the other half closes", self.stream.read_to_end(&mut rest)).await?;
        Ok(rest)
    }
}
