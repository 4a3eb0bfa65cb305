//! Puts clients on and around every node, and compares what they saw with what etcd has.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::Method;
use mvproxy_tests::netns::Netns;
use serde_json::json;

use crate::cluster_support::{Event, Failure, Load, Place, Share, Watcher};
use crate::etcd::{self, Change};
use crate::site::{EXEMPT_SOURCE, Site};

/// The clients of one load.
pub(crate) struct Clients(Vec<JoinHandle<Vec<Watcher>>>);

impl Clients {
    /// Clients of every node, through its proxy: some elsewhere, some on the node itself.
    pub(crate) fn start(site: &Site, load: &Arc<Load>, after: u64) -> Self {
        let all = (0..site.nodes.len()).flat_map(|node| Self::start_at(site, node, load, after).0);
        Self(all.collect())
    }

    /// Clients of one node.
    pub(crate) fn start_at(site: &Site, node: usize, load: &Arc<Load>, after: u64) -> Self {
        let at = &site.nodes[node];
        let elsewhere = Place { name: format!("to {}", at.name), options: site.options(node) };
        let on_node = Place { name: format!("on {}", at.name), options: site.options_on_node() };
        Self(vec![
            start(&site.elsewhere, load, elsewhere, Share::All, after),
            start(&at.netns, load, on_node, Share::Kept, after),
        ])
    }

    /// Clients on every node whose source is never steered.
    pub(crate) fn start_straight(site: &Site, load: &Arc<Load>, after: u64) -> Self {
        let start = |at: &crate::node::Node| {
            let options = site.options_on_node().from_source(EXEMPT_SOURCE.into());
            start(
                &at.netns,
                load,
                Place { name: format!("straight on {}", at.name), options },
                Share::All,
                after,
            )
        };
        Self(site.nodes.iter().map(start).collect())
    }

    /// Waits for their end; their watches.
    pub(crate) fn join(self) -> Vec<Watcher> {
        let join =
            |thread: JoinHandle<_>| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        self.0.into_iter().flat_map(join).collect()
    }
}

fn start(
    netns: &Arc<Netns>,
    load: &Arc<Load>,
    place: Place,
    share: Share,
    after: u64,
) -> JoinHandle<Vec<Watcher>> {
    let (netns, load) = (Arc::clone(netns), Arc::clone(load));
    std::thread::spawn(move || netns.block_on(|| load.run(place, share, after)))
}

/// The present revision of the store.
pub(crate) fn revision(site: &Site) -> Result<u64> {
    let answer = site.straight(0, Method::GET, "/api/v1/namespaces/default/configmaps", None)?;
    let list = answer.json()?;
    let revision = list["metadata"]["resourceVersion"].as_str().context("a list has a revision")?;
    Ok(revision.parse()?)
}

/// Whether this is what a client is told that goes straight to the API server.
pub(crate) fn is_local_discovery(failure: &Failure) -> bool {
    failure.what.ends_with(" /apis") && failure.why.starts_with("200 ")
}

/// Whether this is what a client is told whose connection straight to the API server is cut.
pub(crate) fn is_cut(failure: &Failure) -> bool {
    ["reset", "closed", "broke off"].iter().any(|word| failure.why.contains(word))
}

/// Writes one last object and tells the watches which.
pub(crate) fn end_watches(site: &Site, load: &Load) -> Result<()> {
    // Clients finish the object they are at; their writes come before the last one.
    std::thread::sleep(Duration::from_secs(1));
    let collection = format!("/api/v1/namespaces/{}/configmaps", load.namespace);
    let object = json!({"metadata": {"name": "last"}, "data": {"mark": "last"}});
    let answer = site.straight(0, Method::POST, &collection, Some(&object))?;
    ensure!(answer.status == 201, "{} {}", answer.status, answer.text());
    let created = answer.json()?;
    let revision = created["metadata"]["resourceVersion"].as_str().context("an object has a revision")?;
    load.last_revision.store(revision.parse()?, Ordering::Relaxed);
    Ok(())
}

/// Everything that happened to the objects of a namespace.
pub(crate) fn changes(site: &Site, namespace: &str) -> Result<Vec<Change>> {
    etcd::history(&site.elsewhere, &format!("/registry/configmaps/{namespace}/"))
}

/// What watches of that were to see.
pub(crate) fn events(changes: &[Change], after: u64, load: &Load) -> Vec<Event> {
    let last = load.last_revision.load(Ordering::Relaxed);
    changes.iter().filter(|one| one.revision > after && one.revision <= last).map(Change::event).collect()
}
