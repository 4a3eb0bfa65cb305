//! Runs one node whose proxy has time limits that a test can wait for.

use std::net::SocketAddr;
use std::time::Duration;

use mvproxy::config::Config;
use mvproxy::limits::TimeLimits;
use mvproxy_tests::pki::Pki;
use mvproxy_tests::standin::{Documents, Standin};
use mvproxy_tests::store::Store;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::{Instant, sleep, timeout};

use super::support::{Caller, Http, Proxy, ProxyOptions, standin};

/// Long enough that no honest client of a busy machine meets it, and short enough to wait for.
pub const HEADER: Duration = Duration::from_secs(1);
/// For tests in which another limit must not be met.
pub const NEVER: Duration = Duration::from_mins(5);
/// What a busy machine may add to a limit, and the proxy to say goodbye.
const SLACK: Duration = Duration::from_secs(4);

/// An API server and the proxy before it.
pub struct Node {
    pub pki: Pki,
    pub standin: Standin,
    pub proxy: Proxy,
}

impl Node {
    pub async fn start(flags: &[&str], limits: TimeLimits) -> Self {
        let (pki, store) = (Pki::generate().unwrap(), Store::in_memory());
        let (standin, serving) = standin(&pki, &store, "lone", Documents::load("v1.36").unwrap()).await;
        let options = ProxyOptions { pki: &pki, serving: &serving, local: standin.addr, peers: &[], flags };
        let proxy = Proxy::start_with(&options, |config: &mut Config| config.time_limits = limits);
        Self { pki, standin, proxy }
    }

    pub fn address(&self) -> SocketAddr {
        self.proxy.address
    }

    pub fn alice(&self) -> Caller {
        Caller::alice(&self.pki)
    }

    /// What the proxy says of itself to operators.
    pub async fn readyz(&self) -> String {
        self.proxy.readyz().await
    }

    /// Somebody else asks for something on connections of their own, until `others` is done; all are answered soon.
    pub async fn serves_others_during<T>(&self, others: impl Future<Output = T>) -> T {
        tokio::select! {
            result = Box::pin(others) => result,
            never = Box::pin(self.ask_for_ever()) => never,
        }
    }

    async fn ask_for_ever<T>(&self) -> T {
        loop {
            for http in [Http::One, Http::Two] {
                let begun = Instant::now();
                let answer = self.alice().get(self.address(), http, "/version").await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                assert!(begun.elapsed() < Duration::from_secs(3), "answered after {:?}", begun.elapsed());
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Waits until the server closes a connection, not before `limit` since `begun` and not long after. Returns what it said.
pub async fn closes_after(
    what: &str,
    limit: Duration,
    begun: Instant,
    stream: &mut (impl AsyncRead + Unpin),
) -> Vec<u8> {
    let mut said = Vec::new();
    let latest = begun + limit + SLACK;
    // A reset closes it, too.
    let closed = timeout(latest - Instant::now(), stream.read_to_end(&mut said)).await;
    assert!(closed.is_ok(), "{what}: open for {:?}, not for {limit:?}", begun.elapsed());
    let elapsed = begun.elapsed();
    assert!(elapsed >= limit, "{what}: closed after {elapsed:?}");
    said
}
