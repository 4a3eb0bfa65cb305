//! Compares who an API server takes a client for, through the proxy and straight.

use std::fs;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::{Method, Request};
use mvproxy_tests::client::{Answer, ClientOptions};
use mvproxy_tests::pki::{Identity, Subject};
use serde_json::{Value, json};

use crate::apiserver::{Kind, SECURE_PORT};
use crate::node::Node;
use crate::report::Report;
use crate::site::{EXEMPT_SOURCE, Site, json_request, send};

const REVIEW: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
/// Audit events are written behind the answer.
const AUDIT_LIMIT: Duration = Duration::from_secs(10);

/// A client: its certificate and what it says in headers.
struct Caller {
    name: &'static str,
    certificate: Option<Identity>,
    headers: Vec<(&'static str, String)>,
}

/// Every kind of client, on both HTTP versions, for what the old server serves and for what it lacks.
pub(crate) fn run(site: &Site, peer_only: &str, report: &mut Report) -> Result<()> {
    report.begin(
        "identity",
        "SelfSubjectReview and audit events of every kind of client: straight to the API server, and through its proxy.",
    );
    let old = position(site, Kind::Old)?;
    let new = position(site, Kind::New)?;
    for caller in callers(site, old)? {
        for http2 in [false, true] {
            let version = if http2 { "HTTP/2" } else { "HTTP/1.1" };
            let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
            let straight =
                caller.ask(site, Way::Straight(old), http2, Method::POST, REVIEW, Some(&review))?;
            let steered = caller.ask(site, Way::Steered(old), http2, Method::POST, REVIEW, Some(&review))?;
            let check = format!("{} over {version}: SelfSubjectReview", caller.name);
            report.equal(&check, &seen_as(&straight), &seen_as(&steered));

            let mark = |way: &str| format!("{}-{http2}-{way}", caller.name.replace(' ', "-"));
            let target = |way| format!("{peer_only}?labelSelector=mark%3D{}", mark(way));
            let expected =
                caller.ask(site, Way::Straight(new), http2, Method::GET, &target("straight"), None)?;
            let seen = caller.ask(site, Way::Steered(old), http2, Method::GET, &target("steered"), None)?;
            let check = format!("{} over {version}: rerouted", caller.name);
            report.equal(&check, &outcome(&expected), &outcome(&seen));
            if expected.status == 401 {
                continue;
            }
            let expected = audit_event(site, new, &mark("straight"))?;
            let seen = audit_event(site, new, &mark("steered"))?;
            let check = format!("{} over {version}: audit event of what was rerouted", caller.name);
            report.equal(&check, &who(&expected), &who(&seen));
            let sources = seen["sourceIPs"].to_string();
            let client = caller.expected_source();
            let holds = seen["sourceIPs"][0] == client.as_str();
            report.check(&format!("{}: source in the audit event", caller.name), &client, &sources, holds);
        }
    }
    Ok(())
}

/// How a request gets to a node's API server.
#[derive(Clone, Copy)]
enum Way {
    Straight(usize),
    Steered(usize),
}

impl Caller {
    fn ask(
        &self,
        site: &Site,
        way: Way,
        http2: bool,
        method: Method,
        target: &str,
        body: Option<&Value>,
    ) -> Result<Answer> {
        let mut request = json_request(method, target, body)?;
        for (name, value) in &self.headers {
            request.headers_mut().append(*name, value.parse()?);
        }
        let (netns, mut options) = match way {
            Way::Straight(node) => {
                let here = ClientOptions::new((Ipv4Addr::LOCALHOST, SECURE_PORT).into(), site.trust.clone());
                (&site.nodes[node].netns, here.from_source(EXEMPT_SOURCE.into()))
            }
            Way::Steered(node) => {
                (&site.elsewhere, ClientOptions::new(site.nodes[node].address(), site.trust.clone()))
            }
        };
        options.identity.clone_from(&self.certificate);
        options.http2 = http2;
        let answered: Result<Answer> = netns.block_on(|| async {
            let request: Request<Bytes> = request;
            tokio::time::timeout(Duration::from_secs(15), send(&options, request))
                .await
                .context("no answer in 15 s")?
        });
        answered.with_context(|| format!("{} {target}", self.name))
    }

