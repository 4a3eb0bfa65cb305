//! Plays the demo's steps in order: without the proxy, with it, without it again.

mod before;
mod client;
mod counters;
mod failure;
mod objects;
mod rerouting;

use std::time::{Duration, Instant};

use anyhow::Result;

use super::caller::Answer;
use super::report::{Report, Step};
use super::site::Site;
use crate::interrupt;

/// The API that only the new server has: `MutatingAdmissionPolicy` is in its v1 since Kubernetes 1.36.
const NEW_API: &str = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies";
/// The same as kubectl names it.
const NEW_RESOURCE: &str = "mutatingadmissionpolicies.admissionregistration.k8s.io";
/// An API that both servers have.
const OLD_API: &str = "/api/v1/namespaces/default";
/// The line that a proxy adds to the API server's own /readyz?verbose.
const READYZ_LINE: &str = "[+]mixed-version-proxy ok";

/// Plays all steps.
pub(crate) fn play(site: &mut Site, report: &mut Report) -> Result<()> {
    let baseline = before::play(site, report)?;
    start_proxies(site)?;
    rerouting::play(site, report, &baseline)?;
    client::play(site, report, &baseline)?;
    objects::play(site, report)?;
    if site.is_steered() {
        let requests = counters::play(site, report)?;
        failure::play(site, report)?;
        counters::survive(site, report, requests)?;
    }
    undisturbed(site, report)
}

fn start_proxies(site: &mut Site) -> Result<()> {
    let started = Instant::now();
    site.old.start_proxy()?;
    site.new.start_proxy()?;
    println!("\nmvproxy runs on both nodes and is ready ({:.1} s).", started.elapsed().as_secs_f32());
    Ok(())
}

/// Asks again while the answer is 503, for ten seconds: a proxy that has just started may say so of what it does
/// not know yet. Any other answer counts, a 404 above all.
fn get_known(site: &Site, url: &str) -> Result<Answer> {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let answer = site.caller.get(&site.client, &[], url)?;
        if answer.status != "503" || Instant::now() >= end {
            return Ok(answer);
        }
        interrupt::sleep(Duration::from_millis(100))?;
    }
}

/// The API servers connect to themselves every second, through the steered port: that has to go on working.
fn undisturbed(site: &Site, report: &mut Report) -> Result<()> {
    Report::section("The API servers themselves");
    for node in [&site.old, &site.new] {
        let answer = straight(site, node, "/readyz")?;
        let title = format!("the {} API server's connections to itself were not disturbed", node.plan.name);
        let step = Step { title: &title, command: &answer.command, expected: "200 ok" };
        report.same(&step, &format!("{} {}", answer.status, answer.body));
    }
    Ok(())
}

/// A request that is not steered: from the reserved source address where there is steering.
fn straight(site: &Site, node: &super::node::Node, path: &str) -> Result<Answer> {
    let options: &[&str] = if site.is_steered() { &["--interface", "127.64.43.1"] } else { &[] };
    site.caller.get(&node.plan.place, options, &node.server_url(path))
}
