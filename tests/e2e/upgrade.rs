//! Upgrades every node's API server, one after the other, while clients of each node go on working.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use http::Request;
use mvproxy_tests::client::ClientOptions;

use crate::apiserver::Kind;
use crate::cluster_support::{Connecting, Load, Session, differences};
use crate::load::{Clients, changes, end_watches, events, revision};
use crate::report::Report;
use crate::site::Site;

/// Through the proxies, and past them: each writes to a namespace of its own, so that they can be told apart in etcd.
const STEERED: &str = "default";
const STRAIGHT: &str = "kube-public";
/// What has to be asked at least.
const FEWEST_REQUESTS: usize = 3_000;
/// Nodes serve for this long between two upgrades.
const BETWEEN: Duration = Duration::from_secs(8);
/// What the kubelet gives static pods.
const GRACE: Duration = Duration::from_secs(30);
/// The whole load; a node takes about 40 s.
const LENGTH: Duration = Duration::from_secs(150);

/// Runs it; `peer_only` is the collection that new servers have and old ones lack.
pub(crate) fn run(site: &mut Site, peer_only: &str, report: &mut Report) -> Result<()> {
    report.begin(
        "rolling upgrade",
        "All nodes go from old to new, one by one, under load through the proxies and, beside it, straight to the API servers.",
    );
    for node in &site.nodes {
        ensure!(node.kind == Kind::Old, "{} is not old", node.name);
    }
    let first = revision(site)?;
    let steered = Load::new(STEERED, LENGTH, Duration::from_millis(40));
    let straight = Load::new(STRAIGHT, LENGTH, Duration::from_millis(160));
    let clients = Clients::start(site, &steered, first);
    let straight_clients = Clients::start_straight(site, &straight, first);
    let mut listers = Vec::new();
    std::thread::sleep(Duration::from_secs(4));
    for node in 0..site.nodes.len() {
        upgrade(site, node)?;
        if node == 0 {
            // Once the first server is new everybody is to have what is new, wherever they ask.
            std::thread::sleep(Duration::from_secs(6));
            for node in 0..site.nodes.len() {
                listers.push(list_new(site, &steered, node, peer_only));
            }
        }
        std::thread::sleep(BETWEEN);
    }
    std::thread::sleep(steered.ends.saturating_duration_since(Instant::now()));
    for load in [&steered, &straight] {
        end_watches(site, load)?;
    }
    let (watches, straight_watches) = (clients.join(), straight_clients.join());
    for lister in listers {
        lister.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }

    report.note(&format!("through mvproxy: {}", steered.ledger.summary()));
    report.note(&format!("straight to the API servers: {}", straight.ledger.summary()));
    let asked = steered.ledger.requests();
    report.check("requests", &format!(">= {FEWEST_REQUESTS}"), &asked.to_string(), asked >= FEWEST_REQUESTS);
    report.equal("failed requests through mvproxy", "0", &steered.ledger.failures().len().to_string());
    let written = changes(site, STEERED)?;
    let compared =
        steered.ledger.compare(written.iter().map(|one| (one.value.as_ref(), one.previous.as_ref())));
    report.check("writes lost or doubled", "none", &format!("{compared:?}"), compared.is_ok());
    let seen = differences(&watches, &events(&written, first, &steered));
    report.equal("gaps or repeats in watches through mvproxy", "", &seen);
    let reopened: usize = watches.iter().map(|watch| watch.opened).sum();
    report.equal("watches opened", &watches.len().to_string(), &reopened.to_string());
    let straight_opened: usize = straight_watches.iter().map(|watch| watch.opened).sum();
    report.note(&format!("straight: {} watches, opened {straight_opened} times", straight_watches.len()));
    let failed = straight.ledger.failures().len();
    report.check("failed requests straight", "> 0", &failed.to_string(), failed > 0);
    Ok(())
}

/// Puts a new API server in the place of a node's old one.
pub(crate) fn upgrade(site: &mut Site, node: usize) -> Result<()> {
    let begun = Instant::now();
    let took = site.take_server(node)?.stop(GRACE);
    println!("   {} took {:.1} s to end", site.nodes[node].name, took.as_secs_f32());
    site.nodes[node].kind = Kind::New;
    site.start_server(node)?;
    site.wait_for_server(node)?;
    println!("   {} is new after {:.1} s", site.nodes[node].name, begun.elapsed().as_secs_f32());
    Ok(())
}

/// Lists a collection of new servers again and again through one node, on kept and on fresh connections.
fn list_new(site: &Site, load: &Arc<Load>, node: usize, collection: &str) -> JoinHandle<()> {
    let (netns, load, target) = (Arc::clone(&site.elsewhere), Arc::clone(load), collection.to_owned());
    let options: ClientOptions = site.options(node);
    let name = site.nodes[node].name.clone();
    std::thread::spawn(move || {
        netns.block_on(|| async {
            for turn in 0_usize.. {
                if Instant::now() >= load.ends {
                    break;
                }
                let connecting = if turn % 2 == 0 { Connecting::Fresh } else { Connecting::Kept };
                let options = ClientOptions { http2: turn % 4 > 1, ..options.clone() };
                let mut session = Session::new(options, connecting);
                let begun = Instant::now();
                let outcome = match Request::get(&target).body(Bytes::new()) {
                    Ok(request) => session.fetch(request).await.and_then(|answer| {
                        (answer.status == 200)
                            .then_some(())
                            .ok_or_else(|| format!("{} {}", answer.status, answer.text()))
                    }),
                    Err(error) => Err(error.to_string()),
                };
                load.ledger.note(begun, &format!("to {name} new list"), &outcome);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
    })
}
