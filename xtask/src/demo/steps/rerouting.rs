//! Shows that the old node answers for both API servers.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};

use super::super::caller::Caller;
use super::super::report::{Report, Step};
use super::super::scrape;
use super::super::site::Site;
use super::before::{Baseline, WHO_AM_I};
use super::{NEW_API, NEW_RESOURCE, OLD_API, READYZ_LINE, get_known, straight};

/// Plays the steps with both proxies running.
pub(crate) fn play(site: &Site, report: &mut Report, baseline: &Baseline) -> Result<()> {
    Report::section("With mvproxy");
    unsteered(site, report, baseline)?;
    rerouted(site, report)?;
    local(site, report)?;
    identity(site, report, baseline)?;
    discovery(site, report, baseline)?;
    readyz(site, report)
}

fn unsteered(site: &Site, report: &mut Report, baseline: &Baseline) -> Result<()> {
    let answer = straight(site, &site.old, NEW_API)?;
    let step = Step {
        title: "the old API server itself, past the proxy",
        command: &answer.command,
        expected: "404, the same body as before",
    };
    let same = if answer.body == baseline.not_found { "the same body as before" } else { "another body" };
    report.same(&step, &format!("{}, {same}", answer.status));
    Ok(())
}

/// Three witnesses: the status, the log line that names the peer, and the counter of rerouted requests.
fn rerouted(site: &Site, report: &mut Report) -> Result<()> {
    let before = rerouted_total(site)?;
    let answer = get_known(site, &site.old.url(NEW_API))?;
    let counted = rerouted_total(site)? - before;
    let peer = peer_in_log(&site.old.proxy()?.output()?).unwrap_or_else(|| "nobody".to_owned());
    let step = Step {
        title: "the same through the old node",
        command: &answer.command,
        expected: &format!("200, rerouted to {}:{}, counted", site.new.plan.ip, site.new.plan.server_port),
    };
    let counted = if counted >= 1.0 { "counted" } else { "not counted" };
    report.same(&step, &format!("{}, rerouted to {peer}, {counted}", answer.status));
    Ok(())
}

fn rerouted_total(site: &Site) -> Result<f64> {
    Ok(scrape::total(&site.old.metrics()?, "apiserver_rerouted_request_total"))
}

/// The address in the last line `Proxying request for … to peer at ADDRESS` about the new API.
fn peer_in_log(log: &str) -> Option<String> {
    let line =
        log.lines().rev().find(|line| line.contains("Proxying request for") && line.contains(NEW_API))?;
    let (_, rest) = line.split_once("to peer at ")?;
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !".:[]-".contains(c)).unwrap_or(rest.len());
    Some(rest[..end].to_owned())
}

/// What the old API server can answer, it answers: its /version differs from the new one's.
fn local(site: &Site, report: &mut Report) -> Result<()> {
    let before = rerouted_total(site)?;
    let answer = site.caller.get(&site.client, &[], &site.old.url(OLD_API))?;
    let rerouted = if rerouted_total(site)? > before { "rerouted" } else { "not rerouted" };
    let step = Step {
        title: "an API that both have, through the old node",
        command: &answer.command,
        expected: "200, not rerouted",
    };
    report.same(&step, &format!("{}, {rerouted}", answer.status));

    let own = straight(site, &site.old, "/version")?;
    let answer = site.caller.get(&site.client, &[], &site.old.url("/version"))?;
    let (expected, seen) = (version(&own.body)?, version(&answer.body)?);
    let title = "/version through the old node is the old API server's";
    report.same(&Step { title, command: &answer.command, expected: &expected }, &seen);
    Ok(())
}

/// The version that an API server behaves as.
fn version(body: &str) -> Result<String> {
    let document: serde_json::Value = serde_json::from_str(body).context("/version is not JSON")?;
    let field = |name: &str| document[name].as_str().unwrap_or("?").to_owned();
    Ok(format!("{} behaving as {}.{}", field("gitVersion"), field("emulationMajor"), field("emulationMinor")))
}

/// TLS ends at the proxy, and still the API server sees the same user with the same groups.
fn identity(site: &Site, report: &mut Report, baseline: &Baseline) -> Result<()> {
    let output = site.caller.kubectl(&site.client, &WHO_AM_I)?.success("the SelfSubjectReview")?;
    let step = Step {
        title: "who the API server takes kubectl for, through the proxy",
        command: &Caller::kubectl_text(&site.client, &WHO_AM_I),
        expected: &user_info(&baseline.identity)?,
    };
    report.same(&step, &user_info(&output)?);
    Ok(())
}

fn user_info(review: &str) -> Result<String> {
    let document: serde_json::Value = serde_json::from_str(review).context("the review is not JSON")?;
    let user = &document["status"]["userInfo"];
    let groups = user["groups"].as_array().context("the review names no groups")?;
    let groups: Vec<_> = groups.iter().filter_map(|group| group.as_str()).collect();
    let name = user["username"].as_str().context("the review names no user")?;
    Ok(format!("{name}, groups {}", groups.join(" ")))
}

fn discovery(site: &Site, report: &mut Report, baseline: &Baseline) -> Result<()> {
    let arguments = ["api-resources", "-o", "name"];
    let output = site.caller.kubectl(&site.client, &arguments)?.success("kubectl api-resources")?;
    let seen: BTreeSet<String> = output.lines().map(str::to_owned).collect();
    let both: BTreeSet<String> = baseline.old.union(&baseline.new).cloned().collect();
    let missing = both.difference(&seen).count();
    let extra = seen.difference(&both).count();
    let listed = if seen.contains(NEW_RESOURCE) { "with" } else { "without" };
    let step = Step {
        title: "kubectl api-resources through the old node: both servers' resources",
        command: &Caller::kubectl_text(&site.client, &arguments),
        expected: &format!("{} resources, 0 missing, 0 unknown, with {NEW_RESOURCE}", both.len()),
    };
    let text =
        format!("{} resources, {missing} missing, {extra} unknown, {listed} {NEW_RESOURCE}", seen.len());
    report.same(&step, &text);
    Ok(())
}

fn readyz(site: &Site, report: &mut Report) -> Result<()> {
    let answer = get_known(site, &site.old.url("/readyz?verbose"))?;
    let step = Step {
        title: "the proxy in the API server's own readiness report",
        command: &answer.command,
        expected: &format!("200 with {READYZ_LINE} and [+]ping ok"),
    };
    let has = |line: &str| answer.body.lines().any(|seen| seen == line);
    let seen = format!(
        "{}{}{}",
        answer.status,
        with(has(READYZ_LINE), READYZ_LINE),
        with(has("[+]ping ok"), "ping")
    );
    report.judge(&step, &seen, answer.status == "200" && has(READYZ_LINE) && has("[+]ping ok"));
    Ok(())
}

fn with(present: bool, what: &str) -> String {
    format!(", {} {what}", if present { "with" } else { "without" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_in_log_reads_the_last_line_about_the_new_api() {
        let line = format!("I1 Proxying request for {NEW_API} to peer at \"10.0.0.2:6443\" x");
        assert_eq!(peer_in_log(&line.replace('"', "")), Some("10.0.0.2:6443".to_owned()));
        assert_eq!(peer_in_log("Proxying request for /api/v1/pods to peer at 1.2.3.4:1"), None);
    }
}
