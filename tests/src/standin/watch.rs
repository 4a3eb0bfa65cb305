//! Streams what happens to objects, from any revision the store still remembers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::StatusCode;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::call::Call;
use super::discovery;
use super::respond::{self, Outcome, Style};
use super::selector::Selectors;
use super::server::Shared;
use super::status::Status;
use super::storage;
use super::storage::target::Target;
use super::storage::view::View;
use crate::store::{Entry, Event, StoreError};

/// How long a watch lasts when the client names no `timeoutSeconds`; kube-apiserver takes 30 to 60 minutes.
const DEFAULT_TIMEOUT: Duration = Duration::from_mins(45);
/// A store in another process does not learn that a watch went away; its question ends by itself after this.
const PATIENCE: Duration = Duration::from_secs(10);

/// Starts a watch.
pub(super) async fn serve(shared: &Arc<Shared>, call: &Call, target: Target) -> Outcome {
    let query = &call.query;
    let view = View::choose(&discovery::accept_header(&call.headers), query.get("includeObject"))?;
    let selectors = storage::selectors(query)?;
    let timeout =
        query.get("timeoutSeconds").and_then(|text| text.parse().ok()).filter(|seconds| *seconds > 0);
    let now = Instant::now();
    let mut watch = Watch {
        shared: shared.clone(),
        target,
        view,
        selectors,
        bookmarks: query.is_set("allowWatchBookmarks"),
        deadline: now + timeout.map_or(DEFAULT_TIMEOUT, Duration::from_secs),
        next_bookmark: now + shared.bookmark_interval,
        revision: 0,
        queue: VecDeque::new(),
        first: true,
        ended: false,
    };
    watch.begin(query.get("resourceVersion").unwrap_or_default(), query.is_set("sendInitialEvents")).await?;
    let frames = stream::unfold(watch, |mut watch| async move {
        let line = watch.next().await?;
        Some((Ok(Frame::data(line)), watch))
    });
    let mut response = respond::with_type(StatusCode::OK, "application/json", Bytes::new());
    *response.body_mut() = StreamBody::new(frames).boxed_unsync();
    Ok(response)
}

struct Watch {
    shared: Arc<Shared>,
    target: Target,
    view: View,
    selectors: Selectors,
    bookmarks: bool,
    deadline: Instant,
    next_bookmark: Instant,
    /// Everything up to here was sent or does not concern this watch.
    revision: u64,
    queue: VecDeque<Bytes>,
    /// No event was sent yet.
    first: bool,
    ended: bool,
}

impl Watch {
    /// Resumes after `resource_version`, or begins with what exists when it is empty or 0.
    async fn begin(&mut self, resource_version: &str, send_initial_events: bool) -> Result<(), Box<Status>> {
        self.revision = match resource_version {
            "" => 0,
            text => text.parse().map_err(|_| {
                Status::bad_request(format!("Invalid value: {text:?}: resourceVersion must be a number"))
            })?,
        };
        if self.revision > 0 && !send_initial_events {
            return Ok(());
        }
        let listing = self.shared.store.list(&self.target.range()).await.map_err(storage::unavailable)?;
        for entry in listing.entries {
            if self.selectors.matches(&entry.value) {
                self.push("ADDED", &entry);
            }
        }
        self.revision = listing.revision;
        if send_initial_events && self.bookmarks {
            self.push_bookmark(Some(json!({"k8s.io/initial-events-end": "true"})));
        }
        Ok(())
    }

    /// The next line; none when the watch is over.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.queue.pop_front() {
                return Some(line);
            }
            if self.ended {
                return None;
            }
            let draining = self.shared.draining.clone();
            tokio::select! {
                () = draining.cancelled() => return None,
                () = self.fill() => {}
            }
        }
    }

    /// Waits for events, the next bookmark or the end.
    async fn fill(&mut self) {
        let until = if self.bookmarks { self.deadline.min(self.next_bookmark) } else { self.deadline };
        let patience = until.saturating_duration_since(Instant::now()).min(PATIENCE);
        match self.shared.store.events(&self.target.range(), self.revision, patience).await {
            Ok(found) => {
                for event in &found.events {
                    self.push_event(event);
                }
                self.revision = found.revision;
            }
            Err(StoreError::Compacted { requested, current, .. }) => {
                return self.fail(&Status::too_old(requested, current));
            }
            Err(error) => return self.fail(&storage::unavailable(error)),
        }
        let now = Instant::now();
        if now >= self.deadline {
            self.ended = true;
        }
        if self.bookmarks && (self.ended || now >= self.next_bookmark) {
            self.next_bookmark = now + self.shared.bookmark_interval;
            self.push_bookmark(None);
        }
    }

    /// An object that a change brings into the selection was added, one that it takes out was deleted.
    fn push_event(&mut self, event: &Event) {
        let selected =
            |value: &Option<Arc<Value>>| value.clone().filter(|value| self.selectors.matches(value));
        let entry = |value| Entry { key: event.key.clone(), value, revision: event.revision };
        match (selected(&event.previous), selected(&event.value)) {
            (None, None) => {}
            (None, Some(value)) => self.push("ADDED", &entry(value)),
            (Some(_), Some(value)) => self.push("MODIFIED", &entry(value)),
            (Some(previous), None) => self.push("DELETED", &entry(previous)),
        }
    }

    fn push(&mut self, kind: &str, entry: &Entry) {
        let object = self.view.event(&self.target, entry, self.first);
        self.first = false;
        self.push_line(kind, &object);
    }

    fn push_bookmark(&mut self, annotations: Option<Value>) {
        let (kind, api_version) = self.view.bookmark_type(&self.target);
        let mut metadata = json!({"resourceVersion": self.revision.to_string()});
        if let Some(annotations) = annotations {
            metadata["annotations"] = annotations;
        }
        self.push_line("BOOKMARK", &json!({"kind": kind, "apiVersion": api_version, "metadata": metadata}));
    }

    fn fail(&mut self, status: &Status) {
        let status = serde_json::to_value(status).expect("derived structs with string keys always serialise");
        self.push_line("ERROR", &status);
        self.ended = true;
    }

    fn push_line(&mut self, kind: &str, object: &Value) {
        self.queue.push_back(Style::Compact.render(&json!({"type": kind, "object": object})));
    }
}
