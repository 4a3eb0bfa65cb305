//! Leaves a steered API server alone for a while and looks whether it misses anything.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::Method;
use serde_json::Value;

use crate::report::Report;
use crate::site::Site;

/// An API server talks to itself at least this often.
pub(crate) const WATCHED: Duration = Duration::from_secs(45);

/// Complaints in the logs of a control plane without proxies, to compare others with.
#[derive(Debug, Default)]
pub(crate) struct Baseline(BTreeSet<String>);

impl Baseline {
    /// What the API servers of a site have complained of so far.
    pub(crate) fn of(site: &Site) -> Result<Self> {
        let mut all = BTreeSet::new();
        for node in &site.nodes {
            all.extend(complaints(&node.server_log, 0)?);
        }
        Ok(Self(all))
    }
}

/// Watches a site without touching it.
pub(crate) fn run(site: &Site, baseline: &Baseline, report: &mut Report) -> Result<()> {
    report.begin("health", "API servers under steering say of themselves what they say without it.");
    std::thread::sleep(WATCHED);
    for (number, node) in site.nodes.iter().enumerate() {
        let straight = site.straight(number, Method::GET, "/readyz?verbose", None)?;
        report.equal(&format!("{}: readyz straight", node.name), "200", straight.status.as_str());
        let steered = site.request(number, Method::GET, "/readyz?verbose", None)?;
        let expected = format!("[+]mixed-version-proxy ok\n{}", straight.text());
        report.check(
            &format!("{}: readyz through the proxy has one line more", node.name),
            &straight.text(),
            &steered.text(),
            sorted(&expected) == sorted(&steered.text()),
        );
        let services =
            site.request(number, Method::GET, "/apis/apiregistration.k8s.io/v1/apiservices", None)?;
        report.equal(
            &format!("{}: APIServices that are not available", node.name),
            "",
            &unavailable(&services.json()?),
        );
        let new: Vec<String> =
            complaints(&node.server_log, node.log_before)?.difference(&baseline.0).cloned().collect();
        report.equal(
            &format!("{}: complaints in its log that are absent without proxies", node.name),
            "",
            &new.join("\n"),
        );
        let proxy: Vec<String> = complaints(&node.proxy_log, 0)?.into_iter().collect();
        report.equal(&format!("{}: errors in the proxy's log", node.name), "", &proxy.join("\n"));
    }
    let leases =
        site.request(0, Method::GET, "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases", None)?;
    let leases = leases.json()?;
    let identities = leases["items"].as_array().into_iter().flatten().filter(|lease| {
        lease.pointer("/metadata/labels/apiserver.kubernetes.io~1identity") == Some(&"kube-apiserver".into())
    });
    report.equal("identity Leases", &site.nodes.len().to_string(), &identities.count().to_string());
    Ok(())
}

/// Kinds of complaints in a log from a place on: the lines of klog's errors and warnings without time, process, numbers and
/// addresses; of the proxy's log its errors.
fn complaints(log: &Path, from: usize) -> Result<BTreeSet<String>> {
    let text = std::fs::read_to_string(log).with_context(|| format!("cannot read {}", log.display()))?;
    ensure!(!text.is_empty() && text.len() >= from, "{} is not what it was", log.display());
    Ok(text.get(from..).unwrap_or_default().lines().filter_map(complaint).collect())
}

fn complaint(line: &str) -> Option<String> {
    if line.contains(" ERROR mvproxy") {
        return Some(line.to_owned());
    }
    let is_klog = line.starts_with(['E', 'W']) && line.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
    // Where in the source it was said, and what; numbers in it differ from run to run.
    let said = line.split_once(']').filter(|_| is_klog)?;
    let place = said.0.rsplit(' ').next()?.split(':').next()?;
    let words: String = said.1.chars().filter(|letter| !letter.is_ascii_digit()).take(120).collect();
    Some(format!("{place}:{words}"))
}

fn unavailable(services: &Value) -> String {
    let is_available = |service: &&Value| {
        let conditions = service.pointer("/status/conditions").and_then(Value::as_array);
        conditions.into_iter().flatten().any(|one| one["type"] == "Available" && one["status"] == "True")
    };
    let items = services["items"].as_array().into_iter().flatten();
    let names =
        items.filter(|service| !is_available(service)).map(|service| service["metadata"]["name"].to_string());
    names.collect::<Vec<_>>().join(" ")
}

fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.trim_end().lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}
