//! Kills, freezes and restarts proxies and API servers under load.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use crate::cluster_support::{Failure, Load, differences};
use crate::load::{Clients, changes, end_watches, events, revision};
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
const LENGTH: Duration = Duration::from_mins(5);
/// Beginning of a request before a disturbance, and its end after, within which the disturbance may be its death: what was
/// on its way is lost with whoever had it, and a proxy that hangs is noticed within its heartbeat's limit and a second SYN.
const BEFORE: Duration = Duration::from_secs(1);
const AFTER: Duration = Duration::from_secs(3);
/// Clients that went straight to the API server while a proxy was away are cut off from it within this time: first it is seen
/// that no more do, then they are given time to be quiet.
const MOVED: Duration = Duration::from_secs(25);
/// Requests that the clients here can have on their way: each one, when the program dies and once more when its connection
/// straight to the API server is cut.
const MOST_LOST: usize = 40;

/// A disturbance, and when it was.
struct Disturbance {
    what: String,
    whom: Whom,
    begun: Instant,
    ended: Instant,
    /// Requests that are lost with it.
    takes: fn(&Failure) -> bool,
}

/// Runs the schedule.
pub(crate) fn run(site: &mut Site, report: &mut Report) -> Result<()> {
    report.begin(
        "disturbances",
        "Proxies and API servers are killed, frozen and restarted under load. What is on its way through a program that is \
         killed may be lost; nothing else may.",
    );
    let first = revision(site)?;
    let load = Load::new("default", LENGTH, Duration::from_millis(50));
    let clients = Clients::start(site, &load, first);
    let mut disturbances = Vec::new();
    for how in WAYS {
        for whom in [Whom::Proxy, Whom::ApiServer] {
            for node in 0..site.nodes.len() {
                std::thread::sleep(Duration::from_secs(2));
                disturbances.push(disturb(site, how, whom, node)?);
                if whom == Whom::Proxy {
                    std::thread::sleep(MOVED - Duration::from_secs(5));
                }
            }
        }
    }
    std::thread::sleep(load.ends.saturating_duration_since(Instant::now()));
    end_watches(site, &load)?;
    let watches = clients.join();

    report.note(&format!("through mvproxy: {}", load.ledger.summary()));
    let mut unexplained = load.ledger.failures();
    for disturbance in &disturbances {
        let (lost, rest): (Vec<_>, Vec<_>) =
            unexplained.into_iter().partition(|failure| disturbance.explains(failure));
        unexplained = rest;
        let (less, lost): (Vec<_>, Vec<_>) = lost.into_iter().partition(is_local_discovery);
        let longest = less.iter().map(|failure| failure.ended.duration_since(disturbance.begun)).max();
        let seen = format!(
            "{} lost; discovery was the API server's own until {:.1} s after",
            lost.len(),
            longest.unwrap_or_default().as_secs_f32()
        );
        report.check(&disturbance.what, "loses at most what was on its way", &seen, lost.len() <= MOST_LOST);
    }
    let text: Vec<String> =
        unexplained.iter().map(|failure| format!("{}: {}", failure.what, failure.why)).collect();
    report.equal("requests that failed beside", "", &text.join("\n"));
    let written = changes(site, "default")?;
    let compared = load.ledger.compare(written.iter().map(|one| (one.value.as_ref(), one.previous.as_ref())));
    report.check("writes lost or doubled", "none", &format!("{compared:?}"), compared.is_ok());
    let seen = differences(&watches, &events(&written, first, &load));
    report.equal("gaps or repeats in watches", "", &seen);
    Ok(())
}

impl Disturbance {
    fn explains(&self, failure: &Failure) -> bool {
        let is_with_it = failure.begun <= self.begun + BEFORE
            && failure.ended + BEFORE >= self.begun
            && failure.ended <= self.begun + AFTER;
        let is_moved = self.whom == Whom::Proxy
            && failure.ended >= self.begun
            && failure.ended <= self.ended + MOVED
            && (is_local_discovery(failure) || is_cut(failure));
        is_moved || (is_with_it && (self.takes)(failure))
    }
}

/// What a client is told that goes straight to the API server.
fn is_local_discovery(failure: &Failure) -> bool {
    failure.what.ends_with(" /apis") && failure.why.starts_with("200 ")
}

/// What a client is told whose connection straight to the API server is cut.
fn is_cut(failure: &Failure) -> bool {
    ["reset", "closed", "broke off"].iter().any(|word| failure.why.contains(word))
}

fn disturb(site: &mut Site, how: How, whom: Whom, node: usize) -> Result<Disturbance> {
    let what = format!("{whom:?} of {} {how:?}", site.nodes[node].name);
    println!("   {what}");
    let begun = Instant::now();
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
            take(site, whom, node)?.kill();
            std::thread::sleep(Duration::from_secs(seconds));
            start(site, whom, node)?;
        }
        How::Restarted => {
            take(site, whom, node)?.terminate();
            start(site, whom, node)?;
        }
    }
    let takes: fn(&Failure) -> bool = match (how, whom) {
        (How::Killed(_), Whom::Proxy) => |_| true,
        // Reads go on elsewhere; of a write that was on its way nobody knows.
        (How::Killed(_), Whom::ApiServer) => |failure| failure.is_write && failure.in_doubt,
        (How::Frozen(_) | How::Restarted, _) => |_| false,
    };
    Ok(Disturbance { what, whom, begun, ended: Instant::now(), takes })
}

fn take(site: &mut Site, whom: Whom, node: usize) -> Result<crate::cluster_support::Process> {
    match whom {
        Whom::Proxy => site.take_proxy(node),
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
