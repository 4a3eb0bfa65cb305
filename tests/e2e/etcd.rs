//! Runs etcd, and reads the history of a key range from it.
//!
//! API servers store JSON here, so that what happened can be read without them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mvproxy_tests::netns::Netns;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cluster_support::{Event, Process};

/// Where it listens, on every address of its namespace.
pub(crate) const PORT: u16 = 2379;
/// A history that says nothing for this long has ended.
const SILENCE: Duration = Duration::from_secs(1);

/// One change of one object.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) value: Option<Value>,
    pub(crate) previous: Option<Value>,
    pub(crate) revision: u64,
}

impl Change {
    /// As a watch shows it.
    pub(crate) fn event(&self) -> Event {
        let kind = match (&self.previous, &self.value) {
            (None, _) => "ADDED",
            (Some(_), Some(_)) => "MODIFIED",
            (Some(_), None) => "DELETED",
        };
        Event { kind: kind.to_owned(), revision: self.revision }
    }
}

/// Starts it in the calling thread's namespace.
pub(crate) fn start(program: &Path, data: &Path, log: &Path) -> Process {
    let arguments = [
        format!("--data-dir={}", data.display()),
        format!("--listen-client-urls=http://0.0.0.0:{PORT}"),
        format!("--advertise-client-urls=http://127.0.0.1:{PORT}"),
        "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
        // What is written is thrown away with the test; the disk of a shared machine can take seconds to flush.
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ];
    Process::start_here(program, &arguments, log)
}

/// Everything that ever happened to keys that begin with `prefix`, in order. It is asked in the namespace of etcd.
pub(crate) fn history(netns: &Netns, prefix: &str) -> Result<Vec<Change>> {
    netns.block_on(|| read_history(prefix.to_owned()))
}

async fn read_history(prefix: String) -> Result<Vec<Change>> {
    let mut end = prefix.clone().into_bytes();
    *end.last_mut().context("an empty prefix")? += 1;
    let create = json!({"create_request": {
        "key": STANDARD.encode(&prefix),
        "range_end": STANDARD.encode(end),
        "start_revision": 1,
        "prev_kv": true,
    }})
    .to_string();
    let request = format!(
        "POST /v3/watch HTTP/1.0\r\nHost: etcd\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{create}",
        create.len()
    );
    let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    // The stream has no end; etcd sends what was before at once.
    while let Ok(read) = timeout(SILENCE, stream.read_buf(&mut answer)).await {
        if read? == 0 {
            break;
        }
    }
    let text = String::from_utf8(answer).context("etcd answers in UTF-8")?;
    let (head, body) = text.split_once("\r\n\r\n").context("etcd does not answer")?;
    anyhow::ensure!(head.contains(" 200 "), "etcd refuses to tell: {head}");
    let mut changes = Vec::new();
    for message in serde_json::Deserializer::from_str(body).into_iter::<Value>() {
        let message = message?;
        for event in message.pointer("/result/events").and_then(Value::as_array).into_iter().flatten() {
            changes.push(change(event)?);
        }
    }
    Ok(changes)
}

fn change(event: &Value) -> Result<Change> {
    let object = |key: &str| -> Result<Option<Value>> {
        let Some(text) = event.pointer(&format!("/{key}/value")).and_then(Value::as_str) else {
            return Ok(None);
        };
        Ok(Some(serde_json::from_slice(&STANDARD.decode(text)?)?))
    };
    let revision = event.pointer("/kv/mod_revision").and_then(Value::as_str).context("no revision")?;
    let value = if event["type"] == "DELETE" { None } else { object("kv")? };
    Ok(Change { value, previous: object("prev_kv")?, revision: revision.parse()? })
}