    /// The client's own address, or the one that a front proxy says it speaks for.
    fn expected_source(&self) -> String {
        let said = self.headers.iter().find(|(name, _)| *name == "x-forwarded-for");
        said.map_or_else(|| "10.62.0.100".to_owned(), |(_, value)| value.clone())
    }
}

fn callers(site: &Site, node: usize) -> Result<Vec<Caller>> {
    let bearer = |token: &str| vec![("authorization", format!("Bearer {token}"))];
    let of = |subject: &Subject<'_>| site.pki.client(subject);
    let alice = Subject { common_name: "alice", organizations: &["dev", "ops"], uid: None };
    let caller = |name, certificate, headers| Caller { name, certificate, headers };
    let impersonating = vec![
        ("impersonate-user", "jane".to_owned()),
        ("impersonate-group", "dev".to_owned()),
        ("impersonate-group", "ops".to_owned()),
        ("impersonate-uid", "u-1".to_owned()),
        ("impersonate-extra-scopes", "view".to_owned()),
    ];
    let asserted = vec![
        ("x-remote-user", "carol".to_owned()),
        ("x-remote-group", "dev".to_owned()),
        ("x-remote-extra-scopes", "view".to_owned()),
        ("x-forwarded-for", "192.0.2.7".to_owned()),
    ];
    Ok(vec![
        caller("admin certificate", Some(site.admin.clone()), vec![]),
        caller("ordinary certificate", Some(of(&alice)?), vec![]),
        caller("service account token", None, bearer(&service_account_token(site, node)?)),
        caller("static token", None, bearer("bob-token")),
        caller("anonymous", None, vec![]),
        caller("wrong token", None, bearer("nobody-has-this")),
        caller("certificate and wrong token", Some(of(&alice)?), bearer("nobody-has-this")),
        caller("strange certificate", Some(site.pki.stranger(&alice)?), vec![]),
        caller("front proxy", Some(site.pki.front_proxy_client().clone()), asserted),
        caller(
            "asserting without being a front proxy",
            Some(of(&alice)?),
            vec![("x-remote-user", "root".to_owned())],
        ),
        caller("impersonator", Some(site.admin.clone()), impersonating.clone()),
        caller("impersonator without the right", Some(of(&alice)?), impersonating),
    ])
}

fn service_account_token(site: &Site, node: usize) -> Result<String> {
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({"metadata": {"name": "robot"}});
    let created = site.straight(node, Method::POST, accounts, Some(&account))?;
    ensure!(created.status == 201 || created.status == 409, "no service account: {}", created.text());
    let request = json!({"spec": {"audiences": [], "expirationSeconds": 3600}});
    let answer = site.straight(node, Method::POST, &format!("{accounts}/robot/token"), Some(&request))?;
    let token = answer.json()?["status"]["token"].as_str().map(str::to_owned);
    token.with_context(|| format!("no token: {}", answer.text()))
}

/// The node that serves this kind of API server.
pub(crate) fn position(site: &Site, kind: Kind) -> Result<usize> {
    site.nodes.iter().position(|node| node.kind == kind).with_context(|| format!("no {kind:?} node"))
}

/// Status and user as the server sees it; how it words a refusal belongs to it.
fn seen_as(answer: &Answer) -> String {
    let body = answer.json().unwrap_or_default();
    let said = body.pointer("/status/userInfo").or_else(|| body.get("message"));
    format!("{} {}", answer.status.as_u16(), said.cloned().unwrap_or_default())
}

fn outcome(answer: &Answer) -> String {
    let body = answer.json().unwrap_or_default();
    format!("{} {} {}", answer.status.as_u16(), body["kind"], body["message"])
}

/// The one event of a request that had this mark in its query.
fn audit_event(site: &Site, node: usize, mark: &str) -> Result<Value> {
    let at = &site.nodes[node];
    let found = audit_events(at, &format!("mark%3D{mark}"), 1).pop();
    found.with_context(|| format!("{}: no audit event {mark}", at.name))
}

/// The events of a node's requests whose URI ends like this; waits for `wanted` of them, for they are written behind the
/// answer.
pub(crate) fn audit_events(node: &Node, ending: &str, wanted: usize) -> Vec<Value> {
    let begun = Instant::now();
    loop {
        let text = fs::read_to_string(&node.audit_log).unwrap_or_default();
        let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let found: Vec<Value> = events
            .filter(|event| {
                event["stage"] == "ResponseComplete"
                    && event["requestURI"].as_str().is_some_and(|uri| uri.ends_with(ending))
            })
            .collect();
        if found.len() >= wanted || begun.elapsed() > AUDIT_LIMIT {
            return found;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn who(event: &Value) -> String {
    json!({
        "user": event["user"],
        "impersonatedUser": event["impersonatedUser"],
        "verb": event["verb"],
        "userAgent": event["userAgent"],
        "code": event["responseStatus"]["code"],
    })
    .to_string()
}
