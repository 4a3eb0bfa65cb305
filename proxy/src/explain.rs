//! Explains what the proxy knows and would do, in answers that people and programs read.
//!
//! The admin address serves them as JSON; `mvproxy skew` and `mvproxy route` print them.

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Method};
use serde::{Deserialize, Serialize};

use crate::classify::{self, ClassifyError, RequestInfo, classify};
use crate::discovery::openapi::OpenApi;
use crate::discovery::{Difference, ServerSet, Snapshot, accept};
use crate::forward::choose::Chooser;
use crate::route::{LocalReason, Marks, Route, is_about_this_server, route};
use crate::upstream::{Role, Upstream};
use crate::vitals::Vitals;

/// Reads the state of the process; holds none.
#[derive(Clone, Debug)]
pub struct Explainer {
    /// What every server serves.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// How every server does.
    pub vitals: Arc<Vitals>,
    /// Whether peers stand in for the local server (`--local-failover`).
    pub local_failover: bool,
}

/// What API servers serve differently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SkewReport {
    /// All API servers, the local one first.
    pub servers: Vec<ServerReport>,
    /// Resources and subresources that some server serves.
    pub resources: usize,
    /// Those that not every known server serves in the same way.
    pub differences: Vec<Difference>,
}

/// One API server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerReport {
    /// Address and port.
    pub address: String,
    /// `local` or `peer`.
    pub role: String,
    /// Its version; absent while it has not said what it serves.
    pub version: Option<String>,
    /// Whether it is ready and answers.
    pub healthy: bool,
}

/// Where a request would go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteReport {
    /// Method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// What it asks for; absent when kube-apiserver cannot tell either.
    pub request: Option<RequestReport>,
    /// `local`, `peer`, `discovery` or `unavailable`.
    pub outcome: String,
    /// Why, as a sentence without full stop.
    pub reason: String,
    /// Servers that would be tried, best first.
    pub servers: Vec<String>,
}

/// A request in Kubernetes' terms (`RequestInfo`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the fields are those of RequestInfo")]
pub struct RequestReport {
    pub verb: String,
    pub group: String,
    pub version: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
}

impl Explainer {
    /// What API servers serve differently at this moment.
    pub fn skew(&self) -> SkewReport {
        let snapshot = self.snapshot.load();
        let servers = snapshot.upstreams().iter().enumerate().map(|(index, upstream)| ServerReport {
            address: upstream.address.to_string(),
            role: role_name(upstream.role).to_owned(),
            version: snapshot.version(index).map(str::to_owned),
            healthy: self.vitals.is_healthy(upstream),
        });
        SkewReport {
            servers: servers.collect(),
            resources: snapshot.resources(),
            differences: snapshot.differences(),
        }
    }

    /// Where a request with kubectl's headers would go at this moment.
    pub fn route(&self, method: &Method, target: &str) -> RouteReport {
        let snapshot = self.snapshot.load();
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let headers = kubectl_headers();
        let decoded = classify::decode_path(path);
        let info = classify(method, &decoded, query);
        let marks = Marks {
            already_proxied: false,
            about_this_server: is_about_this_server(&decoded),
            discovery: accept::asked(method, &decoded, query, &headers),
            openapi: OpenApi::asked(method, &decoded),
        };
        let decision = route(info.as_ref().ok(), marks, &snapshot);
        let (outcome, servers) = self.outcome(decision, &snapshot);
        RouteReport {
            method: method.to_string(),
            path: target.to_owned(),
            reason: reason(decision, info.as_ref(), &snapshot, self.local_failover),
            request: info.ok().map(|info| RequestReport::from(&info)),
            outcome: outcome.to_owned(),
            servers: servers.iter().map(|upstream| upstream.address.to_string()).collect(),
        }
    }

