//! Notes every request and write of a load, and compares the writes with what the store saw.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use mvproxy_tests::store::{Range, Store};
use serde_json::Value;

/// The last words of what a load calls a write.
const WRITES: [&str; 4] = [" POST", " PUT", " PATCH", " DELETE"];

/// What a load has done so far.
#[derive(Debug, Default)]
pub struct Ledger {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    requests: usize,
    failures: Vec<Failure>,
    slowest: Duration,
    /// Writes that somebody began, and whether they were told that it took place.
    writes: HashMap<String, bool>,
}

/// One request that did not get the answer it should.
#[derive(Clone, Debug)]
pub struct Failure {
    pub begun: Instant,
    pub ended: Instant,
    pub what: String,
    pub why: String,
    pub is_write: bool,
    /// The proxy said, with a 502 and a Status, that nobody can know whether the write took place.
    pub in_doubt: bool,
}

/// One write as the store or a watch saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub kind: String,
    pub revision: u64,
}

impl Ledger {
    /// Notes one request and how it went.
    pub fn note<T>(&self, begun: Instant, what: &str, outcome: &Result<T, String>) {
        let mut state = self.state.lock().unwrap();
        state.requests += 1;
        state.slowest = state.slowest.max(begun.elapsed());
        if let Err(why) = outcome {
            let is_write = WRITES.iter().any(|method| what.ends_with(method));
            let is_status = why.starts_with("502 ") && why.contains(r#"{"kind":"Status","apiVersion":"v1""#);
            let in_doubt = is_status && why.contains("the request may have had an effect");
            let (ended, what, why) = (Instant::now(), what.to_owned(), why.clone());
            state.failures.push(Failure { begun, ended, what, why, is_write, in_doubt });
        }
    }

    /// A write with this mark is about to be sent.
    pub fn begin_write(&self, mark: &str) {
        self.state.lock().unwrap().writes.insert(mark.to_owned(), false);
    }

    /// The client was told that it took place.
    pub fn confirm_write(&self, mark: &str) {
        self.state.lock().unwrap().writes.insert(mark.to_owned(), true);
    }

    pub fn requests(&self) -> usize {
        self.state.lock().unwrap().requests
    }

    pub fn failures(&self) -> Vec<Failure> {
        self.state.lock().unwrap().failures.clone()
    }

    /// Requests, failures by kind, and the longest wait, in words.
    pub fn summary(&self) -> String {
        let state = self.state.lock().unwrap();
        let mut kinds: HashMap<String, usize> = HashMap::new();
        for failure in &state.failures {
            // What a Status says is behind what all of them begin with.
            let said = failure.why.split_once(r#""message":"#).map_or(failure.why.as_str(), |(_, said)| said);
            let why: String = said.chars().take(90).collect();
            *kinds.entry(format!("{}: {why}", failure.what)).or_default() += 1;
        }
        let mut text = format!(
            "{} requests, {} writes among them, {} failed, slowest {:.2} s",
            state.requests,
            state.writes.len(),
            state.failures.len(),
            state.slowest.as_secs_f32()
        );
        let mut kinds: Vec<_> = kinds.into_iter().collect();
        kinds.sort();
        for (kind, count) in kinds {
            let _ = write!(text, "\n    {count:>4} x {kind}");
        }
        text
    }

    /// Every confirmed write happened once, and every other at most once.
    ///
    /// # Errors
    /// One line for each write that was lost or doubled.
    pub async fn check_writes(&self, store: &Path, range: &Range) -> Result<usize, String> {
        let history = Store::connect(store).await.unwrap();
        let events = history.events(range, 0, Duration::ZERO).await.unwrap().events;
        self.compare(events.iter().map(|event| (event.value.as_deref(), event.previous.as_deref())))
    }

    /// The same with every object after and before each change that took place.
    ///
    /// # Errors
    /// One line for each write that was lost or doubled.
    pub fn compare<'a>(
        &self,
        changes: impl IntoIterator<Item = (Option<&'a Value>, Option<&'a Value>)>,
    ) -> Result<usize, String> {
        let mut seen: HashMap<String, usize> = HashMap::new();
        for change in changes {
            let mark = match change {
                (Some(value), _) => mark_of(value),
                // A deletion is known by the last mark that the object had.
                (None, Some(previous)) => deletion_of(&mark_of(previous)),
                (None, None) => String::new(),
            };
            *seen.entry(mark).or_default() += 1;
        }
        let state = self.state.lock().unwrap();
        let mut mistakes = String::new();
        for (mark, confirmed) in &state.writes {
            let times = seen.get(mark).copied().unwrap_or_default();
            if times > 1 || (*confirmed && times == 0) {
                let _ = writeln!(mistakes, "{mark}: confirmed {confirmed}, stored {times} times");
            }
        }
        if mistakes.is_empty() { Ok(state.writes.len()) } else { Err(mistakes) }
    }
}

/// The mark of the deletion of an object whose last write was marked `mark`.
pub fn deletion_of(mark: &str) -> String {
    format!("{mark}/deleted")
}

/// The mark that the last write left in an object.
pub fn mark_of(object: &Value) -> String {
    object.pointer("/data/mark").and_then(Value::as_str).unwrap_or_default().to_owned()
}
