//! Keeps connections to API servers, apart by upstream and trust class.
//!
//! kube-apiserver allows 100 streams on an HTTP/2 connection and a watch holds one for hours, so there are as many
//! connections as the streams need. One pool belongs to one worker thread: its locks are never contended.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::client::conn::http1;
use tokio::runtime::Handle;
use tokio::time::sleep;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::connect::{ConnectError, Connection, Dialer, Http2Sender};
use super::request::RequestBody;
use crate::causes::chain;
use crate::upstream::{Role, TrustClass, Upstream};

/// Share of the streams a server allows that the proxy uses: a request beyond the limit would wait for a watch to end.
/// kube-apiserver allows 100.
const USED_STREAMS: (usize, usize) = (4, 5);
/// Free places below which another connection is opened ahead of need.
const FEW_PLACES: usize = 8;
/// Time for which a request that was given up unanswered keeps its place: its handler may still be at work.
/// kube-apiserver ends a connection, and all that others have on it, when four times its streams wait for a handler.
const GIVEN_UP: Duration = Duration::from_secs(1);
/// Idle HTTP/1.1 connections kept per upstream and class.
const IDLE_HTTP1: usize = 8;

/// All connections of one worker.
#[derive(Debug)]
pub struct Pool {
    dialer: Dialer,
    groups: Mutex<HashMap<Key, Arc<Group>>>,
    upgraded: TaskTracker,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    address: SocketAddr,
    role: Role,
    class: TrustClass,
    /// Of the credentials that the connections were opened with.
    generation: u64,
}

/// Connections that may stand in for each other.
#[derive(Debug, Default)]
struct Group {
    http2: Mutex<Vec<Multiplexed>>,
    http1: Mutex<Vec<http1::SendRequest<RequestBody>>>,
    /// One dial at a time: a burst of requests then shares the connections that come about, or the failure.
    dialing: tokio::sync::Mutex<()>,
    last_failure: Mutex<Option<(Instant, Arc<ConnectError>)>>,
}

#[derive(Debug)]
struct Multiplexed {
    sender: Http2Sender,
    streams: Arc<AtomicUsize>,
    opened: Instant,
}

/// Which connections will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Any that is open.
    Any,
    /// One opened since then: those that were open before may all be gone.
    OpenedSince(Instant),
}

/// The right to send one request.
#[derive(Debug)]
pub struct Lease {
    /// Connection to send on.
    pub connection: Connection,
    /// Whether the connection has carried a request before, and so may have died unnoticed.
    pub reused: bool,
    /// Returns the place on the connection when the response has ended.
    pub guard: StreamGuard,
}

/// Holds a place on a connection until the response has ended.
#[derive(Debug)]
pub struct StreamGuard(Hold);

#[derive(Debug)]
enum Hold {
    Stream { streams: Arc<AtomicUsize>, answered: bool },
    Exclusive { group: Arc<Group>, sender: Option<http1::SendRequest<RequestBody>> },
}

impl Pool {
    /// An empty pool.
    pub fn new(dialer: Dialer) -> Self {
        Self { dialer, groups: Mutex::default(), upgraded: TaskTracker::new() }
    }

    /// The dialer, for connections that are not pooled.
    pub fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// Connections that were upgraded and joined: they outlive their clients' HTTP.
    pub fn upgraded(&self) -> &TaskTracker {
        &self.upgraded
    }

    /// Takes a place on a connection, opening one where none has room.
    ///
    /// # Errors
    /// When a new connection is needed and does not come about.
    pub async fn acquire(
        &self,
        upstream: &Upstream,
        class: TrustClass,
        wanted: Wanted,
    ) -> Result<Lease, ConnectError> {
        let group = self.group(upstream, class);
        if let Some(lease) = Group::existing(&group, wanted) {
            if group.is_nearly_full() {
                self.open_ahead(&group, upstream, class);
            }
            return Ok(lease);
        }
        // On the heap: hardly any request dials, and every one would have the place for it.
        Box::pin(self.acquire_fresh(&group, upstream, class, wanted)).await
    }

