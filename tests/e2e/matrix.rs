//! Every combination of this proxy with the built-in one: who asks any node gets an answer from whoever has it, once.

use anyhow::Result;
use http::Method;

use crate::apiserver::Kind;
use crate::identity::audit_events;
use crate::report::Report;
use crate::site::Site;
use crate::skew::PEER_ONLY;

/// Requests for each node.
const REQUESTS: usize = 20;

/// Asks each node for what only new servers serve.
pub(crate) fn run(site: &Site, name: &str, report: &mut Report) -> Result<()> {
    report.begin(name, "What only new servers serve, asked for through each node; each request reaches one API server's handlers once.");
    for (number, node) in site.nodes.iter().enumerate() {
        let mark = format!("{name}-{number}");
        let target = format!("{PEER_ONLY}?labelSelector=mark%3D{}", mark.replace(' ', "-"));
        let mut refused = Vec::new();
        for _ in 0..REQUESTS {
            let answer = site.request(number, Method::GET, &target, None)?;
            if answer.status != 200 {
                refused.push(format!("{} {}", answer.status, answer.text()));
            }
        }
        report.equal(&format!("{}: refused of {REQUESTS}", node.name), "", &refused.join("\n"));
        let ending = format!("mark%3D{}", mark.replace(' ', "-"));
        let answered = site.nodes.iter().filter(|node| node.kind == Kind::New);
        let events: Vec<_> = answered.flat_map(|node| audit_events(node, &ending, REQUESTS)).collect();
        report.equal(
            &format!("{}: audit events on the servers that have it", node.name),
            &REQUESTS.to_string(),
            &events.len().to_string(),
        );
        let others = site.nodes.iter().filter(|node| node.kind == Kind::Old);
        let events_elsewhere: Vec<_> = others.flat_map(|node| audit_events(node, &ending, 0)).collect();
        report.equal(
            &format!("{}: audit events on servers that lack it", node.name),
            "0",
            &events_elsewhere.len().to_string(),
        );
        let rerouted = node.metric("mvproxy_peer_rerouted_total");
        let is_counted = if node.kind == Kind::Old { rerouted >= REQUESTS as u64 } else { rerouted == 0 };
        let expected = if node.kind == Kind::Old { format!(">= {REQUESTS}") } else { "0".to_owned() };
        report.check(
            &format!("{}: requests that its proxy counts as rerouted", node.name),
            &expected,
            &rerouted.to_string(),
            is_counted,
        );
        let users: std::collections::BTreeSet<String> =
            events.iter().map(|event| event["user"]["username"].to_string()).collect();
        report.equal(
            &format!("{}: users in them", node.name),
            "{\"\\\"kubernetes-admin\\\"\"}",
            &format!("{users:?}"),
        );
    }
    let merged: Vec<String> = (0..site.nodes.len())
        .map(|node| {
            let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
            Ok(site.request_as(node, Method::GET, "/apis", accept)?.header("etag").to_owned())
        })
        .collect::<Result<_>>()?;
    let is_one = merged.iter().all(|etag| *etag == merged[0]);
    report.check("one merged /apis at every node", "equal tags", &merged.join(" "), is_one);
    Ok(())
}
