//! Says whether the proxy is ready, in the words of kube-apiserver's `/readyz?verbose`.

use std::fmt::Write as _;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response};
use http_body_util::{BodyExt as _, Limited};

use crate::cut::Cutter;
use crate::discovery::Snapshot;
use crate::forward::ResponseBody;
use crate::reload::CredentialState;
use crate::steering::xdp::XdpState;
use crate::steering::{Attachment, Steering, WorkerState, Xdp};

/// Name of the proxy's line in the API server's own list.
pub const CHECK: &str = "mixed-version-proxy";
/// kube-apiserver's verbose text is about 3 KiB.
const VERBOSE_LIMIT: usize = 64 * 1024;

/// Who reads a verbose answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Any client of the API server.
    Anybody,
    /// Whoever reaches the admin address.
    Operator,
}

/// Reads the state of the process; holds none.
#[derive(Clone, Debug)]
pub struct Readiness {
    /// Asked when somebody asks.
    pub steering: Arc<Steering>,
    /// What every server serves.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Certificates, keys and CAs in use.
    pub credentials: Arc<ArcSwap<CredentialState>>,
    /// Whether the configuration asks for steering.
    pub steering_is_wanted: bool,
    /// What cuts connections, if anything does.
    pub cutter: Option<Arc<Cutter>>,
    /// Number of workers.
    pub workers: usize,
}

impl Readiness {
    /// Whether requests can be routed: the local API server's resources are known, and which peers there are.
    pub fn is_ready(&self) -> bool {
        let snapshot = self.snapshot.load();
        !snapshot.enabled() || snapshot.is_synced()
    }

    /// The proxy's lines of a verbose answer. Reasons are for the admin address: kube-apiserver withholds them too, since
    /// anybody may read its list.
    pub fn lines(&self, audience: Audience) -> String {
        let mut lines = String::new();
        let verdict = if self.is_ready() { "[+]" } else { "[-]" };
        let outcome = if self.is_ready() { "ok" } else { "failed: discovery is not synced" };
        // Writing to a String cannot fail.
        let _ = writeln!(lines, "{verdict}{CHECK} {outcome}");
        let canary = self.steering.canary();
        if audience == Audience::Operator && !canary.is_everyone() {
            let _ = writeln!(lines, "[+]{CHECK}-canary ok: only {canary} are steered");
        }
        let wire = self.steering.xdp().map(Xdp::state).unwrap_or_default();
        for XdpState { interface, attached } in wire.iter().filter(|_| audience == Audience::Operator) {
            // What is not attached is listed below.
            let Ok(mode) = attached else { continue };
            let _ = writeln!(lines, "[+]{CHECK}-xdp ok: counts on {interface} ({})", mode.name());
        }
        for (check, why) in self.excluded(&wire) {
            let why = if audience == Audience::Operator { &why } else { "reason withheld" };
            let _ = writeln!(lines, "[+]{CHECK}-{check} excluded: {why}");
        }
        lines
    }

    /// What is amiss without keeping the proxy from being ready, and why.
    fn excluded(&self, wire: &[XdpState]) -> Vec<(&'static str, String)> {
        let former = |mistake: &String| ("credentials", format!("former ones stay in use: {mistake}"));
        let mut excluded: Vec<_> = self.credentials.load().mistakes.iter().map(former).collect();
        if self.steering_is_wanted {
            match self.steering.state().attachment {
                Attachment::Attached => {}
                Attachment::Removed => {
                    excluded.push(("steering", "runs unsteered: its pin was removed".to_owned()));
                }
                Attachment::Off { reason } => {
                    excluded.push(("steering", format!("runs unsteered: {reason}")));
                }
            }
        }
        if let Some(failure) = self.cutter.as_ref().and_then(|cutter| cutter.failure()) {
            excluded.push(("cut", format!("connected clients are not steered: {failure}")));
        }
        for XdpState { interface, attached } in wire {
            if let Err(reason) = attached {
                excluded.push(("xdp", format!("packets on {interface} are not counted: {reason}")));
            }
        }
        let mut reasons: Vec<_> = self.steering.workers(self.workers);
        reasons.retain(|state| *state != WorkerState::Serves);
        if let Some(first) = reasons.first() {
            let (paused, all, reason) = (reasons.len(), self.workers, first.reason());
            excluded.push(("workers", format!("{paused} of {all} take no new connections: {reason}")));
        }
        excluded
    }

    /// Adds the proxy's lines to the API server's verbose answer, before its last line; any other answer is untouched.
    ///
    /// # Errors
    /// When the API server broke off in the middle of its answer.
    pub async fn add_to(
        &self,
        response: Response<ResponseBody>,
    ) -> Result<Response<ResponseBody>, hyper::Error> {
        if !is_plain_text(&response) {
            return Ok(response);
        }
        let (mut parts, body) = response.into_parts();
        let text = match Limited::new(body, VERBOSE_LIMIT).collect().await {
            Ok(text) => text.to_bytes(),
            Err(error) => match error.downcast::<hyper::Error>() {
                Ok(error) => return Err(*error),
                Err(_) => Bytes::from_static(b"the API server's answer is too long to show\n"),
            },
        };
        if text.is_empty() {
            // To HEAD; the length it announces is that of the API server's own text.
            return Ok(Response::from_parts(parts, ResponseBody::empty()));
        }
        let text = self.insert_into(text);
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
        Ok(Response::from_parts(parts, ResponseBody::full(text)))
    }

    fn insert_into(&self, text: Bytes) -> Bytes {
        let Ok(lines) = std::str::from_utf8(&text) else { return text };
        let last = lines.trim_end_matches('\n').rfind('\n').map_or(0, |newline| newline + 1);
        if !lines[last..].contains(" check ") {
            return text;
        }
        Bytes::from(format!("{}{}{}", &lines[..last], self.lines(Audience::Anybody), &lines[last..]))
    }
}

/// Whether a request asks for the verbose list.
pub fn asks_for_list(path: &str, query: Option<&str>) -> bool {
    path == "/readyz"
        && query.is_some_and(|query| query.split('&').any(|pair| pair.split('=').next() == Some("verbose")))
}

fn is_plain_text(response: &Response<ResponseBody>) -> bool {
    response.headers().get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/plain"))
        && !response.headers().contains_key(http::header::CONTENT_ENCODING)
}
