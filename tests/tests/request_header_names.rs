//! Where nobody configures the header names of front proxies, the API server's own are used.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use mvproxy::app::App;
use mvproxy::authentication;
use mvproxy::config::{self, Config, Invocation};
use mvproxy::credentials::Credentials;
use mvproxy_tests::pki::Pki;
use mvproxy_tests::standin::{RequestHeader, Standin, StandinOptions};
use mvproxy_tests::store::Store;
use serde_json::json;
use support::{BOTH, Caller, Http, bounded};

const MAPS: &str = "/api/v1/namespaces/kube-system/configmaps";

#[test]
fn identities_are_asserted_under_the_names_that_the_api_server_publishes() {
    bounded(async {
        let (pki, files) = (Pki::generate().unwrap(), tempfile::tempdir().unwrap());
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        pki.write_to(files.path(), &[("local".to_owned(), ip)]).unwrap();
        let local = unusual_standin(&pki).await;
        let config = configured(files.path(), &local);
        let waiting = tokio::spawn(authentication::complete(config));
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!waiting.is_finished(), "without an answer nobody is served");
        publish(&pki, &local).await;

        let config = support::promptly("the names are found", waiting).await.unwrap();
        let names = &config.request_header;
        assert_eq!(
            (&names.username[..], &names.group[..]),
            (&["X-Who".to_owned()][..], &["X-Team".to_owned()][..])
        );
        assert_eq!(names.allowed_names, ["front-proxy-client"]);
        let app = App::bind(config.clone(), &Credentials::load(&config).unwrap()).unwrap();
        let (address, drain) = (app.addresses()[0], app.drain_token());
        tokio::spawn(app.serve());
        for http in BOTH {
            let review = Caller::alice(&pki).who_am_i(address, http).await;
            let user = &review.json().unwrap()["status"]["userInfo"];
            assert_eq!((&user["username"], &user["groups"][1]), (&"alice".into(), &"ops".into()), "{user}");
            let liar = Caller::nobody(&pki).header("x-who", "admin").header("x-team", "system:masters");
            let review = liar.who_am_i(address, http).await;
            assert_ne!(
                review.json().unwrap()["status"]["userInfo"]["username"],
                "admin",
                "{}",
                review.text()
            );
        }
        drain.cancel();
    });
}

/// One that believes front proxies under other names than the usual ones.
async fn unusual_standin(pki: &Pki) -> Standin {
    let mut options = StandinOptions::from_pki(pki, "local", "v1.36", &Store::in_memory()).unwrap();
    options.request_header = Some(RequestHeader {
        username_headers: vec!["X-Who".to_owned()],
        group_headers: vec!["X-Team".to_owned()],
        ..RequestHeader::usual(pki.front_proxy_ca_pem())
    });
    Standin::start(options).await.unwrap()
}

/// What a kubeadm node gives, but for the names.
fn configured(files: &Path, local: &Standin) -> Config {
    let file = |name: &str| files.join(name).display().to_string();
    let args = [
        "mvproxy".to_owned(),
        "run".to_owned(),
        "--steering=off".to_owned(),
        "--listen=127.0.0.1:0".to_owned(),
        "--admin-address=127.0.0.1:0".to_owned(),
        "--peers=127.0.0.1:1".to_owned(),
        format!("--state-dir={}", file("state")),
        format!("--local-apiserver={}", local.addr),
        format!("--kubeconfig={}", file("local/admin.conf")),
        format!("--tls-cert-file={}", file("local/apiserver.crt")),
        format!("--tls-private-key-file={}", file("local/apiserver.key")),
        format!("--client-ca-file={}", file("ca.crt")),
        format!("--peer-ca-file={}", file("ca.crt")),
        format!("--requestheader-client-ca-file={}", file("front-proxy-ca.crt")),
        format!("--proxy-client-cert-file={}", file("front-proxy-client.crt")),
        format!("--proxy-client-key-file={}", file("front-proxy-client.key")),
    ];
    match config::parse(args) {
        Ok(Invocation::Run(config)) => *config,
        other => panic!("the test's flags are no configuration: {other:?}"),
    }
}

/// As kube-apiserver does for its aggregated servers.
async fn publish(pki: &Pki, server: &Standin) {
    let map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "extension-apiserver-authentication"},
        "data": {
            "requestheader-allowed-names": r#"["front-proxy-client"]"#,
            "requestheader-client-ca-file": pki.front_proxy_ca_pem(),
            "requestheader-extra-headers-prefix": r#"["X-Remote-Extra-"]"#,
            "requestheader-group-headers": r#"["X-Team"]"#,
            "requestheader-username-headers": r#"["X-Who"]"#,
        },
    });
    let mut admin = Caller::admin(pki).connect(server.addr, Http::Two).await;
    let written = admin.json("POST", MAPS, &map).await;
    assert_eq!(written.status, 201, "{}", written.text());
}
