//! Shows what kubectl makes of a group that only the new API server has, through the old node.

use std::collections::BTreeSet;
use std::fs;

use anyhow::Result;

use super::super::caller::Caller;
use super::super::report::{Report, Step};
use super::super::site::Site;
use super::before::Baseline;

/// A resource of a group that only the new server has, and its kind.
const RESOURCE: &str = "storageversions";
const KIND: &str = "StorageVersion";
const GROUP_VERSION: &str = "internal.apiserver.k8s.io/v1alpha1";
/// How kubectl names it.
const NAME: &str = "storageversion.internal.apiserver.k8s.io";

/// Plays the steps.
pub(crate) fn play(site: &Site, report: &mut Report, baseline: &Baseline) -> Result<()> {
    Report::section("kubectl and a group that only the new API server has, through the old node");
    api_versions(site, report, &baseline.versions)?;
    let title = "what it is, from OpenAPI v3";
    let head = ["KIND: StorageVersion", "VERSION: v1alpha1", "spec <Object>"];
    explained(site, report, title, &["explain", RESOURCE], &head)?;
    let title = "the same down to every field";
    let all = [KIND, "metadata <ObjectMeta>", "name <string>", "spec <Object>", "note <string>"];
    explained(site, report, title, &["explain", RESOURCE, "--recursive"], &all)?;
    let title = "what clients read that know only OpenAPI v2";
    let version_2 = ["explain", RESOURCE, "--output=plaintext-openapiv2"];
    let head = ["KIND: StorageVersion", "VERSION: internal.apiserver.k8s.io/v1alpha1", "spec <Object>"];
    explained(site, report, title, &version_2, &head)?;
    objects(site, report)
}

fn api_versions(site: &Site, report: &mut Report, both: &BTreeSet<String>) -> Result<()> {
    let arguments = ["api-versions"];
    let output = site.caller.kubectl(&site.client, &arguments)?.success("kubectl api-versions")?;
    let seen: BTreeSet<String> = output.lines().map(str::to_owned).collect();
    let step = Step {
        title: "both servers' group versions",
        command: &Caller::kubectl_text(&site.client, &arguments),
        expected: &format!("{} group versions, with {GROUP_VERSION}", both.len()),
    };
    let listed = if seen.contains(GROUP_VERSION) { "with" } else { "without" };
    let text = format!("{} group versions, {listed} {GROUP_VERSION}", seen.len());
    report.judge(&step, &text, seen == *both && seen.contains(GROUP_VERSION));
    Ok(())
}

/// Runs a command whose output has to hold these words, whatever the space between them.
fn explained(
    site: &Site,
    report: &mut Report,
    title: &str,
    arguments: &[&str],
    wanted: &[&str],
) -> Result<()> {
    let output = site.caller.kubectl(&site.client, arguments)?;
    let printed = format!("{}{}", output.stdout, output.stderr);
    let words = printed.replace('\t', " ").split_whitespace().collect::<Vec<_>>().join(" ");
    let missing: Vec<&str> = wanted.iter().copied().filter(|part| !words.contains(part)).collect();
    let seen = if missing.is_empty() {
        wanted.join(", ")
    } else {
        format!("no {}: {}", missing.join(", "), words.chars().take(200).collect::<String>())
    };
    let command = Caller::kubectl_text(&site.client, arguments);
    report.same(&Step { title, command: &command, expected: &wanted.join(", ") }, &seen);
    Ok(())
}

/// A server decides what is valid, `--validate=strict`, where `OpenAPI` says that it can.
fn objects(site: &Site, report: &mut Report) -> Result<()> {
    for name in ["applied", "created"] {
        let object =
            format!("apiVersion: {GROUP_VERSION}\nkind: {KIND}\nmetadata:\n  name: {name}\nspec: {{}}\n");
        fs::write(site.folder().join(format!("{name}.yaml")), object)?;
    }
    let create = ["create", "--validate=strict", "-f", "created.yaml"];
    let created = format!("{NAME}/created created");
    let apply = ["apply", "--server-side", "-f", "applied.yaml"];
    let applied = format!("{NAME}/applied serverside-applied");
    let list = ["get", RESOURCE, "-o", "name"];
    let both = format!("{NAME}/applied, {NAME}/created");
    let delete = ["delete", RESOURCE, "applied", "created", "-o", "name"];
    for (title, arguments, expected) in [
        ("an object is created, validated by the server", &create[..], &created),
        ("another is applied on the server's side", &apply, &applied),
        ("the same again changes nothing", &apply, &applied),
        ("both are listed", &list, &both),
        ("and deleted", &delete, &both),
    ] {
        let output = site.caller.kubectl(&site.client, arguments)?;
        let printed = format!("{}{}", output.stdout, output.stderr);
        let lines: Vec<&str> = printed.lines().collect();
        let command = Caller::kubectl_text(&site.client, arguments);
        report.same(&Step { title, command: &command, expected }, &lines.join(", "));
    }
    Ok(())
}
