//! Follows a watch and opens it again elsewhere when its upstream dies.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode, Uri};
use tokio::time::sleep;

use super::Worker;
use super::deliver::deliver;
use crate::classify::{RequestInfo, classify, decode_path};
use crate::forward::headers::PEER_PROXIED;
use crate::forward::watch::event::is_version;
use crate::forward::watch::{Encoding, Resume, Resumed};
use crate::forward::{Outbound, ResponseBody};
use crate::limits::DRAIN_LIMIT;
use crate::pause::between;
use crate::route::{Marks, route};
use crate::upstream::TrustClass;

/// While the process drains each watch is ended at some time from the first to the last of these after the beginning: their
/// clients open them again elsewhere, and shall not do so all at once.
const FIRST_FAREWELL: Duration = Duration::from_secs(3);
const LAST_FAREWELL: Duration = Duration::from_secs(25);
const _: () = assert!(LAST_FAREWELL.as_secs() < DRAIN_LIMIT.as_secs());

/// A watch request, as it was sent upstream.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    head: Request<()>,
    class: TrustClass,
    /// The resourceVersion it began after, when it named one and asked for no initial events.
    from: Option<String>,
}

impl Watch {
    /// A request that can be opened again: a plain GET that watches.
    pub(super) fn of(info: &RequestInfo<'_>, outbound: &Outbound, enabled: bool) -> Option<Self> {
        if !enabled || info.verb != "watch" {
            return None;
        }
        if outbound.query().is_some_and(is_disguised) {
            return None;
        }
        let head = outbound.plain_head().filter(|head| *head.method() == Method::GET)?;
        let from = beginning(head.uri().query().unwrap_or_default());
        Some(Self { head, class: outbound.trust_class(), from })
    }

    /// Puts a response's stream under observation, if it is one whose events can be read.
    pub(super) fn follow(
        self,
        worker: &Arc<Worker>,
        response: Response<ResponseBody>,
    ) -> Response<ResponseBody> {
        let Some(encoding) = encoding(&response) else { return response };
        let drain = worker.drain.clone();
        let farewell = Box::pin(async move {
            drain.cancelled_owned().await;
            sleep(between(FIRST_FAREWELL, LAST_FAREWELL)).await;
        });
        let (worker, from) = (Arc::clone(worker), self.from.clone());
        let resume: Resume = Arc::new(move |version| {
            let (worker, watch) = (Arc::clone(&worker), self.clone());
            Box::pin(async move { watch.open_after(&version, encoding, &worker).await })
        });
        response.map(|body| body.followed(encoding, from, resume, farewell))
    }

    /// Opens the stream again after a resourceVersion, wherever routing says now.
    async fn open_after(self, version: &str, expected: Encoding, worker: &Worker) -> Resumed {
        let Some(uri) = with_version(self.head.uri(), version) else { return Resumed::Failed };
        let mut head = self.head;
        *head.uri_mut() = uri.clone();
        let mut record = worker.accounts.open(head.method().clone(), uri.clone());
        let path = decode_path(uri.path());
        let info = classify(head.method(), &path, uri.query()).ok();
        let snapshot = worker.shared.snapshot.load_full();
        let already_proxied = head.headers().contains_key(PEER_PROXIED);
        let decision = route(info.as_ref(), Marks { already_proxied, ..Marks::default() }, &snapshot);
        let outbound = Outbound::again(head, self.class);
        let Ok(response) = deliver(worker, decision, &snapshot, outbound, &mut record).await else {
            return Resumed::Failed;
        };
        record.answered(response.status());
        if response.status() == StatusCode::GONE {
            return Resumed::Expired;
        }
        if encoding(&response) != Some(expected) {
            return Resumed::Failed;
        }
        match response.into_body().into_upstream() {
            Some((body, guard)) => Resumed::Stream { body, guard, record: Box::new(record) },
            None => Resumed::Failed,
        }
    }
}

/// The encoding of a stream of events, if it can be read.
fn encoding(response: &Response<ResponseBody>) -> Option<Encoding> {
    let headers = response.headers();
    if response.status() != StatusCode::OK || headers.contains_key(CONTENT_ENCODING) {
        return None;
    }
    Encoding::of(headers.get(CONTENT_TYPE)?.as_bytes())
}

/// Whether a query has keys that are read only after decoding; no client of Kubernetes writes such.
fn is_disguised(query: &str) -> bool {
    query.contains(';') || pairs(query).any(|(key, _)| key.contains(['%', '+']))
}

/// Where a watch with this query begins, if it names one moment.
fn beginning(query: &str) -> Option<String> {
    let value = |wanted: &str| pairs(query).find(|(key, _)| *key == wanted).map(|(_, value)| value);
    if value("sendInitialEvents").is_some_and(|value| value != "false") {
        return None;
    }
    value("resourceVersion").filter(|version| is_version(version)).map(str::to_owned)
}

/// The same watch, beginning after a version; all other parameters stay byte for byte.
fn with_version(uri: &Uri, version: &str) -> Option<Uri> {
    const REPLACED: [&str; 3] = ["resourceVersion", "resourceVersionMatch", "sendInitialEvents"];
    let mut query = format!("resourceVersion={version}");
    for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let key = pair.split('=').next().unwrap_or_default();
        if !REPLACED.contains(&key) {
            query.push('&');
            query.push_str(pair);
        }
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(format!("{}?{query}", uri.path()).parse().ok()?);
    Uri::from_parts(parts).ok()
}

fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_request_for_one_moment_begins_somewhere() {
        for (query, expected) in [
            ("watch=1&resourceVersion=7", Some("7")),
            ("resourceVersion=0&watch=1", None),
            ("watch=1&resourceVersion=", None),
            ("watch=1", None),
            ("watch=1&resourceVersion=7&sendInitialEvents=true", None),
            ("watch=1&resourceVersion=7&sendInitialEvents=false", Some("7")),
            ("watch=1&resourceVersion=%37", None),
        ] {
            assert_eq!(beginning(query).as_deref(), expected, "{query}");
        }
    }

    #[test]
    fn a_watch_is_opened_again_with_nothing_changed_but_its_beginning() {
        let uri: Uri =
            "https://k/api/v1/pods?watch=1&sendInitialEvents=true&labelSelector=a%3Db&resourceVersion=3"
                .parse()
                .expect("a URI");
        let again = with_version(&uri, "9").expect("a URI");
        assert_eq!(again, "https://k/api/v1/pods?resourceVersion=9&watch=1&labelSelector=a%3Db");
    }
}
