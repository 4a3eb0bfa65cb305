//! Runs named stages one after the other, stops at the first failure and prints what took how long.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::interrupt::{self, Interrupted};

/// The stages that ran so far.
pub(crate) struct Stages {
    done: Vec<(&'static str, Duration, Outcome)>,
    left_out: Vec<String>,
    failure: Option<anyhow::Error>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    NotRun,
}

impl Stages {
    /// No stage yet.
    pub(crate) fn new() -> Self {
        Self { done: Vec::new(), left_out: Vec::new(), failure: None }
    }

    /// Runs a stage, unless an earlier one failed.
    pub(crate) fn run(&mut self, name: &'static str, stage: impl FnOnce() -> Result<()>) {
        if self.failure.is_some() {
            self.done.push((name, Duration::ZERO, Outcome::NotRun));
            return;
        }
        println!("\n=== {name}");
        let started = Instant::now();
        let result = interrupt::check().and_then(|()| stage());
        let outcome = if result.is_ok() { Outcome::Passed } else { Outcome::Failed };
        self.done.push((name, started.elapsed(), outcome));
        if let Err(error) = result {
            println!("=== {name} failed: {error:#}");
            self.failure = Some(error);
        }
    }

    /// Notes something that could not be run here.
    pub(crate) fn leave_out(&mut self, what: impl Into<String>) {
        self.left_out.push(what.into());
    }

    /// Prints the summary; its last line is `N passed, N failed` and counts stages.
    ///
    /// # Errors
    /// When a stage failed.
    pub(crate) fn finish(self) -> Result<()> {
        println!();
        for (name, elapsed, outcome) in &self.done {
            println!("{:<34} {:>7.1} s  {}", name, elapsed.as_secs_f32(), outcome.text());
        }
        if !self.left_out.is_empty() {
            println!("\nLeft out:");
            for what in &self.left_out {
                println!("  - {what}");
            }
        }
        let count = |wanted| self.done.iter().filter(|(_, _, outcome)| *outcome == wanted).count();
        println!("\n{} passed, {} failed", count(Outcome::Passed), count(Outcome::Failed));
        match self.failure {
            None => Ok(()),
            Some(error) if error.is::<Interrupted>() => Err(error),
            // The stage has said why, and the summary has to stay the last thing that is read.
            Some(_) => Err(StageFailed.into()),
        }
    }
}

impl Outcome {
    fn text(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::NotRun => "not run",
        }
    }
}

/// The error of a run whose stages have already said what failed; nothing more is printed about it.
#[derive(Debug)]
pub(crate) struct StageFailed;

impl std::fmt::Display for StageFailed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a stage failed")
    }
}

impl std::error::Error for StageFailed {}
