//! Counts the instructions that the proxy's own part of a request takes, and holds them against a budget.
//!
//! Time is noise where others use the same machine; callgrind's counts are the same in each run. They are of an unoptimised
//! build, which costs no other build than that of the tests: they tell that something was added, not what a request costs.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::command::{self, capture};
use crate::prerequisites::{self, Program};
use crate::workspace::Workspace;

/// valgrind, of which callgrind is a part.
pub(crate) const VALGRIND: Program = Program { name: "valgrind", package: "valgrind" };

/// Parts of `proxy/benches/hot_path.rs`, and the instructions that one request may take there. Whoever makes one dearer on
/// purpose raises its budget; whoever makes it cheaper lowers it.
const BUDGETS: [(&str, u64); 5] =
    [("classify", 9_000), ("route", 13_200), ("headers", 56_200), ("account", 2_300), ("response", 18_700)];
/// Requests in one count.
const TIMES: u64 = 200;
/// valgrind takes a second or two.
const LIMIT: Duration = Duration::from_mins(2);

/// Counts and compares.
///
/// # Errors
/// When a part takes more than its budget, or nothing can be counted.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    prerequisites::ensure(&[VALGRIND])?;
    let program = build(workspace)?;
    let mut over = Vec::new();
    for (part, budget) in BUDGETS {
        let count = count(&program, part)? / TIMES;
        println!("{part:<10} {count:>8} instructions, budget {budget}");
        if count > budget {
            over.push(part);
        }
    }
    if over.is_empty() { Ok(()) } else { bail!("over budget: {}", over.join(", ")) }
}

/// Builds the benchmark as the tests are built; cargo says where it is.
fn build(workspace: &Workspace) -> Result<PathBuf> {
    let arguments = ["build", "-p", "mvproxy", "--bench", "hot_path"];
    command::stream(&mut workspace.cargo(&arguments))?;
    let mut again = workspace.cargo(&arguments);
    let said = capture(again.arg("--message-format=json"), LIMIT)?.success("cargo build")?;
    let executable = said.lines().rev().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == "hot_path")
            .then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    executable.context("cargo names no executable of the benchmark")
}

fn count(program: &PathBuf, part: &str) -> Result<u64> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    // Only from the beginning of that function to its end.
    valgrind.arg(format!("--toggle-collect=hot_path::{part}_one*"));
    valgrind.arg(program).args(["--repeat", part, &TIMES.to_string()]);
    let ran = capture(&mut valgrind, LIMIT)?;
    anyhow::ensure!(ran.status.success(), "callgrind failed ({}): {}", ran.status, ran.stderr.trim());
    let count = collected(&ran.stderr).filter(|count| *count > 0);
    count.with_context(|| format!("callgrind saw no call of {part}_one: {}", ran.stderr.trim()))
}

fn collected(said: &str) -> Option<u64> {
    said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_callgrind_is_understood() {
        let said = "==7101== Events    : Ir\n==7101== Collected : 12848000\n==7101== \n";
        assert_eq!(collected(said), Some(12_848_000));
        assert_eq!(collected("valgrind: No such file"), None);
    }
}
