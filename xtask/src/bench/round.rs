//! Measures one contestant once: started, warmed up, loaded, ended.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sys::signal::Signal;

use super::cases::{Case, Load, Requests};
use super::contestant::{Contestant, Running};
use super::h2load;
use super::machine::{BUSY, Ledger};
use super::site::Site;
use super::statistics::float;
use super::usage::{Usage, memory};
use crate::command::capture;
use crate::interrupt;

/// One measurement of one contestant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Batch {
    /// By name of the metric.
    pub(crate) values: BTreeMap<&'static str, f64>,
    /// Share of the machine that others had meanwhile.
    pub(crate) foreign: f64,
    /// Why there are no values.
    pub(crate) failure: Option<String>,
}

impl Batch {
    /// One line for who watches.
    pub(crate) fn brief(&self) -> String {
        let busy = if self.is_busy() {
            format!(", {:.0} % of the machine with others", self.foreign * 100.0)
        } else {
            String::new()
        };
        if let Some(failure) = &self.failure {
            return format!("failed: {failure}");
        }
        let values = self.values.iter().map(|(name, value)| format!("{name} {value:.1}"));
        format!("{}{busy}", values.collect::<Vec<_>>().join(", "))
    }

    /// Whether others had so much of the machine that the figures mean little.
    pub(crate) fn is_busy(&self) -> bool {
        self.foreign > BUSY
    }
}

/// Measures one contestant once. What goes wrong is part of the result, except an interrupt.
pub(crate) fn measure(site: &Site, case: &Case, contestant: &Contestant, quick: bool) -> Result<Batch> {
    let backends = [site.older.process.pid(), site.newer.process.pid()];
    let before = Ledger::open(&backends)?;
    let measured = contestant.start(site).and_then(|running| match case.load {
        Load::Requests(requests) => {
            requests_of(site, &running, if quick { requests.quick() } else { requests })
        }
        Load::Paced { path, connections, rate, count } => {
            let count = if quick { count / 4 } else { count };
            paced_of(site, &running, path, [connections, rate, count])
        }
        Load::Watches { connections, streams } => {
            watches_of(site, &running, if quick { connections / 10 } else { connections }, streams)
        }
        Load::Connections { rate, count, resume } => {
            connections_of(site, &running, [rate, if quick { count / 3 } else { count }], resume)
        }
    });
    interrupt::check()?;
    let foreign = Ledger::open(&backends)?.foreign_share_since(&before);
    Ok(match measured {
        Ok(values) => Batch { values, foreign, failure: None },
        Err(error) => Batch { failure: Some(format!("{error:#}")), foreign, ..Batch::default() },
    })
}

type Values = BTreeMap<&'static str, f64>;

fn requests_of(site: &Site, running: &Running, requests: Requests) -> Result<Values> {
    let path = running.path.unwrap_or(requests.path);
    h2load::run(&site.folder, running.address, path, requests.warm_up()).context("warming up")?;
    let pids = running.pids();
    let before = Usage::of(&pids)?;
    let outcome = h2load::run(&site.folder, running.address, path, requests)?;
    let used = Usage::of(&pids)?.since(&before);
    let (resident, most) = memory(&pids)?;
    let mut values = cpu_per(used, outcome.answered);
    values.insert("per_second", outcome.per_second);
    values.insert("rss_mb", float(resident) / 1024.0);
    values.insert("peak_mb", float(most) / 1024.0);
    Ok(values)
}

/// Microseconds of CPU for each of `count`.
fn cpu_per(used: Usage, count: u64) -> Values {
    let each = used.total.as_secs_f64() * 1e6 / float(count);
    let system = each * used.system_share();
    [("cpu_us", each), ("user_us", each - system), ("sys_us", system)].into()
}

/// Before watches are opened: connections upstream, and what a proxy takes once.
const FIRST_REQUESTS: Requests = Requests {
    path: "/api/v1/namespaces/default/configmaps/1000",
    http1: false,
    upload: None,
    clients: (4, 10),
    count: 400,
};
/// Events that each watch gets.
const EVENTS: u64 = 5;
/// Time for watches to open, and for an event to reach all of them.
const WATCH_LIMIT: Duration = Duration::from_secs(100);

