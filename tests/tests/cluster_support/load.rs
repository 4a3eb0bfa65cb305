//! Drives clients of every kind: fresh and kept connections, HTTP/1.1 and HTTP/2, reads, writes and discovery.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use mvproxy_tests::client::{Answer, ClientOptions};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::ledger::{Ledger, deletion_of, mark_of};
use super::session::{Connecting, Session};
use super::watcher::Watcher;

/// What clients since 1.26 ask for.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// What all clients of one load have in common.
pub struct Load {
    pub ledger: Ledger,
    /// Namespace they write to.
    pub namespace: &'static str,
    pub ends: Instant,
    /// Set to the revision at which watches may end; 0 until then.
    pub last_revision: AtomicU64,
    /// A client thinks for this long between two requests.
    pause: Duration,
    clients: AtomicUsize,
}

/// Where clients are and whom they dial.
#[derive(Clone)]
pub struct Place {
    pub name: String,
    /// HTTP/1.1; the clients that speak HTTP/2 do so to the same server.
    pub options: ClientOptions,
}

/// How many kinds of clients a place has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Every kind.
    All,
    /// Kept connections and watches, what runs on a node.
    Kept,
}

impl Load {
    pub fn new(namespace: &'static str, length: Duration, pause: Duration) -> Arc<Self> {
        Arc::new(Self {
            ledger: Ledger::default(),
            namespace,
            ends: Instant::now() + length,
            last_revision: AtomicU64::new(0),
            pause,
            clients: AtomicUsize::new(0),
        })
    }

    /// Runs the clients of one place to the end of the load and returns its watches, which have seen the last revision.
    /// `after` is the revision the watches begin at.
    pub async fn run(self: Arc<Self>, place: Place, share: Share, after: u64) -> Vec<Watcher> {
        let mut clients = tokio::task::JoinSet::new();
        let mut watches = tokio::task::JoinSet::new();
        for http2 in [false, true] {
            let options = ClientOptions { http2, ..place.options.clone() };
            let version = if http2 { "HTTP/2" } else { "HTTP/1.1" };
            for connecting in [Connecting::Kept, Connecting::Fresh] {
                if share == Share::Kept && connecting == Connecting::Fresh {
                    continue;
                }
                let name = format!("{} {version} {connecting:?}", place.name);
                let session = || Session::new(options.clone(), connecting);
                clients.spawn(Writer::new(&self, name.clone(), session()).run());
                clients.spawn(discover(Arc::clone(&self), name, session()));
            }
            let watch = Watcher::new(format!("{} {version} watch", place.name), options, after);
            watches.spawn(watch.run(Arc::clone(&self)));
        }
        while let Some(ended) = clients.join_next().await {
            ended.expect("a client does not panic");
        }
        watches.join_all().await
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.ends
    }
}

/// Creates, reads, changes, lists and deletes one object after the other.
struct Writer {
    load: Arc<Load>,
    name: String,
    number: usize,
    session: Session,
    writes: usize,
}

impl Writer {
    fn new(load: &Arc<Load>, name: String, session: Session) -> Self {
        let number = load.clients.fetch_add(1, Ordering::Relaxed);
        Self { load: Arc::clone(load), name, number, session, writes: 0 }
    }

    async fn run(mut self) {
        while !self.load.is_over() {
            self.live_through_one_object().await;
        }
    }

    /// Goes on to the next object as soon as something fails.
    async fn live_through_one_object(&mut self) -> Option<()> {
        let collection = format!("/api/v1/namespaces/{}/configmaps", self.load.namespace);
        let mark = self.next_mark();
        let object = json!({"metadata": {"generateName": "load-"}, "data": {"mark": mark}});
        let created = self.write(&mark, Method::POST, &collection, "", &object).await?;
        let object = format!("{collection}/{}", created["metadata"]["name"].as_str()?);
        self.read(&object, &mark).await?;
        let patched = self.next_mark();
        let patch = json!({"data": {"mark": patched}});
        let mut whole =
            self.write(&patched, Method::PATCH, &object, "application/merge-patch+json", &patch).await?;
        self.read(&object, &patched).await?;
        let replaced = self.next_mark();
        whole["data"]["mark"] = replaced.as_str().into();
        self.write(&replaced, Method::PUT, &object, "", &whole).await?;
        self.ask(
            "list",
            Request::get(format!("{collection}?limit=3")).body(Bytes::new()).unwrap(),
            |answer| {
                let items = answer.json().ok()?["items"].as_array()?.len();
                (answer.status == StatusCode::OK && items > 0).then_some(())
            },
        )
        .await?;
        self.write(&deletion_of(&replaced), Method::DELETE, &object, "", &Value::Null).await?;
        Some(())
    }

