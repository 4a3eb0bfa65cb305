//! Writes down what was expected and what was seen.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;

/// The report of one run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    text: String,
    failed: Vec<String>,
    checks: usize,
    scenario: String,
}

impl Report {
    /// What follows belongs to this scenario.
    pub(crate) fn begin(&mut self, scenario: &str, what: &str) {
        println!("== {scenario}: {what}");
        scenario.clone_into(&mut self.scenario);
        let _ = write!(
            self.text,
            "\n## {scenario}\n\n{what}\n\n| check | expected | seen | |\n|---|---|---|---|\n"
        );
    }

    /// One line: what should be and what is.
    pub(crate) fn equal(&mut self, check: &str, expected: &str, seen: &str) {
        self.check(check, expected, seen, expected == seen);
    }

    /// One line whose author decides whether it is right.
    pub(crate) fn check(&mut self, check: &str, expected: &str, seen: &str, holds: bool) {
        self.checks += 1;
        let verdict = if holds { "ok" } else { "FAILED" };
        let _ = writeln!(self.text, "| {} | {} | {} | {verdict} |", cell(check), cell(expected), cell(seen));
        if !holds {
            println!("   FAILED {check}\n     expected {expected}\n     seen     {seen}");
            self.failed.push(format!("{}: {check}", self.scenario));
        }
    }

    /// Text between the tables.
    pub(crate) fn note(&mut self, text: &str) {
        println!("   {text}");
        let _ = write!(self.text, "\n```\n{text}\n```\n");
    }

    /// A scenario could not go on.
    pub(crate) fn broke_off(&mut self, why: &str) {
        self.check("goes on to its end", "yes", why, false);
    }

    /// A scenario was left out.
    pub(crate) fn left_out(&mut self, scenario: &str, why: &str) {
        println!("== {scenario}: left out: {why}");
        let _ = write!(self.text, "\n## {scenario}\n\nLeft out: {why}\n");
    }

    /// Number of checks, and those that failed.
    pub(crate) fn verdict(&self) -> (usize, &[String]) {
        (self.checks, &self.failed)
    }

    /// Writes it all.
    pub(crate) fn write_to(&self, path: &Path, head: &str) -> Result<()> {
        let verdict = format!("{} checks, {} failed", self.checks, self.failed.len());
        std::fs::write(path, format!("# End to end\n\n{head}\n\n{verdict}\n{}", self.text))?;
        Ok(())
    }
}

/// Text that does not end a cell of a table.
fn cell(text: &str) -> String {
    let text: String = text.chars().take(600).collect();
    text.replace('|', "\\|").replace('\n', "<br>")
}
