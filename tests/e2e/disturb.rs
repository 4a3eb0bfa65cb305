//! Kills, freezes and restarts proxies and API servers under load.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

use crate::cluster_support::{Failure, Load, Process, differences};
use crate::load::{Clients, changes, end_watches, events, is_cut, is_local_discovery, revision};
use crate::report::Report;
use crate::site::Site;

/// What happens to a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// kill -9, and a new one after this many seconds.
    Killed(u64),
    /// SIGSTOP, and SIGCONT after this many seconds.
    Frozen(u64),
    /// SIGTERM and, once it has ended, a new one.
    Restarted,
}

/// To which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whom {
    Proxy,
    ApiServer,
}

/// Each happens to each program, one after the other.
const WAYS: [How; 3] = [How::Killed(2), How::Frozen(4), How::Restarted];
/// Longer than the schedule.
const LENGTH: Duration = Duration::from_mins(7);
/// What the kubelet gives static pods to end; kube-apiserver takes all of it while there are watches.
const GRACE: Duration = Duration::from_secs(30);
/// What the `DaemonSet` gives the proxy.
const PROXY_GRACE: Duration = Duration::from_secs(45);
/// A client of a program that is killed has noticed by then.
const NOTICED: Duration = Duration::from_secs(3);
/// Clients that went straight to the API server while a proxy was away are cut off from it within this time: first it is seen
/// that no more do, then they are given time to be quiet.
const MOVED: Duration = Duration::from_secs(50);

/// A disturbance, and when it was.
struct Disturbance {
    how: How,
    whom: Whom,
    node: String,
    begun: Instant,
    /// When a program that was killed or told to stop was gone.
    gone: Instant,
    ended: Instant,
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    /// It was on its way through a program that was killed.
    OnItsWay,
    /// Its connection straight to the API server was cut.
    Cut,
    /// It went straight to the API server, which knows nothing of others.
    LocalDiscovery,
}

/// A site whose proxies have cut connections.
struct Cuts(Vec<u64>);

/// Runs the schedule.
pub(crate) fn run(site: &mut Site, report: &mut Report) -> Result<()> {
    report.begin(
        "disturbances",
        "Proxies and API servers are killed, frozen and restarted under load. What is on its way through a program that is \
         killed may be lost, and what is on a connection that is cut because it goes straight to the API server; nothing \
         else may.",
    );
    let first = revision(site)?;
    let load = Load::new("default", LENGTH, Duration::from_millis(50));
    let clients = Clients::start(site, &load, first);
    let (mut disturbances, mut cuts) = (Vec::new(), Cuts(vec![0; site.nodes.len()]));
    // In this order: clients that go straight to an API server because a proxy was away would suffer with it.
    for whom in [Whom::ApiServer, Whom::Proxy] {
        for how in WAYS {
            for node in 0..site.nodes.len() {
                std::thread::sleep(Duration::from_secs(2));
                disturbances.push(disturb(site, how, whom, node, &mut cuts)?);
            }
            if whom == Whom::Proxy {
                std::thread::sleep(MOVED);
            }
        }
    }
    let left = load.ends.saturating_duration_since(Instant::now());
    report.check("load to the end of the schedule", "yes", &format!("{left:.0?} more"), !left.is_zero());
    std::thread::sleep(left);
    end_watches(site, &load)?;
    let watches = clients.join();
    cuts.read(site);

    report.note(&format!("through mvproxy: {}", load.ledger.summary()));
    explain(site, load.ledger.failures(), &disturbances, &cuts, report);
    let written = changes(site, "default")?;
    let compared = load.ledger.compare(written.iter().map(|one| (one.value.as_ref(), one.previous.as_ref())));
    report.check("writes lost or doubled", "none", &format!("{compared:?}"), compared.is_ok());
    let seen = differences(&watches, &events(&written, first, &load));
    report.equal("gaps or repeats in watches", "", &seen);
    Ok(())
}