    fn next_mark(&mut self) -> String {
        self.writes += 1;
        format!("{}-{}", self.number, self.writes)
    }

    async fn read(&mut self, object: &str, mark: &str) -> Option<()> {
        self.ask("GET", Request::get(object).body(Bytes::new()).unwrap(), |answer| {
            let read = mark_of(&answer.json().ok()?);
            (answer.status == StatusCode::OK && read == mark).then_some(())
        })
        .await
    }

    async fn write(
        &mut self,
        mark: &str,
        method: Method,
        target: &str,
        media_type: &str,
        body: &Value,
    ) -> Option<Value> {
        let what = method.to_string();
        let media_type = if media_type.is_empty() { "application/json" } else { media_type };
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let request = Request::builder().method(method).uri(target).header("content-type", media_type);
        self.load.ledger.begin_write(mark);
        let answered = self
            .ask(&what, request.body(body).unwrap(), |answer| {
                answer.status.is_success().then(|| answer.json().ok()).flatten()
            })
            .await?;
        self.load.ledger.confirm_write(mark);
        Some(answered)
    }

    async fn ask<T>(
        &mut self,
        what: &str,
        request: Request<Bytes>,
        accept: impl FnOnce(&Answer) -> Option<T>,
    ) -> Option<T> {
        let what = format!("{} {what}", self.name);
        let accepted = ask(&self.load, &mut self.session, &what, request, accept).await;
        sleep(self.load.pause).await;
        accepted
    }
}

/// Asks what is served, again and again; the answer may grow but never shrink.
async fn discover(load: Arc<Load>, name: String, mut session: Session) {
    let mut known = [BTreeSet::new(), BTreeSet::new()];
    while !load.is_over() {
        for (path, known) in ["/api", "/apis"].into_iter().zip(&mut known) {
            let request = Request::get(path).header("accept", AGGREGATED).body(Bytes::new()).unwrap();
            let what = format!("{name} {path}");
            let mut missing: Vec<String> = Vec::new();
            let found = ask(&load, &mut session, &what, request, |answer| {
                let resources = resources_in(&answer.json().ok()?)?;
                missing = known.difference(&resources).cloned().collect();
                (answer.status == StatusCode::OK && missing.is_empty()).then_some(resources)
            })
            .await;
            if let Some(first) = missing.first() {
                println!("   {what}: {} resources less, {first} among them", missing.len());
            }
            if let Some(found) = found {
                *known = found;
            }
            sleep(load.pause * 4).await;
        }
    }
}

/// Resources in an aggregated document, each with its group and version.
fn resources_in(document: &Value) -> Option<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for group in document["items"].as_array()? {
        for version in group["versions"].as_array().into_iter().flatten() {
            for resource in version["resources"].as_array().into_iter().flatten() {
                let (group, version) = (&group["metadata"]["name"], &version["version"]);
                all.insert(format!("{} {} {}", text(group), text(version), text(&resource["resource"])));
            }
        }
    }
    Some(all)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// One request, noted in the ledger; `accept` refuses answers that are not what they should be.
async fn ask<T>(
    load: &Load,
    session: &mut Session,
    what: &str,
    request: Request<Bytes>,
    accept: impl FnOnce(&Answer) -> Option<T>,
) -> Option<T> {
    let begun = Instant::now();
    let outcome = session.fetch(request).await.and_then(|answer| {
        accept(&answer).ok_or_else(|| {
            let text: String = answer.text().chars().take(400).collect();
            format!("{} {text}", answer.status)
        })
    });
    load.ledger.note(begun, what, &outcome);
    outcome.ok()
}
