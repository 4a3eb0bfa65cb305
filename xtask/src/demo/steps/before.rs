//! Records what the two API servers answer by themselves.

use std::collections::BTreeSet;

use anyhow::Result;

use super::super::caller::Caller;
use super::super::node::Node;
use super::super::report::{Report, Step};
use super::super::site::Site;
use super::{NEW_API, NEW_RESOURCE, straight};

/// What was seen before any proxy ran.
pub(crate) struct Baseline {
    /// Resources of the old API server.
    pub(crate) old: BTreeSet<String>,
    /// Resources of the new one.
    pub(crate) new: BTreeSet<String>,
    /// Group versions of either.
    pub(crate) versions: BTreeSet<String>,
    /// The body of the old server's 404.
    pub(crate) not_found: String,
    /// Who kubectl is, as the old server sees it.
    pub(crate) identity: String,
}

/// Plays the steps without a proxy.
pub(crate) fn play(site: &Site, report: &mut Report) -> Result<Baseline> {
    Report::section("Without mvproxy");
    let answer = straight(site, &site.old, NEW_API)?;
    let title = "the old API server is asked for an API that only the new one has";
    report.same(&Step { title, command: &answer.command, expected: "404" }, &answer.status);
    let not_found = answer.body;

    let server = server_flag(&site.old);
    let resources = |node| names(site, node, &["api-resources", "-o", "name"]);
    let (old, new) = (resources(&site.old)?, resources(&site.new)?);
    let step = Step {
        title: "kubectl api-resources of each API server",
        command: &Caller::kubectl_text(&site.old.plan.place, &[&server, "api-resources", "-o", "name"]),
        expected: &format!("only the new one lists {NEW_RESOURCE}"),
    };
    let lists = |set: &BTreeSet<String>| if set.contains(NEW_RESOURCE) { "lists it" } else { "does not" };
    let seen = format!("old: {} resources, {}; new: {}, {}", old.len(), lists(&old), new.len(), lists(&new));
    report.judge(&step, &seen, !old.contains(NEW_RESOURCE) && new.contains(NEW_RESOURCE));

    let versions = |node| names(site, node, &["api-versions"]);
    let versions = versions(&site.old)?.union(&versions(&site.new)?).cloned().collect();

    std::fs::write(site.folder().join("review.json"), REVIEW)?;
    let arguments: Vec<_> = [server.as_str()].into_iter().chain(WHO_AM_I).collect();
    let identity = site.caller.kubectl(&site.old.plan.place, &arguments)?;
    Ok(Baseline { old, new, versions, not_found, identity: identity.success("the SelfSubjectReview")? })
}

/// Asks an API server who it takes one for.
pub(crate) const WHO_AM_I: [&str; 5] =
    ["create", "--raw", "/apis/authentication.k8s.io/v1/selfsubjectreviews", "-f", "review.json"];

const REVIEW: &str = r#"{"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"}"#;

/// What kubectl prints, line by line, when it asks a node's API server itself.
fn names(site: &Site, node: &Node, arguments: &[&str]) -> Result<BTreeSet<String>> {
    let server = server_flag(node);
    let arguments: Vec<&str> = [server.as_str()].into_iter().chain(arguments.iter().copied()).collect();
    let output = site.caller.kubectl(&node.plan.place, &arguments)?;
    Ok(output.success("kubectl")?.lines().map(str::to_owned).collect())
}

fn server_flag(node: &Node) -> String {
    format!("--server={}", node.server_url(""))
}
