//! Mode on-skew, from rest through a skew to rest, under load.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use http::{Request, StatusCode};

use crate::apiserver::Kind;
use crate::cluster_support::{Connecting, Load, Session, differences};
use crate::load::{Clients, changes, end_watches, events, is_cut, revision};
use crate::report::Report;
use crate::site::Site;
use crate::skew::PEER_ONLY;
use crate::upgrade::upgrade;

/// Longer than both upgrades.
const LENGTH: Duration = Duration::from_secs(200);
/// Connections made at rest are cut within this time after the skew began, busy ones too.
const MOVED: Duration = Duration::from_mins(1);
/// A change of what is served is seen within this time.
const SEEN: Duration = Duration::from_secs(15);

/// Upgrades the node beside the one that clients use, and then that one.
pub(crate) fn run(site: &mut Site, report: &mut Report) -> Result<()> {
    report.begin(
        "from rest to rest",
        "With --steering=on-skew clients of a node whose peers are upgraded first lose nothing but what is on a connection \
         that is cut, and have what is new; while their own API server is upgraded they lose nothing.",
    );
    for node in &site.nodes {
        ensure!(node.kind == Kind::Old, "{} is not old", node.name);
    }
    let first = revision(site)?;
    let load = Load::new("default", LENGTH, Duration::from_millis(40));
    let clients = Clients::start_at(site, 0, &load, first);
    let mut kept = Session::new(site.options(0), Connecting::Kept);
    let straight = ask(site, &mut kept)?;
    report.equal("at rest: steered", "0", &site.nodes[0].metric("mvproxy_steering").to_string());
    report.equal("at rest: what only new servers serve", "404 Not Found", &straight);

    let last = site.nodes.len() - 1;
    (1..=last).try_for_each(|node| upgrade(site, node))?;
    wait(report, "skew: steered", SEEN, || Ok(site.nodes[0].metric("mvproxy_steering") == 1))?;
    wait(report, "skew: a connection made at rest leads to what is new", MOVED, || {
        Ok(ask(site, &mut kept)? == "200 OK")
    })?;
    // The busiest go last.
    std::thread::sleep(Duration::from_secs(30));
    let cuts = site.nodes[0].metric("mvproxy_connections_cut_total");
    let before = load.ledger.failures();

    upgrade(site, 0)?;
    wait(report, "rest again: not steered", SEEN, || Ok(site.nodes[0].metric("mvproxy_steering") == 0))?;
    report.equal("rest again: what is new", "200 OK", &ask(site, &mut kept)?);
    let left = load.ends.saturating_duration_since(Instant::now());
    report.check("load to the end", "yes", &format!("{left:.0?} more"), !left.is_zero());
    std::thread::sleep(left);
    end_watches(site, &load)?;
    let watches = clients.join();

    report.note(&format!("on-skew: {}, {cuts} connections cut", load.ledger.summary()));
    report.check("connections cut", "> 0", &cuts.to_string(), cuts > 0);
    let cut = before.iter().filter(|failure| is_cut(failure)).count();
    report.check("requests lost with them", &format!("<= {cuts}"), &cut.to_string(), cut as u64 <= cuts);
    let mut others = load.ledger.failures();
    others.drain(..before.len());
    others.extend(before.into_iter().filter(|failure| !is_cut(failure)));
    let text: Vec<String> =
        others.iter().map(|failure| format!("{}: {}", failure.what, failure.why)).collect();
    report.equal("requests lost otherwise", "", &text.join("\n"));
    let written = changes(site, "default")?;
    let compared = load.ledger.compare(written.iter().map(|one| (one.value.as_ref(), one.previous.as_ref())));
    report.check("writes lost or doubled", "none", &format!("{compared:?}"), compared.is_ok());
    let seen = differences(&watches, &events(&written, first, &load));
    report.equal("gaps or repeats in watches", "", &seen);
    Ok(())
}

/// What a kept connection gets for the collection that only new servers have; on a new one where that was cut.
fn ask(site: &Site, kept: &mut Session) -> Result<String> {
    let request = || Request::get(PEER_ONLY).body(Bytes::new());
    site.elsewhere.block_on(async || {
        let status = |answered: Result<mvproxy_tests::client::Answer, String>| {
            answered.map(|answer: mvproxy_tests::client::Answer| answer.status)
        };
        let first: Result<StatusCode, String> = status(kept.fetch(request()?).await);
        let answered = match first {
            Err(_) => status(kept.fetch(request()?).await),
            answered => answered,
        };
        Ok(answered.map_or_else(|error| error, |status| status.to_string()))
    })
}

/// Waits until `done`, and notes how long that took.
fn wait(
    report: &mut Report,
    what: &str,
    limit: Duration,
    mut done: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let begun = Instant::now();
    let mut is_done = done()?;
    while !is_done && begun.elapsed() < limit {
        std::thread::sleep(Duration::from_millis(100));
        is_done = done()?;
    }
    report.check(what, &format!("within {limit:.0?}"), &format!("{:.1?}", begun.elapsed()), is_done);
    Ok(())
}
