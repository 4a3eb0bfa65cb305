//! Asks on every path and compares what API servers saw.

use std::net::SocketAddr;

use mvproxy_tests::client::{Answer, connect_tls};
use mvproxy_tests::standin::RecordedRequest;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use super::row::{Outcome, Row};
use super::support::{Caller, Cluster, Http, Node, aggregated, promptly, read_head, request};

const REVIEW: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const EXEC: &str = "/api/v1/namespaces/default/pods/p/exec";

/// A row's client in one cluster, in which only the new server reviews subjects and has pods.
pub struct Asker<'a> {
    cluster: &'a Cluster,
    row: &'a Row,
    caller: Caller,
    credential: String,
    number: usize,
    pub label: String,
}

/// How a request reaches the server that answers it.
#[derive(Clone, Copy, Debug)]
enum Path {
    /// To the server itself.
    Straight,
    /// Through the proxy before that server.
    Local,
    /// Through the proxy before another server, which has no such resource.
    Rerouted,
}

impl<'a> Asker<'a> {
    pub fn new(cluster: &'a Cluster, number: usize, row: &'a Row) -> Self {
        let identity = row.who.issue(&cluster.pki);
        let credential =
            identity.as_ref().map(|identity| credential_of(&identity.cert_pem)).unwrap_or_default();
        let names: Vec<_> =
            row.sends.iter().map(|(name, value)| (name, String::from_utf8_lossy(value))).collect();
        let label = format!("row {number}, {}, {names:?}", row.who.label);
        let caller = Caller { identity, ..Caller::nobody(&cluster.pki) }.labelled(&label);
        let caller = row.sends.iter().fold(caller, |caller, (name, value)| caller.header(name, value));
        Self { cluster, row, caller, credential, number, label }
    }

    /// Compares what the server says of the client to itself, on every path.
    pub async fn reviews(&self) {
        let [expected_straight, expected_through] = self.row.is.outcomes();
        for &http in self.row.over {
            let (straight, user) = self.review(Path::Straight, http).await;
            self.assert_is(&straight, expected_straight, "straight", http);
            for path in [Path::Local, Path::Rerouted] {
                let (through, user_through) = self.review(path, http).await;
                let what = format!("{} {path:?} {http:?}", self.label);
                self.assert_is(&through, expected_through, &what, http);
                if !self.row.is.is_same_everywhere() {
                    continue;
                }
                assert_eq!(user_through, user, "{what}");
                assert_eq!(through.status, straight.status, "{what}");
                assert_eq!(through.header("content-type"), straight.header("content-type"), "{what}");
                if straight.status != 201 {
                    assert_eq!(through.text(), straight.text(), "{what}");
                }
            }
        }
    }

    async fn review(&self, path: Path, http: Http) -> (Answer, Option<Value>) {
        let target = self.marked(REVIEW, path, http);
        let mut review = request("POST", &target);
        *review.body_mut() = r#"{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#.into();
        let answer = self.caller.ask(self.address(path), http, review).await;
        let seen = self.seen(&self.cluster.new, &target, path, answer.status.as_u16());
        (answer, seen)
    }

    /// Compares whom the server takes the client for when it asks for an upgrade, and what it answers.
    pub async fn upgrades(&self) {
        let (straight, user) = self.upgrade(Path::Straight).await;
        for path in [Path::Local, Path::Rerouted] {
            let through = self.upgrade(path).await;
            if self.row.is.is_same_everywhere() {
                assert_eq!(through, (straight, user.clone()), "{} {path:?} upgrade", self.label);
            } else {
                assert_ne!(through.1, user, "{} {path:?} upgrade", self.label);
            }
        }
    }

