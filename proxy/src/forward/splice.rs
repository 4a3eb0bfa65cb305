//! Hands a connection to the local API server untouched.

use tokio::io::{AsyncWriteExt as _, copy_bidirectional};
use tokio::net::TcpStream;
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
    let copied = async {
        server.write_all(head).await?;
        copy_bidirectional(&mut client, &mut server).await
    };
    if let Err(error) = copied.await {
        debug!(%error, "a spliced connection broke off");
    }
}