/// Holds every failure against what happened then.
fn explain(
    site: &Site,
    failures: Vec<Failure>,
    disturbances: &[Disturbance],
    cuts: &Cuts,
    report: &mut Report,
) {
    let mut unexplained = failures;
    let mut cut = vec![0; site.nodes.len()];
    for disturbance in disturbances {
        let explained: Vec<_> =
            unexplained.extract_if(.., |failure| disturbance.explains(failure).is_some()).collect();
        let count = |loss| explained.iter().filter(|one| disturbance.explains(one) == Some(loss)).count();
        let position = site.nodes.iter().position(|node| node.name == disturbance.node);
        if let Some(node) = position {
            cut[node] += count(Loss::Cut);
        }
        let ends = explained.iter().filter(|one| is_local_discovery(one)).map(|one| one.ended);
        let longest = ends.max().map(|end| end.duration_since(disturbance.begun)).unwrap_or_default();
        report.note(&format!(
            "{:?} of {} {:?}: {} lost on their way, {} cut; discovery was the API server's own until {:.1} s after",
            disturbance.whom,
            disturbance.node,
            disturbance.how,
            count(Loss::OnItsWay),
            count(Loss::Cut),
            longest.as_secs_f32()
        ));
    }
    for (node, (failed, counted)) in site.nodes.iter().zip(cut.into_iter().zip(&cuts.0)) {
        report.check(
            &format!("{}: requests lost with connections that were cut", node.name),
            &format!("<= {counted}, the connections that its proxies cut"),
            &failed.to_string(),
            failed as u64 <= *counted,
        );
    }
    let text: Vec<String> =
        unexplained.iter().map(|failure| format!("{}: {}", failure.what, failure.why)).collect();
    report.equal("requests that failed for no such reason", "", &text.join("\n"));
}

impl Disturbance {
    fn explains(&self, failure: &Failure) -> Option<Loss> {
        if !failure.what.contains(&self.node) || failure.ended < self.begun {
            return None;
        }
        let was_on_its_way = failure.begun <= self.gone && failure.ended <= self.gone + NOTICED;
        let is_lost = match (self.how, self.whom) {
            (How::Killed(_), Whom::Proxy) => is_cut(failure),
            // Reads go on elsewhere; of a write that was on its way nobody knows.
            (How::Killed(_), Whom::ApiServer) => failure.is_write && failure.in_doubt,
            (How::Frozen(_) | How::Restarted, _) => false,
        };
        let may_be_moved = self.whom == Whom::Proxy && failure.ended <= self.ended + MOVED;
        if was_on_its_way && is_lost {
            Some(Loss::OnItsWay)
        } else if may_be_moved && is_cut(failure) && failure.ended > self.gone {
            Some(Loss::Cut)
        } else if may_be_moved && is_local_discovery(failure) {
            Some(Loss::LocalDiscovery)
        } else {
            None
        }
    }
}

impl Cuts {
    /// Adds what the proxies that run now have cut.
    fn read(&mut self, site: &Site) {
        (0..site.nodes.len()).for_each(|node| self.read_one(site, node));
    }

    fn read_one(&mut self, site: &Site, node: usize) {
        self.0[node] += site.nodes[node].metric("mvproxy_connections_cut_total");
    }
}

fn disturb(site: &mut Site, how: How, whom: Whom, node: usize, cuts: &mut Cuts) -> Result<Disturbance> {
    let name = site.nodes[node].name.clone();
    println!("   {whom:?} of {name} {how:?}");
    let begun = Instant::now();
    let mut gone = begun;
    match how {
        How::Frozen(seconds) => {
            let process = match whom {
                Whom::Proxy => site.nodes[node].proxy(),
                Whom::ApiServer => site.nodes[node].server(),
            };
            let process = process.context("it runs")?;
            process.signal(Signal::SIGSTOP);
            std::thread::sleep(Duration::from_secs(seconds));
            process.signal(Signal::SIGCONT);
        }
        How::Killed(seconds) => {
            take(site, whom, node, cuts)?.kill();
            gone = Instant::now();
            std::thread::sleep(Duration::from_secs(seconds));
            start(site, whom, node)?;
        }
        How::Restarted => {
            let grace = if whom == Whom::Proxy { PROXY_GRACE } else { GRACE };
            let took = take(site, whom, node, cuts)?.stop(grace);
            gone = Instant::now();
            ensure!(whom == Whom::ApiServer || took < grace, "{whom:?} of {name} does not end");
            println!("   it took {:.1} s to end", took.as_secs_f32());
            start(site, whom, node)?;
        }
    }
    Ok(Disturbance { how, whom, node: name, begun, gone, ended: Instant::now() })
}

fn take(site: &mut Site, whom: Whom, node: usize, cuts: &mut Cuts) -> Result<Process> {
    match whom {
        Whom::Proxy => {
            // Its counters end with it.
            cuts.read_one(site, node);
            site.take_proxy(node)
        }
        Whom::ApiServer => site.take_server(node),
    }
}

fn start(site: &mut Site, whom: Whom, node: usize) -> Result<()> {
    match whom {
        Whom::Proxy => {
            site.start_proxy(node)?;
            site.wait_for_proxy(node)
        }
        Whom::ApiServer => {
            site.start_server(node)?;
            site.wait_for_server(node)
        }
    }
}
