//! Sets TLS up as `mvproxy run` does, from certificates on disk.

use std::net::{IpAddr, Ipv4Addr};

use mvproxy::config::{Config, Invocation, parse};
use mvproxy::credentials::Credentials;
use mvproxy::tls::TlsContext;
use mvproxy_tests::pki::Pki;
use rustls_pki_types::UnixTime;

/// The configuration of a proxy on a node of a cluster with these CAs.
pub(crate) fn of(pki: &Pki) -> TlsContext {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let nodes = [("node".to_owned(), IpAddr::V4(Ipv4Addr::LOCALHOST))];
    pki.write_to(dir.path(), &nodes).expect("certificates on disk");
    let flag = |name: &str, file: &str| format!("--{name}={}", dir.path().join(file).display());
    let config = config(&[
        flag("tls-cert-file", "node/apiserver.crt"),
        flag("tls-private-key-file", "node/apiserver.key"),
        flag("client-ca-file", "ca.crt"),
        flag("requestheader-client-ca-file", "front-proxy-ca.crt"),
        flag("proxy-client-cert-file", "front-proxy-client.crt"),
        flag("proxy-client-key-file", "front-proxy-client.key"),
        flag("peer-ca-file", "ca.crt"),
        flag("kubeconfig", "node/mvproxy.conf"),
        "--requestheader-allowed-names=front-proxy-client".to_owned(),
        "--steering=off".to_owned(),
    ]);
    let credentials = Credentials::load(&config).expect("credentials");
    TlsContext::new(&credentials, &config.serving_tls, UnixTime::now()).expect("a TLS configuration")
}

fn config(flags: &[String]) -> Config {
    let words = ["mvproxy", "run"].into_iter().map(str::to_owned);
    match parse(words.chain(flags.iter().cloned())) {
        Ok(Invocation::Run(config)) => *config,
        other => panic!("{other:?}"),
    }
}
