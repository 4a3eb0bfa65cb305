//! Looks at what the proxy's own credentials may do, and at what the API server publishes of front proxies.

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};

use super::Finding;
use crate::authentication;
use crate::causes::chain;
use crate::config::{Config, RequestHeaderNames, own_credentials};
use crate::credentials::Credentials;
use crate::own_client;

/// Verb, group, resource, namespace (empty for the whole cluster), and what is lost without it.
pub const RIGHTS: [(&str, &str, &str, &str, &str); 7] = [
    ("list", "discovery.k8s.io", "endpointslices", "default", "no peer is found"),
    ("watch", "discovery.k8s.io", "endpointslices", "default", "no change of peers is noticed"),
    ("get", "", "configmaps", "kube-system", "--requestheader-* have to be given as flags"),
    ("watch", "coordination.k8s.io", "leases", "kube-system", "restarts of peers are noticed late"),
    ("create", "coordination.k8s.io", "leases", "kube-system", "--peer-advertise-ip is not published"),
    ("watch", "apiextensions.k8s.io", "customresourcedefinitions", "", "deleted APIs are noticed late"),
    ("watch", "apiregistration.k8s.io", "apiservices", "", "deleted APIs are noticed late"),
];

/// What the API server lets the own credentials do.
pub(super) async fn findings(config: &Config, credentials: &Credentials) -> Vec<Finding> {
    let own = match own_credentials(config) {
        Ok(Some(own)) => own,
        Ok(None) => return vec![Finding::skip("rights", "no own credentials: peers are those of --peers")],
        Err(error) => return vec![Finding::error("rights", &error)],
    };
    let client = match own_client::client(own, config.local_source_ip) {
        Ok(client) => client,
        Err(error) => return vec![Finding::error("rights", &error)],
    };
    let mut findings = Vec::new();
    for right in RIGHTS {
        findings.extend(lacking(&client, config, right).await);
    }
    if findings.is_empty() {
        findings.push(Finding::pass("rights", "own credentials may do what the proxy does"));
    }
    findings.push(published(config, credentials, client).await);
    findings
}

async fn lacking(
    client: &Client,
    config: &Config,
    (verb, group, resource, namespace, loss): (&str, &str, &str, &str, &str),
) -> Option<Finding> {
    let is_needed = match (verb, resource) {
        // Static peers need no EndpointSlices.
        (_, "endpointslices") => config.peers.is_empty(),
        (_, "configmaps") => !authentication::is_configured(config),
        ("create", "leases") => config.peer_advertise_ip.is_some(),
        _ => true,
    };
    if !is_needed {
        return None;
    }
    let attributes = ResourceAttributes {
        verb: Some(verb.to_owned()),
        group: Some(group.to_owned()),
        resource: Some(resource.to_owned()),
        namespace: (!namespace.is_empty()).then(|| namespace.to_owned()),
        name: (verb == "get").then(|| authentication::CONFIG_MAP.to_owned()),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
    let review = SelfSubjectAccessReview { spec, ..Default::default() };
    match Api::<SelfSubjectAccessReview>::all(client.clone()).create(&PostParams::default(), &review).await {
        Ok(review) if review.status.as_ref().is_some_and(|status| status.allowed) => None,
        Ok(_) => Some(Finding::warn(
            "rights",
            format!("own credentials may not {verb} {resource}{}: {loss}", place(namespace)),
            "bind the Roles of the README to the own user",
        )),
        Err(error) => Some(Finding::warn(
            "rights",
            format!("whether own credentials may {verb} {resource} is not known: {}", chain(&error)),
            "see that the API server runs, and that --kubeconfig is one of this cluster",
        )),
    }
}

fn place(namespace: &str) -> String {
    if namespace.is_empty() { String::new() } else { format!(" in {namespace}") }
}

/// Whether the names and the CA here are those that the API server goes by.
async fn published(config: &Config, credentials: &Credentials, client: Client) -> Finding {
    let check = "requestheader";
    let published = match authentication::published(client).await {
        Ok(published) => published,
        Err(error) => return Finding::skip(check, chain(&error)),
    };
    if authentication::is_configured(config) && !is_same(&published.names, &config.request_header) {
        return Finding::fail(
            check,
            format!("--requestheader-* are not those of the API server, which has {:?}", published.names),
            "leave them out, or take them from --apiserver-manifest",
        );
    }
    match published.ca {
        Some(pem) if !credentials.request_header_ca.holds_all_of(pem.as_bytes()) => Finding::warn(
            check,
            "--requestheader-client-ca-file lacks a CA that the API server has",
            "give the file that kube-apiserver has; without it some front proxies are refused here",
        ),
        _ => Finding::pass(check, "names and CA are those of the API server"),
    }
}

/// What matters to whoever asserts: the first name of each kind is written, allowed names decide who may.
fn is_same(published: &RequestHeaderNames, configured: &RequestHeaderNames) -> bool {
    let has = |all: &[String], first: Option<&String>| {
        first.is_none_or(|first| all.iter().any(|name| name.eq_ignore_ascii_case(first)))
    };
    has(&published.username, configured.username.first())
        && has(&published.group, configured.group.first())
        && has(&published.extra_prefix, configured.extra_prefix.first())
        && published.allowed_names.len() == configured.allowed_names.len()
        && published.allowed_names.iter().all(|name| configured.allowed_names.contains(name))
}
