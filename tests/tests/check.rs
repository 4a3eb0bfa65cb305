//! `mvproxy check` finds what would keep the proxy from its work, and nothing on a sound node.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mvproxy::check::{Finding, Report, Verdict, check};
use mvproxy::config::{self, Invocation};
use mvproxy_tests::pki::Pki;
use mvproxy_tests::standin::{RequestHeader, Standin, StandinOptions};
use mvproxy_tests::store::Store;
use support::bounded;
use tempfile::TempDir;

/// Files of a node, its API server, and another one.
struct Site {
    pki: Pki,
    files: TempDir,
    local: Standin,
    peer: Standin,
}

impl Site {
    async fn start() -> Self {
        let (pki, files, store) =
            (Pki::generate().unwrap(), tempfile::tempdir().unwrap(), Store::in_memory());
        pki.write_to(files.path(), &[("local".to_owned(), IpAddr::V4(Ipv4Addr::LOCALHOST))]).unwrap();
        let serving = std::fs::read_to_string(files.path().join("local/apiserver.crt")).unwrap();
        let key = std::fs::read_to_string(files.path().join("local/apiserver.key")).unwrap();
        let mut options = StandinOptions::from_pki(&pki, "local", "v1.34", &store).unwrap();
        (options.serving.cert_pem, options.serving.key_pem) = (serving, key);
        let local = Standin::start(options).await.unwrap();
        let peer = StandinOptions::from_pki(&pki, "peer", "v1.36", &store).unwrap();
        Self { pki, files, local, peer: Standin::start(peer).await.unwrap() }
    }

    fn file(&self, name: &str) -> String {
        self.files.path().join(name).display().to_string()
    }

    /// The report with the flags of a sound node and then `more`.
    async fn report(&self, more: &[&str]) -> Report {
        self.report_on(&[self.peer.addr], more).await
    }

    async fn report_on(&self, peers: &[SocketAddr], more: &[&str]) -> Report {
        let peers: Vec<String> = peers.iter().map(ToString::to_string).collect();
        let mut args = vec![
            "mvproxy".to_owned(),
            "check".to_owned(),
            "--steering=off".to_owned(),
            format!("--local-apiserver={}", self.local.addr),
            format!("--peers={}", peers.join(",")),
            "--requestheader-allowed-names=front-proxy-client".to_owned(),
        ];
        for (flag, file) in [
            ("tls-cert-file", "local/apiserver.crt"),
            ("tls-private-key-file", "local/apiserver.key"),
            ("client-ca-file", "ca.crt"),
            ("peer-ca-file", "ca.crt"),
            ("requestheader-client-ca-file", "front-proxy-ca.crt"),
            ("proxy-client-cert-file", "front-proxy-client.crt"),
            ("proxy-client-key-file", "front-proxy-client.key"),
        ] {
            args.push(format!("--{flag}={}", self.file(file)));
        }
        args.extend(more.iter().map(|flag| (*flag).to_owned()));
        match config::parse(args) {
            Ok(Invocation::Check(request)) => check(&request, |_| {}).await,
            other => panic!("{other:?}"),
        }
    }
}

/// The finding of a kind with a verdict; there has to be one, with a remedy in it or beside it.
#[track_caller]
fn find<'a>(report: &'a Report, check: &str, verdict: Verdict) -> &'a Finding {
    let found = report.findings.iter().find(|finding| finding.check == check && finding.verdict == verdict);
    found.unwrap_or_else(|| panic!("no {verdict} of {check}: {report:#?}"))
}

#[test]
fn a_sound_node_has_nothing_to_mend() {
    bounded(async {
        let site = Site::start().await;
        let kubeconfig = format!("--kubeconfig={}", site.file("local/admin.conf"));
        for more in [&[][..], &[&*kubeconfig]] {
            let report = site.report(more).await;
            assert!(report.would_run, "{report:#?}");
            let troubled = report.findings.iter().filter(|finding| finding.verdict > Verdict::Skip);
            assert_eq!(troubled.count(), 0, "{report:#?}");
            for check in ["flags", "certificates", "local", "peer"] {
                find(&report, check, Verdict::Pass);
            }
        }
        assert!(
            site.local.requests().iter().all(|request| request.method != "PUT" && request.method != "DELETE")
        );
    });
}

#[test]
fn every_mistake_is_found_and_has_a_remedy() {
    bounded(async {
        let mut site = Site::start().await;
        let report = site.report(&["--pears=a:1", "--workers=0"]).await;
        assert_eq!(
            report.findings.iter().filter(|it| it.check == "flags" && it.verdict == Verdict::Fail).count(),
            2
        );
        assert!(!report.would_run);

        let wrong_key = format!("--tls-private-key-file={}", site.file("front-proxy-client.key"));
        let report = site.report(&[&wrong_key]).await;
        let finding = find(&report, "certificates", Verdict::Fail);
        assert!(finding.found.contains("does not belong to"), "{}", finding.found);

        // A client's certificate where the front proxy's should be.
        let (cert, key) = (site.file("alice.crt"), site.file("alice.key"));
        let alice = [format!("--proxy-client-cert-file={cert}"), format!("--proxy-client-key-file={key}")];
        let report = site.report(&alice.each_ref().map(String::as_str)).await;
        for server in ["local", "peer"] {
            let finding = find(&report, server, Verdict::Fail);
            assert!(finding.found.contains("every client for alice"), "{}", finding.found);
            assert!(finding.remedy.as_ref().unwrap().contains("--requestheader-client-ca-file"));
        }

        let nobody: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let report = site.report_on(&[site.peer.addr, nobody], &[]).await;
        assert!(find(&report, "peer", Verdict::Fail).found.contains("127.0.0.1:1"));
        find(&report, "peer", Verdict::Pass);

        let strangers = Pki::generate().unwrap();
        std::fs::write(site.files.path().join("strangers.crt"), strangers.ca_pem()).unwrap();
        let other_ca = format!("--peer-ca-file={}", site.file("strangers.crt"));
        find(&site.report(&[&other_ca]).await, "peer", Verdict::Fail);

        // Other header names than the API servers'.
        let names = RequestHeader {
            username_headers: vec!["X-Who".to_owned()],
            ..RequestHeader::usual(site.pki.front_proxy_ca_pem())
        };
        site.local.trust(Some(site.pki.ca_pem()), Some(names)).unwrap();
        let report = site.report(&[]).await;
        let finding = find(&report, "local", Verdict::Fail);
        assert!(finding.found.contains("front-proxy"), "{}", finding.found);

        let local = std::mem::replace(&mut site.local, dummy(&site.pki).await);
        let address = local.addr;
        drop(local);
        let there = format!("--local-apiserver={address}");
        let finding_text = find(&site.report(&[&there]).await, "local", Verdict::Fail).found.clone();
        assert!(finding_text.contains(&address.to_string()), "{finding_text}");
    });
}

async fn dummy(pki: &Pki) -> Standin {
    let options = StandinOptions::from_pki(pki, "dummy", "v1.34", &Store::in_memory()).unwrap();
    Standin::start(options).await.unwrap()
}
