//! Hands a connection to the local API server untouched.

use std::io;
use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncWriteExt as _, copy};
use tokio::net::TcpStream;
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use tracing::debug;

use super::connect::Dialer;
use crate::upstream::Upstream;

/// Replays the bytes already read and copies both ways until both sides are done.
pub async fn splice(dialer: &Dialer, local: &Upstream, mut client: TcpStream, head: &[u8]) {
    let mut server = match dialer.connect_tcp(local).await {
        Ok(server) => server,
        Err(error) => {
            // Dropping the client's connection is what it would meet without the proxy.
            debug!(%error, "a spliced connection did not reach the API server");
            return;
        }
    };
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let up = async {
        to_server.write_all(head).await?;
        copy(&mut from_client, &mut to_server).await?;
        to_server.shutdown().await
    };
    let down = async {
        copy(&mut from_server, &mut to_client).await?;
        to_client.shutdown().await
    };
    let (mut up, mut down) = (pin!(up), pin!(down));
    let ended = tokio::select! {
        ended = &mut up => either(ended, timeout(LINGER, down).await),
        ended = &mut down => either(ended, timeout(LINGER, up).await),
    };
    if let Err(error) = ended {
        debug!(%error, "a spliced connection broke off");
    }
}

/// Time for the other side to finish after one side has; a client that never closes holds nothing for ever.
const LINGER: Duration = Duration::from_mins(1);

/// The first error of the two directions; one that was cut off after lingering is none.
fn either(first: io::Result<()>, second: Result<io::Result<()>, Elapsed>) -> io::Result<()> {
    first.and(second.unwrap_or(Ok(())))
}
