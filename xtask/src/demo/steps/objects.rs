//! Creates, reads, watches and deletes an object of the new API through the old node.

use std::fs;
use std::time::Duration;

use anyhow::Result;

use super::super::caller::Caller;
use super::super::process::Process;
use super::super::report::{Report, Step};
use super::super::site::Site;
use super::{NEW_API, straight};
use crate::interrupt;

/// A watch that prints one line per event: its type and the object's name.
const WATCH: [&str; 6] = [
    "get",
    "mutatingadmissionpolicies",
    "--watch-only",
    "--output-watch-events",
    "-o",
    r#"jsonpath={.type} {.object.metadata.name}{"\n"}"#,
];

/// Plays the steps.
pub(crate) fn play(site: &Site, report: &mut Report) -> Result<()> {
    Report::section("An object of the new API, through the old node");
    fs::write(site.folder().join("policy.yaml"), POLICY)?;
    let watch = start_watch(site)?;
    let created = format!("{RESOURCE}/demo created");
    kubectl(site, report, "create it", &["create", "-f", "policy.yaml"], &created)?;
    let get = ["get", "mutatingadmissionpolicies", "demo", "-o", "jsonpath={.kind}/{.metadata.name}"];
    kubectl(site, report, "read it back", &get, "MutatingAdmissionPolicy/demo")?;
    stored(site, report)?;
    let deleted = format!("{RESOURCE} \"demo\" deleted");
    kubectl(site, report, "delete it", &["delete", "mutatingadmissionpolicies", "demo"], &deleted)?;
    let seen = events(&watch)?;
    let step = Step {
        title: "what a watch through the old node saw of it",
        command: &Caller::kubectl_text(&site.client, &WATCH),
        expected: "ADDED demo, DELETED demo",
    };
    report.same(&step, &seen);
    Ok(())
}

/// How kubectl names the kind in what it prints.
const RESOURCE: &str = "mutatingadmissionpolicy.admissionregistration.k8s.io";

fn kubectl(site: &Site, report: &mut Report, title: &str, arguments: &[&str], expected: &str) -> Result<()> {
    let output = site.caller.kubectl(&site.client, arguments)?;
    let printed = format!("{}{}", output.stdout, output.stderr);
    let command = Caller::kubectl_text(&site.client, arguments);
    report.same(&Step { title, command: &command, expected }, printed.trim());
    Ok(())
}

/// The object is in the store: the new API server has it, the old one still knows nothing of its kind.
fn stored(site: &Site, report: &mut Report) -> Result<()> {
    for (node, expected) in [(&site.new, "200"), (&site.old, "404")] {
        let answer = straight(site, node, &format!("{NEW_API}/demo"))?;
        let title = format!("ask the {} API server itself for it", node.plan.name);
        report.same(&Step { title: &title, command: &answer.command, expected }, &answer.status);
    }
    Ok(())
}

/// Starts the watch and gives kubectl the time to have it open.
fn start_watch(site: &Site) -> Result<Process> {
    let log = site.logs().join("kubectl-watch.log");
    let watch = site.caller.start_kubectl(&site.client, &WATCH, log)?;
    interrupt::sleep(Duration::from_secs(2))?;
    Ok(watch)
}

/// The watch's events, as soon as there are two.
fn events(watch: &Process) -> Result<String> {
    let complete =
        |text: &str| (text.lines().count() >= 2).then(|| text.lines().collect::<Vec<_>>().join(", "));
    match interrupt::poll(Duration::from_secs(5), || Ok(complete(&watch.output()?)))? {
        Some(events) => Ok(events),
        None => Ok(watch.output()?.lines().collect::<Vec<_>>().join(", ")),
    }
}

const POLICY: &str = r#"apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata:
  name: demo
spec:
  failurePolicy: Ignore
  reinvocationPolicy: Never
  matchConstraints:
    resourceRules:
    - apiGroups: ["apps"]
      apiVersions: ["v1"]
      operations: ["CREATE"]
      resources: ["deployments"]
  mutations:
  - patchType: ApplyConfiguration
    applyConfiguration:
      expression: >-
        Object{metadata: Object.metadata{labels: {"mvproxy": "demo"}}}
"#;
