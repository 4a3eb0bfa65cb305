//! Asks a store in another process over its unix socket, many questions at a time on one connection.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::StoreError;
use super::wire::{self, Answer, Call, Question, Reply};

/// A connection that is made anew when it broke.
pub(super) struct Remote {
    path: PathBuf,
    calls: Mutex<Option<mpsc::UnboundedSender<Asked>>>,
}

/// A question and where its answer goes.
struct Asked {
    question: Question,
    answer: oneshot::Sender<Result<Answer, StoreError>>,
}

type Pending = Arc<std::sync::Mutex<HashMap<u64, oneshot::Sender<Result<Answer, StoreError>>>>>;

impl Remote {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), calls: Mutex::new(None) }
    }

    /// The open connection, or a new one.
    pub(super) async fn connect(&self) -> Result<(), StoreError> {
        self.sender().await.map(|_| ())
    }

    pub(super) async fn ask(&self, question: Question) -> Result<Answer, StoreError> {
        let (answer, answered) = oneshot::channel();
        let asked = Asked { question, answer };
        if self.sender().await?.send(asked).is_err() {
            return Err(self.unreachable("the connection broke"));
        }
        answered.await.unwrap_or_else(|_| Err(self.unreachable("the connection broke before the answer")))
    }

    async fn sender(&self) -> Result<mpsc::UnboundedSender<Asked>, StoreError> {
        let mut calls = self.calls.lock().await;
        if let Some(sender) = calls.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let stream =
            UnixStream::connect(&self.path).await.map_err(|error| self.unreachable(&error.to_string()))?;
        let (sender, asked) = mpsc::unbounded_channel();
        tokio::spawn(run(stream, asked));
        *calls = Some(sender.clone());
        Ok(sender)
    }

    fn unreachable(&self, reason: &str) -> StoreError {
        StoreError::Unreachable { address: self.path.display().to_string(), reason: reason.to_owned() }
    }
}

/// Ends when either direction fails; every question still open is then dropped, which its asker notices.
async fn run(stream: UnixStream, asked: mpsc::UnboundedReceiver<Asked>) {
    let (read, write) = stream.into_split();
    let pending = Pending::default();
    let ended = tokio::select! {
        ended = send(write, asked, pending.clone()) => ended,
        ended = receive(read, pending) => ended,
    };
    if let Err(error) = ended {
        tracing::warn!(%error, "connection to the store ended");
    }
}

async fn send(
    mut write: OwnedWriteHalf,
    mut asked: mpsc::UnboundedReceiver<Asked>,
    pending: Pending,
) -> io::Result<()> {
    let mut id = 0;
    while let Some(Asked { question, answer }) = asked.recv().await {
        id += 1;
        pending.lock().expect("no holder of this lock panics").insert(id, answer);
        write.write_all(&wire::line(&Call { id, question })?).await?;
    }
    Ok(())
}

async fn receive(read: OwnedReadHalf, pending: Pending) -> io::Result<()> {
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await? {
        let reply: Reply = serde_json::from_str(&line)?;
        let asker = pending.lock().expect("no holder of this lock panics").remove(&reply.id);
        if let Some(asker) = asker {
            // The asker may have given up, as a closed watch does.
            let _ = asker.send(reply.answer);
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}
