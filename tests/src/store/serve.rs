//! Serves a store to other processes on a unix socket.

use std::io;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Store;
use super::wire::{self, Call, Reply};

impl Store {
    /// Answers everyone who connects to `listener`, until dropped.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(&self, listener: UnixListener) -> io::Result<()> {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await?;
            while connections.try_join_next().is_some() {}
            connections.spawn(serve_connection(self.clone(), stream));
        }
    }
}

async fn serve_connection(store: Store, stream: UnixStream) {
    let (read, write) = stream.into_split();
    let (replies, queue) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        if let Err(error) = write_replies(write, queue).await {
            tracing::debug!(%error, "a client of the store went away");
        }
    });
    let mut lines = BufReader::new(read).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Call { id, question } = match serde_json::from_str(&line) {
            Ok(call) => call,
            Err(error) => {
                tracing::warn!(%error, "a client of the store does not speak its language");
                return;
            }
        };
        while tasks.try_join_next().is_some() {}
        let (store, replies) = (store.clone(), replies.clone());
        // Questions may wait (for events), so none holds up the next.
        tasks.spawn(async move {
            let answer = store.ask(question).await;
            let _ = replies.send(Reply { id, answer });
        });
    }
}

async fn write_replies(
    mut write: OwnedWriteHalf,
    mut queue: mpsc::UnboundedReceiver<Reply>,
) -> io::Result<()> {
    while let Some(reply) = queue.recv().await {
        write.write_all(&wire::line(&reply)?).await?;
    }
    Ok(())
}
