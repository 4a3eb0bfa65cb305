//! Measures mvproxy beside haproxy and nginx: `cargo xtask bench`.

mod cases;
mod configs;
mod contestant;
mod h2load;
pub(crate) mod instructions;
mod machine;
mod place;
mod report;
mod round;
mod site;
mod statistics;
mod usage;

use anyhow::{Result, ensure};

use crate::prerequisites::{self, CURL, Program};
use crate::workspace::Workspace;

use self::cases::Case;
use self::contestant::Contestant;
use self::report::Report;
use self::site::Site;

/// What is measured, and how long.
#[derive(clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch on the command line")]
pub(crate) struct BenchArgs {
    /// Cases by name; all when none is given
    cases: Vec<String>,
    /// Times that each contestant is started and measured
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Three short rounds: shows that it works, and proves nothing
    #[arg(long)]
    quick: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Only contestants whose name begins with one of these
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    only: Vec<String>,
    /// Another mvproxy beside this one, such as the one before a change
    #[arg(long, value_name = "NAME=PATH", value_parser = contestant::parse_other)]
    compare: Vec<(String, std::path::PathBuf)>,
    /// Count the instructions of the proxy's own part of a request instead, and hold them against their budget
    #[arg(long)]
    instructions: bool,
    /// List the cases
    #[arg(long)]
    list: bool,
}

const HAPROXY: Program = Program { name: "haproxy", package: "haproxy" };
const NGINX: Program = Program { name: "nginx", package: "nginx-light" };
const H2LOAD: Program = Program { name: "h2load", package: "nghttp2-client" };

/// Runs the cases, prints the report, and leaves it with every single measurement in `target/bench`.
///
/// # Errors
/// When a program is missing or a case does not exist. A contestant that fails in one round is reported, not hidden.
pub(crate) fn run(workspace: &Workspace, args: &BenchArgs) -> Result<()> {
    if args.instructions {
        return instructions::check(workspace);
    }
    let cases = cases::chosen(&args.cases)?;
    if args.list {
        for case in cases {
            println!("{:<16} {}", case.name, case.about);
        }
        return Ok(());
    }
    prerequisites::ensure(&[HAPROXY, NGINX, H2LOAD, CURL])?;
    machine::raise_file_limit()?;
    let site = Site::prepare(workspace)?;
    let rounds = if args.quick { 3 } else { args.rounds };
    ensure!(rounds > 0, "--rounds=0 measures nothing");
    let mut report = Report::begin(workspace, &site)?;
    for case in cases {
        let contestants = Contestant::chosen(case, &site, args);
        ensure!(!contestants.is_empty(), "--only leaves nobody for {}", case.name);
        measure(&site, case, &contestants, rounds, args, &mut report)?;
    }
    report.finish(args.json)
}

/// A B C D, B C D A, …: whoever comes after whom changes from round to round.
fn measure(
    site: &Site,
    case: &'static Case,
    contestants: &[Contestant],
    rounds: usize,
    args: &BenchArgs,
    report: &mut Report,
) -> Result<()> {
    report.begin_case(case, contestants);
    for round in 0..rounds {
        for turn in 0..contestants.len() {
            let contestant = &contestants[(round + turn) % contestants.len()];
            let batch = round::measure(site, case, contestant, args.quick)?;
            eprintln!("{} {}/{rounds} {:<20} {}", case.name, round + 1, contestant.name, batch.brief());
            report.add(round, &contestant.name, batch)?;
        }
    }
    if !args.json {
        report.print_case();
    }
    Ok(())
}