    /// The status and the user. Header names go as they are written in the row.
    async fn upgrade(&self, path: Path) -> (u16, Option<Value>) {
        let options = self.caller.options(self.address(path), Http::One);
        let mut stream = connect_tls(&options).await.unwrap();
        let target = self.marked(EXEC, path, Http::One);
        let mut head = format!("POST {target} HTTP/1.1\r\nHost: kubernetes\r\n").into_bytes();
        // Rows about WebSocket tokens ask for that upgrade themselves.
        if !self.row.sends.iter().any(|(name, _)| *name == "Upgrade") {
            head.extend(b"Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n");
        }
        for (name, value) in self.row.sends {
            head.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        head.extend(b"\r\n");
        stream.write_all(&head).await.unwrap();
        let answer = promptly("an answer to an upgrade", read_head(&mut stream)).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, self.seen(&self.cluster.new, &target, path, status))
    }

    /// Compares whom a server takes the client for when it is asked what it serves, which the proxy merges.
    pub async fn discoveries(&self) {
        for &http in self.row.over {
            let node = if http == Http::One { &self.cluster.new } else { &self.cluster.old };
            let mut found = Vec::new();
            for (path, address) in [(Path::Straight, node.standin.addr), (Path::Local, node.proxy.address)] {
                let target = self.marked("/apis", path, http);
                let answer = self.caller.ask(address, http, aggregated(&target)).await;
                let status = answer.status.as_u16();
                found.push((status, self.seen(node, &target, path, status)));
            }
            if self.row.is.is_same_everywhere() {
                assert_eq!(found[1], found[0], "{} discovery {http:?}", self.label);
            } else {
                assert_ne!(found[1].1, found[0].1, "{} discovery {http:?}", self.label);
            }
        }
    }

    fn address(&self, path: Path) -> SocketAddr {
        match path {
            Path::Straight => self.cluster.new.standin.addr,
            Path::Local => self.cluster.new.proxy.address,
            Path::Rerouted => self.cluster.old.proxy.address,
        }
    }

    /// A target that no other request has.
    fn marked(&self, path: &str, way: Path, http: Http) -> String {
        format!("{path}?n={}{way:?}{http:?}", self.number)
    }

    /// The user of the one request that arrived; none arrives where the proxy itself refuses it.
    fn seen(&self, node: &Node, target: &str, path: Path, status: u16) -> Option<Value> {
        let mut seen = node.requests_for(target);
        if seen.is_empty() {
            assert_eq!(status, 401, "{} {path:?}: nothing arrived", self.label);
            return None;
        }
        assert_eq!(seen.len(), 1, "{} {path:?}: {seen:?}", self.label);
        let request = seen.remove(0);
        if !matches!(path, Path::Straight) {
            self.assert_nothing_unearned(&request, path);
        }
        request.user.map(|user| serde_json::to_value(user).unwrap())
    }

    /// Identity headers arrive on a front proxy's connection only, and in no spelling but the one that is read.
    fn assert_nothing_unearned(&self, request: &RecordedRequest, path: Path) {
        for name in request.headers.keys().map(http::HeaderName::as_str) {
            let folded = name.replace('_', "-");
            let is_identity = folded.starts_with("x-remote-") || folded.starts_with("x-custom-");
            // Keys of extra attributes may have underscores.
            let is_extra = name.starts_with("x-remote-extra-") || name.starts_with("x-custom-extra-");
            let is_earned = request.client_certificate && (is_extra || folded == name);
            assert!(!is_identity || is_earned, "{} {path:?}: {request:?}", self.label);
        }
    }

    fn assert_is(&self, answer: &Answer, expected: Outcome<'_>, what: &str, http: Http) {
        let what = format!("{}: {what} {http:?}: {}", self.label, answer.text());
        match expected {
            Outcome::User(user) => {
                assert_eq!(answer.status, 201, "{what}");
                assert_eq!(
                    answer.json().unwrap()["status"]["userInfo"],
                    user.info(&self.credential),
                    "{what}"
                );
            }
            Outcome::Forbidden(name) => {
                assert_eq!(answer.status, 403, "{what}");
                assert!(answer.text().contains(&format!("User \\\"{name}\\\" cannot ")), "{what}");
            }
            Outcome::Failure(status) => assert_eq!(answer.status, status, "{what}"),
        }
    }
}

fn credential_of(pem: &str) -> String {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der);
    digest.as_ref().iter().fold("X509SHA256=".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}
