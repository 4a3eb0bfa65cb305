//! Nothing that a client or the proxy keeps secret is ever written down, however much is logged.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::io;
use std::sync::{Arc, Mutex};

use mvproxy_tests::pki::Subject;
use support::{BOTH, Caller, Cluster, Http, both_serve, bounded, exchange, only_new_serves, request};
use tracing_subscriber::filter::LevelFilter;

/// Everything that was logged, by the proxy and by every library under it.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const TOKEN: &str = "bob-token";
const WRONG_TOKEN: &str = "wrong-t0ken-of-somebody";
const COOKIE: &str = "session=c00kie-of-somebody";
const CLAIMED: &str = "claimed-by-nobody";
const ASSERTED: &str = "extra-of-carol";
/// base64url of a token, as `kubectl` in a browser sends it.
const SUBPROTOCOL: &str = "base64url.bearer.authorization.k8s.io.d2Vic29ja2V0LXRva2Vu";

#[test]
fn no_secret_is_logged_counted_or_shown_at_any_verbosity() {
    let log = Log::default();
    let written = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_writer(move || written.clone())
        .with_ansi(false)
        .init();
    bounded(async move {
        let cluster = Cluster::start().await;
        let pki = &cluster.pki;
        let proxy = &cluster.old.proxy;
        let alice = Subject { common_name: "alice", ..Subject::default() };
        let client = pki.client(&alice).unwrap();
        let callers = [
            Caller::nobody(pki).token(TOKEN),
            Caller::nobody(pki).token(WRONG_TOKEN),
            Caller::nobody(pki).header("x-remote-user", CLAIMED).header("x-remote-group", CLAIMED),
            Caller { identity: Some(client.clone()), ..Caller::nobody(pki) }.token(TOKEN),
            Caller::front_proxy(pki).header("x-remote-user", "carol").header("x-remote-extra-key", ASSERTED),
        ]
        .map(|caller| caller.header("cookie", COOKIE));
        for caller in &callers {
            for http in BOTH {
                for path in
                    [both_serve().path(), only_new_serves().path(), "/apis/none/v1/nothing".to_owned()]
                {
                    caller.get(proxy.address, http, &path).await;
                }
            }
            let options = caller.options(proxy.address, Http::One);
            let head = format!(
                "GET {}/exec HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\nAuthorization: Bearer {TOKEN}\r\nCookie: {COOKIE}\r\n\
                 bad header\r\n\r\n",
                both_serve().path()
            );
            let _ = exchange(&options, head.as_bytes()).await;
        }
        // Answers of the proxy's own, and what it says of itself.
        proxy.renew("apiserver.key", &client.key_pem);
        support::eventually("the mismatch is noticed", async || {
            let outdated = proxy.metrics().await.sum("mvproxy_credentials_outdated", &[]);
            support::ensure(outdated == 1, || "not yet".to_owned())
        })
        .await;
        let shown = [
            support::admin_get(proxy.admin, "/metrics").await.unwrap().1,
            support::admin_get(proxy.admin, "/readyz?verbose").await.unwrap().1,
            callers[1].ask(proxy.address, Http::Two, request("GET", &only_new_serves().path())).await.text(),
        ];
        let log = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
        assert!(log.contains("h2::") && log.contains("mvproxy::"), "the proxy and its libraries do log");

        let keys = [&client.key_pem, &cluster.old.serving.key_pem, &pki.front_proxy_client().key_pem];
        let keys = keys.map(|pem| pem.lines().nth(1).unwrap().to_owned());
        let secrets = [TOKEN, WRONG_TOKEN, COOKIE, CLAIMED, ASSERTED, SUBPROTOCOL, "websocket-token"];
        for secret in secrets.iter().copied().chain(keys.iter().map(String::as_str)) {
            for line in log.lines().chain(shown.iter().flat_map(|text| text.lines())) {
                assert!(!line.contains(secret), "{secret:?} is in {line:.400}");
            }
        }
    });
}