    async fn acquire_fresh(
        &self,
        group: &Arc<Group>,
        upstream: &Upstream,
        class: TrustClass,
        wanted: Wanted,
    ) -> Result<Lease, ConnectError> {
        if class == TrustClass::Anonymous {
            // HTTP/1.1: nobody can share the connection, so nobody waits for it.
            return Ok(Group::add(group, self.dialer.connect(upstream, class).await?));
        }
        let asked = Instant::now();
        let _dialing = group.dialing.lock().await;
        if let Some(lease) = Group::existing(group, wanted) {
            return Ok(lease);
        }
        if let Some(error) = group.failure_since(asked) {
            return Err(ConnectError::Shared(error));
        }
        match self.dialer.connect(upstream, class).await {
            Ok(connection) => Ok(Group::add(group, connection)),
            Err(error) => Err(ConnectError::Shared(group.failed(error))),
        }
    }

    /// Opens a connection before the first request needs it.
    pub fn warm_up(&self, upstream: &Upstream, class: TrustClass) {
        let group = self.group(upstream, class);
        if lock(&group.http2).is_empty() {
            self.open_ahead(&group, upstream, class);
        }
    }

    /// Forgets connections to servers that are not in `upstreams`; requests on them go on.
    pub fn keep_only(&self, upstreams: &[Upstream]) {
        let known = |key: &Key| upstreams.iter().any(|upstream| upstream.address == key.address);
        lock(&self.groups).retain(|key, _| known(key));
    }

    /// Dials in the background, unless somebody is dialling already.
    fn open_ahead(&self, group: &Arc<Group>, upstream: &Upstream, class: TrustClass) {
        let (dialer, group, upstream) = (self.dialer.clone(), Arc::clone(group), *upstream);
        tokio::spawn(async move {
            let Ok(_dialing) = group.dialing.try_lock() else { return };
            if group.places() >= FEW_PLACES {
                return;
            }
            match dialer.connect(&upstream, class).await {
                Ok(connection) => Group::add(&group, connection).give_back(),
                Err(error) => debug!(error = %chain(&error), "no connection opened ahead of need"),
            }
        });
    }

    fn group(&self, upstream: &Upstream, class: TrustClass) -> Arc<Group> {
        let generation = self.dialer.upstream_generation();
        let key = Key { address: upstream.address, role: upstream.role, class, generation };
        let mut groups = lock(&self.groups);
        if let Some(group) = groups.get(&key) {
            return Arc::clone(group);
        }
        // Requests on connections with former credentials go on, but no new one is sent there.
        groups.retain(|known, _| known.generation == generation);
        Arc::clone(groups.entry(key).or_default())
    }
}

impl Group {
    fn existing(this: &Arc<Self>, wanted: Wanted) -> Option<Lease> {
        let mut connections = lock(&this.http2);
        connections.retain(|connection| !connection.sender.requests.is_closed());
        let will_do =
            |connection: &&Multiplexed| connection.places() > 0 && wanted.includes(connection.opened);
        if let Some(connection) = connections.iter().find(will_do) {
            return Some(connection.lease(true));
        }
        drop(connections);
        if wanted != Wanted::Any {
            return None;
        }
        let mut idle = lock(&this.http1);
        while let Some(sender) = idle.pop() {
            if sender.is_ready() {
                return Some(Group::exclusive(this, sender, true));
            }
        }
        None
    }

    /// Why the last dial failed, if that was after a moment.
    fn failure_since(&self, moment: Instant) -> Option<Arc<ConnectError>> {
        let failure = lock(&self.last_failure);
        failure.as_ref().filter(|(at, _)| *at > moment).map(|(_, error)| Arc::clone(error))
    }

    fn failed(&self, error: ConnectError) -> Arc<ConnectError> {
        let error = Arc::new(error);
        *lock(&self.last_failure) = Some((Instant::now(), Arc::clone(&error)));
        error
    }

