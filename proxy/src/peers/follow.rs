//! Follows objects of the API server for as long as the process lives: a list, then a watch, and again after an error.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use kube::Client;
use kube::runtime::watcher::{self, Event};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::causes::chain;
use crate::metrics::Metrics;
use crate::own_client::{OwnClientError, OwnClients};
use crate::pause::{Backoff, jittered};

/// What following takes.
#[derive(Clone, Debug)]
pub struct Follower {
    /// Where clients come from.
    pub clients: OwnClients,
    /// Where failures are counted.
    pub metrics: Arc<Metrics>,
}

/// What is followed, in words for people.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// Such as "`EndpointSlices` of default/kubernetes".
    pub name: &'static str,
    /// What holds while they cannot be read.
    pub meanwhile: &'static str,
    /// What a failure counts as, by upstream's names.
    pub error_type: &'static str,
}

/// What happened.
#[derive(Debug)]
pub enum Seen<T> {
    /// A list of all objects begins.
    Begin,
    /// An object of the list, or one that is new or changed.
    Object(T),
    /// An object was deleted.
    Gone(T),
    /// The list was whole: what was not in it is not there.
    Complete,
    /// It cannot be read at present.
    Failed,
}

/// Why following ended.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error("own credentials cannot be used")]
    Credentials(#[from] OwnClientError),
    #[error("no right to list and watch them")]
    Forbidden(#[source] watcher::Error),
    #[error("not readable")]
    Unreadable(#[source] watcher::Error),
    #[error("a list does not go on for {} s", LIST_LIMIT.as_secs())]
    Late,
    #[error("the watch ended")]
    Ended,
}

/// Time for the next object of a list; a server that hangs is asked again.
const LIST_LIMIT: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Without the right to watch, what may be listed is listed this often; and rights can be given at any time.
const FORBIDDEN_PAUSE: Duration = Duration::from_secs(30);
/// A watch that lasted this long had nothing to do with the failures before it.
const LASTING: Duration = Duration::from_mins(1);

impl Follower {
    /// Runs until the task is dropped. A client is made anew after each error: the credentials may have been renewed.
    pub async fn follow<T, S>(
        self,
        subject: Subject,
        start: impl Fn(Client) -> S + Send,
        mut sink: impl FnMut(Seen<T>) + Send,
    ) where
        S: Stream<Item = watcher::Result<Event<T>>> + Send,
    {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut told: Option<&'static str> = None;
        loop {
            let began = Instant::now();
            let error = self.attempt(&start, |seen| {
                if matches!(seen, Seen::Complete) && told.take_if(|told| *told != FORBIDDEN).is_some() {
                    info!("{} are readable again", subject.name);
                }
                sink(seen);
            });
            let error = error.await;
            sink(Seen::Failed);
            self.metrics.discovery_failed(subject.error_type, error.reason());
            if told != Some(error.reason()) {
                told = Some(error.reason());
                warn!(error = %chain(&error), "{}: {}", subject.name, subject.meanwhile);
            }
            if began.elapsed() > LASTING {
                backoff.succeeded();
            }
            let is_forbidden = matches!(error, FollowError::Forbidden(_));
            sleep(if is_forbidden { jittered(FORBIDDEN_PAUSE) } else { backoff.failed() }).await;
        }
    }

    async fn attempt<T, S>(&self, start: &impl Fn(Client) -> S, mut sink: impl FnMut(Seen<T>)) -> FollowError
    where
        S: Stream<Item = watcher::Result<Event<T>>>,
    {
        let client = match self.clients.connect() {
            Ok(client) => client,
            Err(error) => return error.into(),
        };
        let mut events = pin!(start(client));
        let mut is_listing = true;
        loop {
            let event = if is_listing {
                match timeout(LIST_LIMIT, events.next()).await {
                    Ok(event) => event,
                    Err(_) => return FollowError::Late,
                }
            } else {
                events.next().await
            };
            let seen = match event {
                Some(Ok(Event::Init)) => Seen::Begin,
                Some(Ok(Event::InitApply(object) | Event::Apply(object))) => Seen::Object(object),
                Some(Ok(Event::Delete(object))) => Seen::Gone(object),
                Some(Ok(Event::InitDone)) => Seen::Complete,
                Some(Err(error)) => return error.into(),
                None => return FollowError::Ended,
            };
            match seen {
                Seen::Begin => is_listing = true,
                Seen::Complete => is_listing = false,
                Seen::Object(_) | Seen::Gone(_) | Seen::Failed => {}
            }
            sink(seen);
        }
    }
}

const FORBIDDEN: &str = "forbidden";

impl FollowError {
    /// Label of the metric.
    fn reason(&self) -> &'static str {
        match self {
            FollowError::Credentials(_) => "credentials",
            FollowError::Forbidden(_) => FORBIDDEN,
            FollowError::Unreadable(_) | FollowError::Ended => "unreadable",
            FollowError::Late => "timeout",
        }
    }
}

impl From<watcher::Error> for FollowError {
    fn from(error: watcher::Error) -> Self {
        let code = match &error {
            watcher::Error::InitialListFailed(kube::Error::Api(status))
            | watcher::Error::WatchStartFailed(kube::Error::Api(status))
            | watcher::Error::WatchFailed(kube::Error::Api(status))
            | watcher::Error::WatchError(status) => status.code,
            _ => 0,
        };
        if code == 403 { FollowError::Forbidden(error) } else { FollowError::Unreadable(error) }
    }
}
