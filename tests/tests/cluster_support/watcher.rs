//! Watches as client-go does: a watch that ends is taken up again from the last revision seen.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use mvproxy_tests::client::ClientOptions;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::ledger::Event;
use super::load::Load;
use super::session::{Connecting, Session};

/// How often a silent watch looks whether it is over.
const LOOK: Duration = Duration::from_millis(200);
/// Time that the last event may take after the load has ended.
const LAST_EVENT: Duration = Duration::from_secs(15);
/// Pause before a watch that could not be opened is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// Where watches differ from what was written, in words; empty when each saw each change once and in order.
pub fn differences(watches: &[Watcher], written: &[Event]) -> String {
    let differs = watches.iter().filter_map(|watch| {
        let common = watch.events.iter().zip(written).take_while(|(seen, written)| seen == written).count();
        let (seen, total) = (watch.events.len(), written.len());
        let next = (watch.events.get(common), written.get(common));
        (common < seen.max(total))
            .then(|| format!("{}: {seen} of {total}, differs at {next:?}\n", watch.name))
    });
    differs.collect()
}

/// One watch and everything it has seen.
pub struct Watcher {
    pub name: String,
    pub events: Vec<Event>,
    /// How often it was opened.
    pub opened: usize,
    options: ClientOptions,
    revision: u64,
}

impl Watcher {
    /// A watch of everything that happens after revision `after`.
    pub fn new(name: String, options: ClientOptions, after: u64) -> Self {
        Self { name, events: Vec::new(), opened: 0, options, revision: after }
    }

    /// Watches until the last revision of the load was seen, or until that takes too long.
    pub async fn run(mut self, load: Arc<Load>) -> Self {
        let mut session = Session::new(self.options.clone(), Connecting::Kept);
        while !self.is_done(&load) {
            let target = format!(
                "/api/v1/namespaces/{}/configmaps?watch=1&allowWatchBookmarks=true&resourceVersion={}",
                load.namespace, self.revision
            );
            let begun = Instant::now();
            let request = Request::get(target).body(Bytes::new()).unwrap();
            let opened = session.open(request).await.and_then(|response| match response.status() {
                StatusCode::OK => Ok(response),
                status => Err(status.to_string()),
            });
            load.ledger.note(begun, &self.name, &opened);
            match opened {
                Ok(response) => {
                    self.opened += 1;
                    if let Err(why) = self.follow(response, &load).await {
                        load.ledger.note::<()>(begun, &self.name, &Err(why));
                    }
                }
                Err(_) => sleep(RETRY).await,
            }
        }
        self
    }

    /// Reads events until the watch ends in whatever way; a cut line is read again after the next start.
    async fn follow(&mut self, mut response: Response<Incoming>, load: &Load) -> Result<(), String> {
        let mut unread: Vec<u8> = Vec::new();
        while !self.is_done(load) {
            let frame = match timeout(LOOK, response.frame()).await {
                Err(_) => continue,
                Ok(None | Some(Err(_))) => return Ok(()),
                Ok(Some(Ok(frame))) => frame,
            };
            unread.extend(frame.into_data().unwrap_or_default());
            while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = unread.drain(..=end).collect();
                self.take(&line)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, line: &[u8]) -> Result<(), String> {
        let event: Value = serde_json::from_slice(line)
            .map_err(|error| format!("{error} in {:?}", String::from_utf8_lossy(line)))?;
        let kind = event["type"].as_str().unwrap_or_default().to_owned();
        let revision = event.pointer("/object/metadata/resourceVersion").and_then(Value::as_str);
        let revision: u64 =
            revision.and_then(|text| text.parse().ok()).ok_or_else(|| format!("an event: {event}"))?;
        if kind != "BOOKMARK" {
            self.events.push(Event { kind, revision });
        }
        self.revision = revision;
        Ok(())
    }

    fn is_done(&self, load: &Load) -> bool {
        let last = load.last_revision.load(Ordering::Relaxed);
        (last != 0 && self.revision >= last) || load.ends + LAST_EVENT <= Instant::now()
    }
}
