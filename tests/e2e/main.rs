//! Puts mvproxy between real clients and real kube-apiservers: `cargo xtask e2e`.
//!
//! A program of its own and not a set of tests: it runs scenarios one after the other on control planes that take half a
//! minute to start, and leaves a report, `target/e2e/report.md`.

// Failures of a scenario are errors; these are of the harness itself.
#![allow(clippy::unwrap_used, reason = "modules shared with tests, where a panic is how a test fails")]

mod apiserver;
mod assets;
mod cgroup;
#[path = "../tests/cluster_support/mod.rs"]
mod cluster_support;
mod disturb;
mod etcd;
mod forwarder;
mod health;
mod identity;
mod lifecycle;
mod load;
mod matrix;
mod node;
mod report;
mod rest;
mod rights;
mod site;
mod skew;
mod upgrade;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;

use apiserver::{BuiltIn, Kind};
use assets::Assets;
use report::Report;
use site::{Plan, Site};

/// Runs mvproxy between real clients and real API servers.
#[derive(Parser)]
#[command(name = "e2e", disable_version_flag = true)]
struct Cli {
    /// Scenarios to run, by name; all without.
    only: Vec<String>,
    /// Folder of the report and of all logs.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/e2e"))]
    out: PathBuf,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("e2e: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<bool> {
    for asked in &cli.only {
        let names: Vec<_> = SCENARIOS.iter().map(|(name, _)| *name).collect();
        ensure!(names.contains(&asked.as_str()), "no scenario is called {asked}: {}", names.join(", "));
    }
    let assets = Assets::find()?;
    // Logs of the run before would be taken for this one's.
    let _ = std::fs::remove_dir_all(&cli.out);
    std::fs::create_dir_all(&cli.out).with_context(|| format!("cannot create {}", cli.out.display()))?;
    let mut report = Report::default();
    let begun = Instant::now();
    for (name, scenario) in SCENARIOS {
        if !cli.only.is_empty() && !cli.only.iter().any(|asked| asked == name) {
            report.left_out(name, "not asked for");
            continue;
        }
        let started = Instant::now();
        if let Err(error) = scenario(&assets, cli, &mut report) {
            report.begin(name, "A scenario that could not go on to its end.");
            report.broke_off(&format!("{error:#}"));
        }
        report.note(&format!("{name}: {:.0} s", started.elapsed().as_secs_f32()));
    }
    let head = format!("{:.0} s", begun.elapsed().as_secs_f32());
    let path = cli.out.join("report.md");
    report.write_to(&path, &head)?;
    let (checks, failed) = report.verdict();
    println!("{checks} checks, {} failed, report in {}", failed.len(), path.display());
    for failure in failed {
        println!("  FAILED {failure}");
    }
    ensure!(checks > 0, "nothing was checked");
    Ok(failed.is_empty())
}

type Scenario = fn(&Assets, &Cli, &mut Report) -> Result<()>;

/// Everything that runs on one control plane, by name.
const SCENARIOS: &[(&str, Scenario)] = &[
    ("quiet", quiet),
    ("skewed", skewed),
    ("built-in-on", built_in_on),
    ("built-in-mixed", built_in_mixed),
    ("three-nodes", three_nodes),
    ("on-skew", on_skew),
    ("disturbed", disturbed),
    ("upgrade", upgraded),
];

/// Without a proxy, then with one on each node.
fn quiet(assets: &Assets, cli: &Cli, report: &mut Report) -> Result<()> {
    let nodes = vec![(Kind::Old, BuiltIn::Off), (Kind::New, BuiltIn::Off)];
    let without = Plan { name: "quiet-without", nodes, steering: None };
    let site = Site::start(assets, &without, &cli.out)?;
    std::thread::sleep(health::WATCHED);
    let baseline = health::Baseline::of(&site)?;
    drop(site);
    let with = Plan { name: "quiet", steering: Some("always"), ..without };
    health::run(&Site::start(assets, &with, &cli.out)?, &baseline, report)
}

/// An old and a new server side by side.
fn skewed(assets: &Assets, cli: &Cli, report: &mut Report) -> Result<()> {
    let plan = Plan {
        name: "skewed",
        nodes: vec![(Kind::Old, BuiltIn::Off), (Kind::New, BuiltIn::Off)],
        steering: Some("always"),
    };
    let site = Site::start(assets, &plan, &cli.out)?;
    let peer_only = skew::peer_only(&site)?;
    skew::run(&site, &peer_only, report)?;
    identity::run(&site, &peer_only, report)?;
    lifecycle::run(&site, &peer_only, report)
}

/// Both servers have their own proxy, too.
fn built_in_on(assets: &Assets, cli: &Cli, report: &mut Report) -> Result<()> {
    let nodes = vec![(Kind::Old, BuiltIn::On), (Kind::New, BuiltIn::On)];
    combined(assets, cli, &Plan { name: "built-in-on", nodes, steering: Some("always") }, report)
}

/// Only the new server has its own proxy, as in an upgrade to 1.36.
fn built_in_mixed(assets: &Assets, cli: &Cli, report: &mut Report) -> Result<()> {
    let nodes = vec![(Kind::Old, BuiltIn::Off), (Kind::New, BuiltIn::On)];
    combined(assets, cli, &Plan { name: "built-in-mixed", nodes, steering: Some("always") }, report)
}

fn three_nodes(assets: &Assets, cli: &Cli, report: &mut Report) -> Result<()> {
    let nodes = vec![(Kind::Old, BuiltIn::Off), (Kind::New, BuiltIn::Off), (Kind::Old, BuiltIn::Off)];
    combined(assets, cli, &Plan { name: "three-nodes", nodes, steering: Some("always") }, report)
}

fn on_skew(assets: &Assets, cli: &Cli, report: &mut Report) -> Result<()> {
    let nodes = vec![(Kind::Old, BuiltIn::Off), (Kind::New, BuiltIn::Off)];
    combined(assets, cli, &Plan { name: "on-skew", nodes, steering: Some("on-skew") }, report)?;
    let nodes = vec![(Kind::Old, BuiltIn::Off), (Kind::Old, BuiltIn::Off)];
    let plan = Plan { name: "from-rest-to-rest", nodes, steering: Some("on-skew") };
    rest::run(&mut Site::start(assets, &plan, &cli.out)?, report)
}

fn combined(assets: &Assets, cli: &Cli, plan: &Plan, report: &mut Report) -> Result<()> {
    matrix::run(&Site::start(assets, plan, &cli.out)?, plan.name, report)
}

/// Programs die, hang and come back.
fn disturbed(assets: &Assets, cli: &Cli, report: &mut Report) -> Result<()> {
    let nodes = vec![(Kind::Old, BuiltIn::Off), (Kind::New, BuiltIn::Off)];
    let plan = Plan { name: "disturbed", nodes, steering: Some("always") };
    disturb::run(&mut Site::start(assets, &plan, &cli.out)?, report)
}

/// Two old servers that become new ones.
fn upgraded(assets: &Assets, cli: &Cli, report: &mut Report) -> Result<()> {
    let plan = Plan {
        name: "upgrade",
        nodes: vec![(Kind::Old, BuiltIn::Off), (Kind::Old, BuiltIn::Off)],
        steering: Some("always"),
    };
    let mut site = Site::start(assets, &plan, &cli.out)?;
    upgrade::run(&mut site, skew::PEER_ONLY, report)
}