    /// Requests that open HTTP/2 connections can still take.
    fn places(&self) -> usize {
        lock(&self.http2).iter().map(Multiplexed::places).sum()
    }

    /// Whether HTTP/2 is in use and its places run out.
    fn is_nearly_full(&self) -> bool {
        let connections = lock(&self.http2);
        !connections.is_empty() && connections.iter().map(Multiplexed::places).sum::<usize>() < FEW_PLACES
    }

    fn add(this: &Arc<Self>, connection: Connection) -> Lease {
        match connection {
            Connection::Http2(sender) => {
                let connection = Multiplexed { sender, streams: Arc::default(), opened: Instant::now() };
                let lease = connection.lease(false);
                lock(&this.http2).push(connection);
                lease
            }
            Connection::Http1(sender) => Group::exclusive(this, sender, false),
        }
    }

    fn exclusive(this: &Arc<Self>, sender: http1::SendRequest<RequestBody>, reused: bool) -> Lease {
        let guard = StreamGuard(Hold::Exclusive { group: Arc::clone(this), sender: None });
        Lease { connection: Connection::Http1(sender), reused, guard }
    }
}

impl Wanted {
    fn includes(self, opened: Instant) -> bool {
        match self {
            Wanted::Any => true,
            Wanted::OpenedSince(moment) => opened >= moment,
        }
    }
}

impl Multiplexed {
    /// Requests it can still take.
    fn places(&self) -> usize {
        usable(self.sender.allowed_streams()).saturating_sub(self.streams.load(Ordering::Relaxed))
    }

    fn lease(&self, reused: bool) -> Lease {
        self.streams.fetch_add(1, Ordering::Relaxed);
        Lease {
            connection: Connection::Http2(self.sender.clone()),
            reused,
            guard: StreamGuard(Hold::Stream { streams: Arc::clone(&self.streams), answered: false }),
        }
    }
}

/// Streams that the proxy uses of those that a server allows, which may be any number.
fn usable(allowed: usize) -> usize {
    let (part, whole) = USED_STREAMS;
    (allowed.min(MOST_STREAMS) * part / whole).max(1)
}

/// Stands for no limit, in a number that can be reckoned with.
const MOST_STREAMS: usize = 1 << 20;

impl Lease {
    /// Returns the place unused.
    fn give_back(mut self) {
        self.guard.keep(self.connection);
        self.guard.finished();
    }
}

impl StreamGuard {
    /// The head of the response is there. Hands an HTTP/1.1 connection over, to be kept once the response has ended.
    pub fn keep(&mut self, connection: Connection) {
        match (&mut self.0, connection) {
            (Hold::Exclusive { sender, .. }, Connection::Http1(used)) => *sender = Some(used),
            (Hold::Stream { answered, .. }, _) => *answered = true,
            (Hold::Exclusive { .. }, Connection::Http2(_)) => {}
        }
    }

    /// The response ended in order: its connection can serve again.
    pub fn finished(&mut self) {
        let Hold::Exclusive { group, sender } = &mut self.0 else { return };
        let Some(mut sender) = sender.take() else { return };
        let group = Arc::clone(group);
        tokio::spawn(async move {
            if sender.ready().await.is_ok() {
                let mut idle = lock(&group.http1);
                if idle.len() < IDLE_HTTP1 {
                    idle.push(sender);
                }
            }
        });
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        let Hold::Stream { streams, answered } = &self.0 else { return };
        let streams = Arc::clone(streams);
        match Handle::try_current() {
            Ok(runtime) if !answered => drop(runtime.spawn(async move {
                sleep(GIVEN_UP).await;
                streams.fetch_sub(1, Ordering::Relaxed);
            })),
            _ => drop(streams.fetch_sub(1, Ordering::Relaxed)),
        }
    }
}

/// Locks data that is whole at every moment, so that a panic elsewhere does not make it unusable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_streams_are_used_whatever_a_server_allows() {
        assert_eq!([0, 1, 100, 250].map(usable), [1, 1, 80, 200]);
        assert!(usable(usize::MAX) > 100_000, "a server without a limit");
    }
}