fn watches_of(site: &Site, running: &Running, connections: usize, streams: usize) -> Result<Values> {
    h2load::run(&site.folder, running.address, FIRST_REQUESTS.path, FIRST_REQUESTS).context("warming up")?;
    let (empty, _) = memory(&running.pids())?;
    let all = connections * streams;
    let arguments = vec![
        "watch".to_owned(),
        format!("--address={}", running.address),
        format!("--ca={}", site.folder.ca().display()),
        format!("--connections={connections}"),
        format!("--streams={streams}"),
    ];
    let mut watches = site.launch("watches", &site.helper, arguments)?;
    let opened = format!("open {all}");
    let are_open = |said: &str| said.contains(&opened) && said.contains("delivered 1\n");
    watches.wait_until("open", WATCH_LIMIT, |watches| Ok(are_open(&watches.output()?)))?;
    let pids = running.pids();
    let (full, _) = memory(&pids)?;
    let (before, started) = (Usage::of(&pids)?, Instant::now());
    // The first one was there when they were opened.
    for event in 2..=EVENTS + 1 {
        site.older.process.signal(Signal::SIGUSR1)?;
        let delivered = format!("delivered {event}\n");
        watches.wait_until("delivered", WATCH_LIMIT, |watches| Ok(watches.output()?.contains(&delivered)))?;
    }
    let elapsed = started.elapsed();
    let used = Usage::of(&pids)?.since(&before);
    let (after, _) = memory(&pids)?;
    ensure!(!watches.output()?.contains("ended"), "a watch ended");
    let each = |kib: u64| float(kib.saturating_sub(empty)) / float(all as u64);
    let mut values = cpu_per(used, EVENTS * all as u64);
    values.insert("kib_per_watch", each(full));
    values.insert("kib_after_events", each(after));
    values.insert("rss_mb", float(full) / 1024.0);
    values.insert("event_ms", elapsed.as_secs_f64() * 1e3 / float(EVENTS));
    Ok(values)
}

fn paced_of(
    site: &Site,
    running: &Running,
    path: &str,
    [connections, rate, count]: [usize; 3],
) -> Result<Values> {
    h2load::run(&site.folder, running.address, FIRST_REQUESTS.path, FIRST_REQUESTS).context("warming up")?;
    let rate = [format!("--connections={connections}"), format!("--rate={rate}"), format!("--path={path}")];
    let (used, said) = client(site, running, "paced", count, &rate)?;
    let [_, answered, _, p50, _, p90, _, p99, _, p999] = words(&said)?;
    let mut values = cpu_per(used, answered.parse()?);
    for (name, value) in [("p50_us", p50), ("p90_us", p90), ("p99_us", p99), ("p999_us", p999)] {
        values.insert(name, value.parse()?);
    }
    Ok(values)
}

fn connections_of(site: &Site, running: &Running, [rate, count]: [usize; 2], resume: bool) -> Result<Values> {
    h2load::run(&site.folder, running.address, FIRST_REQUESTS.path, FIRST_REQUESTS).context("warming up")?;
    let mut flags = vec![format!("--rate={rate}")];
    flags.extend(resume.then(|| "--resume".to_owned()));
    let (used, said) = client(site, running, "connect", count, &flags)?;
    let [_, answered, _, resumed, _, p50, _, p99] = words(&said)?;
    let mut values = cpu_per(used, answered.parse()?);
    values.insert("resumed", resumed.parse::<f64>()? / answered.parse::<f64>()?);
    values.insert("p50_us", p50.parse()?);
    values.insert("p99_us", p99.parse()?);
    Ok(values)
}

/// Runs a client of our own to its end; what the proxy used meanwhile, and what the client said.
fn client(
    site: &Site,
    running: &Running,
    verb: &str,
    count: usize,
    flags: &[String],
) -> Result<(Usage, String)> {
    let pids = running.pids();
    let before = Usage::of(&pids)?;
    let mut client = Command::new(&site.helper);
    client.args([verb, &format!("--address={}", running.address), &format!("--count={count}")]);
    client.arg(format!("--ca={}", site.folder.ca().display())).args(flags);
    let said = capture(&mut client, WATCH_LIMIT)?.success("the client")?;
    Ok((Usage::of(&pids)?.since(&before), said))
}

fn words<const N: usize>(said: &str) -> Result<[&str; N]> {
    let words: Vec<&str> = said.split_whitespace().collect();
    words.try_into().map_err(|_| anyhow!("the client said: {said}"))
}
