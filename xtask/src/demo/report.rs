//! Prints the demo's steps: what is done, what is expected, what is seen.

use std::path::PathBuf;
use std::time::Duration;

/// Counts and prints steps.
pub(crate) struct Report {
    logs: PathBuf,
    steps: usize,
    differing: usize,
}

/// One step before it is judged.
pub(crate) struct Step<'a> {
    /// What is done, in a few words.
    pub(crate) title: &'a str,
    /// The command, as one could type it.
    pub(crate) command: &'a str,
    /// What has to be seen.
    pub(crate) expected: &'a str,
}

impl Report {
    /// A report whose steps leave their logs in `logs`.
    pub(crate) fn new(logs: PathBuf) -> Self {
        Self { logs, steps: 0, differing: 0 }
    }

    /// A heading over the following steps.
    pub(crate) fn section(title: &str) {
        println!("\n{title}");
    }

    /// A step whose seen text must equal the expected one.
    pub(crate) fn same(&mut self, step: &Step<'_>, seen: &str) {
        self.judge(step, seen, step.expected == seen);
    }

    /// A step that is right when `ok`.
    pub(crate) fn judge(&mut self, step: &Step<'_>, seen: &str, ok: bool) {
        self.steps += 1;
        println!("\n{:>3}  {}", self.steps, step.title);
        println!("     {}", step.command);
        println!("       expected  {}", step.expected);
        println!("       seen      {seen}");
        println!("       {}", if ok { "ok" } else { "DIFFERS" });
        if !ok {
            self.differing += 1;
            println!("       look at   {}/*.log", self.logs.display());
        }
    }

    /// Steps so far.
    pub(crate) fn steps(&self) -> usize {
        self.steps
    }

    /// Steps that were not as expected.
    pub(crate) fn differing(&self) -> usize {
        self.differing
    }

    /// The last lines: the sum, what was left out, and what to do next.
    pub(crate) fn summarize(&self, elapsed: Duration, left_out: &[&str]) {
        let right = self.steps - self.differing;
        println!("\n{right} of {} steps as expected, in {} s.", self.steps, elapsed.as_secs());
        println!("Logs: {}", self.logs.display());
        if !left_out.is_empty() {
            println!("\nLeft out without steering, which needs root (sudo cargo xtask demo shows it):");
            for line in left_out {
                println!("  - {line}");
            }
        }
        println!("\nNext:");
        println!("  cargo xtask demo --hold   the same, and the nodes stay up for you to try things");
        println!("  cargo xtask test          everything that has to pass before a merge");
        println!("  README.md                 how to run mvproxy on a kubeadm node");
    }
}