    fn outcome(&self, decision: Route<'_>, snapshot: &Snapshot) -> (&'static str, Vec<Upstream>) {
        let chooser = Chooser { snapshot, vitals: &self.vitals, turn: 0 };
        let allowed = |stand_ins| if self.local_failover { stand_ins } else { ServerSet::default() };
        let local_or = |stand_ins| match snapshot.upstream(0) {
            Some(local) => chooser.local_or(local, allowed(stand_ins)).collect(),
            None => Vec::new(),
        };
        match decision {
            Route::Local { stand_ins, .. } => ("local", local_or(stand_ins)),
            Route::Peers(peers) => ("peer", chooser.peers(peers).collect()),
            Route::PeersFirst(peers) => match snapshot.upstream(0) {
                Some(local) => ("peer", chooser.peers_first(peers, local).collect()),
                None => ("peer", Vec::new()),
            },
            Route::Discovery { stand_ins, .. }
            | Route::OpenApiIndex { stand_ins }
            | Route::OpenApiV2 { stand_ins, .. } => ("discovery", local_or(stand_ins)),
            Route::Unavailable(_) => ("unavailable", Vec::new()),
        }
    }
}

fn kubectl_headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    headers.insert(ACCEPT, HeaderValue::from_static(aggregated));
    headers
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Local => "local",
        Role::Peer => "peer",
    }
}

fn reason(
    decision: Route<'_>,
    info: Result<&RequestInfo<'_>, &ClassifyError>,
    snapshot: &Snapshot,
    local_failover: bool,
) -> String {
    let peers = |set: ServerSet| match set.len() {
        1 => "one peer".to_owned(),
        many => format!("{many} peers"),
    };
    let stand_ins = |set: ServerSet| match set.len() {
        _ if !local_failover => String::new(),
        0 => String::new(),
        _ => format!("; {} may stand in while it is not healthy", peers(set)),
    };
    match decision {
        Route::Local { reason, stand_ins: set } => {
            format!("{}{}", local_reason(reason, info), stand_ins(set))
        }
        Route::Peers(set) => {
            format!("the local API server does not serve it; {} of {} peers can", set.len(), snapshot.peers())
        }
        Route::PeersFirst(set) => {
            format!("{} can describe more than the local API server, which answers without them", peers(set))
        }
        Route::OpenApiIndex { stand_ins: set } => {
            format!(
                "the local API server's index answers it, with what only peers have added{}",
                stand_ins(set)
            )
        }
        Route::Discovery { stand_ins: set, .. } | Route::OpenApiV2 { stand_ins: set, .. } => {
            format!(
                "the merged document answers it once the local API server has authorised the client{}",
                stand_ins(set)
            )
        }
        Route::Unavailable(set) => {
            let who = if set.len() == 1 {
                "one API server has".to_owned()
            } else {
                format!("{} API servers have", set.len())
            };
            format!("nobody is known to serve it, but {who} not said what they serve: 503 with Retry-After")
        }
    }
}

fn local_reason(reason: LocalReason, info: Result<&RequestInfo<'_>, &ClassifyError>) -> String {
    match reason {
        LocalReason::Disabled => "rerouting is switched off by --feature-gates".to_owned(),
        LocalReason::NonResource => match info {
            Ok(_) => "it asks for no resource".to_owned(),
            Err(error) => format!("the API server refuses it: {error}"),
        },
        LocalReason::AlreadyProxied => "another proxy chose this API server".to_owned(),
        LocalReason::NotSynced => "it is not known yet what the local API server serves".to_owned(),
        LocalReason::ServedLocally => "the local API server serves it".to_owned(),
        LocalReason::ServedByNobody => {
            "no API server serves it, and the local one words the refusal".to_owned()
        }
    }
}

impl From<&RequestInfo<'_>> for RequestReport {
    fn from(info: &RequestInfo<'_>) -> Self {
        Self {
            verb: info.verb.to_owned(),
            group: info.group.to_owned(),
            version: info.version.to_owned(),
            resource: info.resource.to_owned(),
            subresource: info.subresource.to_owned(),
            namespace: info.namespace.to_owned(),
            name: info.name.clone().into_owned(),
        }
    }
}
