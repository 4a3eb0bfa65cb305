//! Passes bytes on to a node's API server from the source that is never steered, for clients that cannot choose theirs.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use mvproxy_tests::netns::Netns;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::apiserver::SECURE_PORT;
use crate::site::EXEMPT_SOURCE;

/// Where it listens on the node.
pub(crate) const PORT: u16 = 16443;

/// Stops on drop.
pub(crate) struct Forwarder {
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Forwarder {
    /// Starts one in a namespace.
    pub(crate) fn start(netns: &Netns) -> Result<Self> {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let (listening, is_listening) = std::sync::mpsc::channel();
        let thread = netns.spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).await;
                let _ = listening.send(bound.as_ref().map(|_| ()).map_err(ToString::to_string));
                let Ok(listener) = bound else { return };
                loop {
                    tokio::select! {
                        () = stopped.cancelled() => return,
                        Ok((client, _)) = listener.accept() => drop(tokio::spawn(forward(client))),
                    }
                }
            });
        });
        is_listening.recv()?.map_err(anyhow::Error::msg)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn forward(mut client: TcpStream) {
    let connected = async {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((EXEMPT_SOURCE, 0)))?;
        socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, SECURE_PORT))).await
    };
    if let Ok(mut server) = connected.await {
        // Whoever closes first ends it; the other side sees that.
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }
}
