//! Kills, stops and restarts the old node's proxy: nobody notices.

use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::signal::Signal;

use super::super::caller::Answer;
use super::super::report::{Report, Step};
use super::super::site::Site;
use super::{NEW_API, OLD_API, READYZ_LINE, get_known};
use crate::interrupt;

/// Longest time until a hung proxy is passed by.
const HUNG_LIMIT: Duration = Duration::from_millis(1500);
/// Longest time until one that goes on is steered to again.
const CONTINUED_LIMIT: Duration = Duration::from_secs(2);

/// Plays the steps.
pub(crate) fn play(site: &mut Site, report: &mut Report) -> Result<()> {
    Report::section("When the proxy on the old node dies or hangs");
    killed(site, report)?;
    restarted(site, report)?;
    stopped(site, report)?;
    continued(site, report)
}

fn killed(site: &mut Site, report: &mut Report) -> Result<()> {
    let pid = site.old.proxy()?.pid();
    site.old.kill_proxy()?;
    // The first request after the kill counts, so it is not repeated.
    let answer = get(site, NEW_API)?;
    let step = Step {
        title: "kill -9: the next request goes to the API server itself",
        command: &format!("kill -9 {pid}; {}", answer.command),
        expected: "404",
    };
    report.same(&step, &answer.status);

    let answer = get(site, OLD_API)?;
    let title = "and it answers what it has";
    report.same(&Step { title, command: &answer.command, expected: "200" }, &answer.status);

    let answer = get(site, "/readyz?verbose")?;
    let step = Step {
        title: "its readiness report shows that no proxy is in between",
        command: &answer.command,
        expected: &format!("200 without {READYZ_LINE}"),
    };
    let with = if answer.body.contains("mixed-version-proxy") { "with" } else { "without" };
    report.same(&step, &format!("{} {with} {READYZ_LINE}", answer.status));
    Ok(())
}

/// Asks again and again, as short-lived clients do, until the API server answers.
fn stopped(site: &Site, report: &mut Report) -> Result<()> {
    let pid = site.old.proxy()?.pid();
    site.old.signal_proxy(Signal::SIGSTOP)?;
    let started = Instant::now();
    let url = site.old.url(NEW_API);
    let answered = interrupt::poll(Duration::from_secs(5), || {
        let answer = site.caller.get(&site.client, &["--max-time", "0.2"], &url)?;
        Ok((answer.status == "404").then_some(answer))
    })?;
    let elapsed = started.elapsed();
    let command =
        format!("kill -STOP {pid}; client$ until curl -K alice.curl --max-time 0.2 {url}; do :; done");
    let step = Step {
        title: "kill -STOP: it hangs, and requests pass it by",
        command: &command,
        expected: "404 from the API server within 1.5 s",
    };
    let seen = match answered {
        Some(_) => format!("404 from the API server after {:.2} s", elapsed.as_secs_f32()),
        None => format!("no answer in {:.2} s", elapsed.as_secs_f32()),
    };
    report.judge(&step, &seen, answered.is_some() && elapsed <= HUNG_LIMIT);
    Ok(())
}

fn restarted(site: &mut Site, report: &mut Report) -> Result<()> {
    site.old.start_proxy()?;
    let answer = get_known(site, &site.old.url(NEW_API))?;
    let title = "restart it: it steers again";
    report.same(&Step { title, command: &answer.command, expected: "200" }, &answer.status);
    Ok(())
}

/// Until its next heartbeat the API server answers, so the first requests may still draw a 404.
fn continued(site: &Site, report: &mut Report) -> Result<()> {
    site.old.signal_proxy(Signal::SIGCONT)?;
    let started = Instant::now();
    let mut last = get(site, NEW_API)?;
    while last.status != "200" && started.elapsed() < CONTINUED_LIMIT {
        interrupt::sleep(Duration::from_millis(50))?;
        last = get(site, NEW_API)?;
    }
    let step = Step {
        title: "kill -CONT: it goes on, and steers again",
        command: &format!("kill -CONT {}; {}", site.old.proxy()?.pid(), last.command),
        expected: "200 within 2 s",
    };
    let seen = format!("{} after {:.2} s", last.status, started.elapsed().as_secs_f32());
    report.judge(&step, &seen, last.status == "200");
    Ok(())
}

fn get(site: &Site, path: &str) -> Result<Answer> {
    site.caller.get(&site.client, &[], &site.old.url(path))
}
