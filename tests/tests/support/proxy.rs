//! Runs the proxy as `mvproxy run` does, on ephemeral ports.

use std::net::SocketAddr;
use std::path::Path;

use mvproxy::app::{App, AppError};
use mvproxy::config::{self, Config, Invocation};
use mvproxy::credentials::Credentials;
use mvproxy_tests::pki::{Identity, Pki};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Metrics, eventually};

/// What one proxy is started with.
pub struct ProxyOptions<'a> {
    pub pki: &'a Pki,
    /// The certificate of the API server it stands before.
    pub serving: &'a Identity,
    pub local: SocketAddr,
    /// None means one that is never there.
    pub peers: &'a [SocketAddr],
    /// More flags; later ones win.
    pub flags: &'a [&'a str],
}

/// A running proxy; dropping it drains it without waiting.
pub struct Proxy {
    /// The first worker's listener.
    pub address: SocketAddr,
    /// Every worker's listener.
    pub addresses: Vec<SocketAddr>,
    pub admin: SocketAddr,
    drain: CancellationToken,
    serving: Option<JoinHandle<Result<(), AppError>>>,
    files: TempDir,
}

impl Proxy {
    /// Starts without waiting for anything.
    pub fn start(options: &ProxyOptions<'_>) -> Self {
        Self::start_with(options, |_| {})
    }

    /// The same with changes to what no flag sets.
    pub fn start_with(options: &ProxyOptions<'_>, change: impl FnOnce(&mut Config)) -> Self {
        let files = tempfile::tempdir().unwrap();
        write_files(files.path(), options);
        let mut config = parse(files.path(), options);
        change(&mut config);
        let credentials = Credentials::load(&config).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
        let app = App::bind(config, &credentials).unwrap_or_else(|error| panic!("{error}: {error:?}"));
        let addresses = app.addresses();
        Self {
            address: addresses[0],
            addresses,
            admin: app.admin_address().unwrap(),
            drain: app.drain_token(),
            serving: Some(tokio::spawn(app.serve())),
            files,
        }
    }

    /// Waits until the admin address says that the proxy is ready.
    pub async fn ready(&self) {
        eventually("the proxy is ready", async || {
            let (status, body) = super::admin::get(self.admin, "/readyz").await?;
            super::ensure(status == 200, || format!("/readyz says {status}: {body}"))
        })
        .await;
    }

    /// Renews one of the files that it was started with, the way careful tools do: a whole new file in its place.
    pub fn renew(&self, name: &str, text: &str) {
        let fresh = self.files.path().join(format!("{name}.new"));
        std::fs::write(&fresh, text).unwrap();
        std::fs::rename(&fresh, self.files.path().join(name)).unwrap();
    }

    /// What the admin address says about the proxy's condition.
    pub async fn readyz(&self) -> String {
        super::admin::get(self.admin, "/readyz?verbose").await.unwrap().1
    }

    pub async fn metrics(&self) -> Metrics {
        Metrics::scrape(self.admin).await
    }

    /// Begins to drain, as SIGTERM does.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Waits until the proxy has ended.
    pub async fn ended(&mut self) -> Result<(), AppError> {
        self.serving.take().expect("a proxy ends once").await.expect("the proxy does not panic")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.drain.cancel();
    }
}

fn write_files(dir: &Path, options: &ProxyOptions<'_>) {
    let ProxyOptions { pki, serving, .. } = options;
    let front = pki.front_proxy_client();
    for (name, text) in [
        ("apiserver.crt", serving.cert_pem.as_str()),
        ("apiserver.key", &serving.key_pem),
        ("ca.crt", pki.ca_pem()),
        ("peer-ca.crt", pki.ca_pem()),
        ("front-proxy-ca.crt", pki.front_proxy_ca_pem()),
        ("front-proxy-client.crt", &front.cert_pem),
        ("front-proxy-client.key", &front.key_pem),
    ] {
        std::fs::write(dir.join(name), text).unwrap();
    }
}

fn parse(dir: &Path, options: &ProxyOptions<'_>) -> Config {
    let mut args: Vec<String> = [
        "mvproxy",
        "run",
        "--steering=off",
        "--listen=127.0.0.1:0",
        "--admin-address=127.0.0.1:0",
        "--discovery-interval=100ms",
        "--workers=2",
        "--requestheader-allowed-names=front-proxy-client",
    ]
    .map(str::to_owned)
    .to_vec();
    args.push(format!("--local-apiserver={}", options.local));
    // What one test's proxy learns is not another's.
    args.push(format!("--state-dir={}", dir.join("state").display()));
    let peers: Vec<String> = options.peers.iter().map(SocketAddr::to_string).collect();
    let discovers = options.flags.iter().any(|flag| flag.starts_with("--kubeconfig="));
    if !peers.is_empty() {
        args.push(format!("--peers={}", peers.join(",")));
    } else if !discovers {
        // The flags would have to name credentials to discover them with; nobody listens on tcpmux.
        args.push("--peers=127.0.0.1:1".to_owned());
    }
    for (flag, file) in [
        ("tls-cert-file", "apiserver.crt"),
        ("tls-private-key-file", "apiserver.key"),
        ("client-ca-file", "ca.crt"),
        ("peer-ca-file", "peer-ca.crt"),
        ("requestheader-client-ca-file", "front-proxy-ca.crt"),
        ("proxy-client-cert-file", "front-proxy-client.crt"),
        ("proxy-client-key-file", "front-proxy-client.key"),
    ] {
        args.push(format!("--{flag}={}", dir.join(file).display()));
    }
    args.extend(options.flags.iter().map(|flag| (*flag).to_owned()));
    match config::parse(args) {
        Ok(Invocation::Run(config)) => *config,
        other => panic!("the test's flags are no configuration: {other:?}"),
    }
}
