//! Keeps every measurement, and prints medians, spreads and ratios.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::cases::{Case, Load};
use super::contestant::Contestant;
use super::machine;
use super::round::Batch;
use super::site::Site;
use super::statistics::Spread;
use crate::workspace::Workspace;

/// One column of a table.
struct Column {
    /// Name of the metric.
    metric: &'static str,
    title: &'static str,
    /// Whether the ratio to the first row is shown beside it.
    compared: bool,
}

const fn column(metric: &'static str, title: &'static str, compared: bool) -> Column {
    Column { metric, title, compared }
}

const SATURATED: &[Column] = &[
    column("cpu_us", "CPU us/request", true),
    column("user_us", "user", false),
    column("sys_us", "system", false),
    column("per_second", "requests/s", false),
    column("rss_mb", "RSS MB", false),
    column("peak_mb", "peak MB", false),
];
const AT_A_RATE: &[Column] = &[
    column("p50_us", "p50 us", true),
    column("p90_us", "p90 us", false),
    column("p99_us", "p99 us", true),
    column("p999_us", "p99.9 us", false),
    column("cpu_us", "CPU us/request", true),
];
const WATCHES: &[Column] = &[
    column("kib_per_watch", "KiB/watch", true),
    column("kib_after_events", "KiB after events", false),
    column("cpu_us", "CPU us/event", true),
    column("event_ms", "ms to reach all", false),
    column("rss_mb", "RSS MB", false),
];
const CONNECTIONS: &[Column] = &[
    column("cpu_us", "CPU us/connection", true),
    column("p50_us", "p50 us", false),
    column("p99_us", "p99 us", false),
    column("resumed", "resumed", false),
];

/// Everything that was measured.
pub(crate) struct Report {
    machine: Value,
    cases: Vec<Measured>,
    raw: File,
    path: PathBuf,
}

/// What was measured of one case.
struct Measured {
    case: &'static Case,
    names: Vec<String>,
    /// Round, contestant, measurement.
    batches: Vec<(usize, String, Batch)>,
}

impl Report {
    /// An empty report, and a file in `target/bench` for every single measurement.
    pub(crate) fn begin(workspace: &Workspace, site: &Site) -> Result<Self> {
        let machine = machine::describe();
        let date = machine["date"].as_str().unwrap_or_default().replace([':', '+'], "-");
        let path = workspace.target.join("bench").join(format!("{date}.jsonl"));
        let mut raw = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        writeln!(raw, "{machine}")?;
        eprintln!("logs: {}, measurements: {}", site.folder.path().display(), path.display());
        Ok(Self { machine, cases: Vec::new(), raw, path })
    }

    /// What is added from now on is of this case.
    pub(crate) fn begin_case(&mut self, case: &'static Case, contestants: &[Contestant]) {
        let names = contestants.iter().map(|contestant| contestant.name.clone()).collect();
        self.cases.push(Measured { case, names, batches: Vec::new() });
    }

    /// Adds a measurement.
    pub(crate) fn add(&mut self, round: usize, name: &str, batch: Batch) -> Result<()> {
        let measured = self.cases.last_mut().context("a case has begun")?;
        writeln!(self.raw, "{}", raw(measured.case, round, name, &batch))?;
        measured.batches.push((round, name.to_owned(), batch));
        Ok(())
    }

    /// Prints the table of the latest case.
    pub(crate) fn print_case(&self) {
        if let Some(measured) = self.cases.last() {
            println!("\n{}", measured.table());
        }
    }

    /// Writes the report beside the measurements; prints it as JSON, or where it is.
    pub(crate) fn finish(self, as_json: bool) -> Result<()> {
        let cases: Vec<Value> = self.cases.iter().map(Measured::summary).collect();
        let report = json!({ "machine": self.machine, "cases": cases });
        let text = serde_json::to_string_pretty(&report)?;
        let file = self.path.with_extension("json");
        fs::write(&file, &text)?;
        if as_json {
            println!("{text}");
        } else {
            println!("\nreport: {}", file.display());
        }
        Ok(())
    }
}

/// One measurement as a line.
fn raw(case: &Case, round: usize, name: &str, batch: &Batch) -> Value {
    json!({
        "case": case.name, "round": round + 1, "contestant": name, "values": batch.values,
        "others": batch.foreign, "busy": batch.is_busy(), "failure": batch.failure,
    })
}

impl Measured {
    fn columns(&self) -> &'static [Column] {
        match self.case.load {
            Load::Requests(_) => SATURATED,
            Load::Paced { .. } => AT_A_RATE,
            Load::Watches { .. } => WATCHES,
            Load::Connections { .. } => CONNECTIONS,
        }
    }

    /// Values of a contestant in its rounds. Busy rounds count only where more than half of all are.
    fn values(&self, name: &str, metric: &str) -> Vec<(usize, f64)> {
        let of_name = |calm: bool| {
            let batches =
                self.batches.iter().filter(move |(_, of, batch)| of == name && !(calm && batch.is_busy()));
            batches
                .filter_map(|(round, _, batch)| Some((*round, *batch.values.get(metric)?)))
                .collect::<Vec<_>>()
        };
        if self.mostly_calm() { of_name(true) } else { of_name(false) }
    }

    fn mostly_calm(&self) -> bool {
        self.busy() * 2 < self.batches.len()
    }

    fn busy(&self) -> usize {
        self.batches.iter().filter(|(_, _, batch)| batch.is_busy()).count()
    }

    fn spread(&self, name: &str, metric: &str) -> Option<Spread> {
        let values: Vec<f64> = self.values(name, metric).into_iter().map(|(_, value)| value).collect();
        Spread::of(&values)
    }

    /// Round by round, to the first contestant.
    fn ratios(&self, name: &str, metric: &str) -> Option<Spread> {
        let base = self.values(self.names.first()?, metric);
        let in_round = |round: usize| base.iter().find(|(of, value)| *of == round && *value > 0.0);
        let values = self.values(name, metric);
        let ratios: Vec<f64> =
            values.iter().filter_map(|(round, value)| Some(value / in_round(*round)?.1)).collect();
        Spread::of(&ratios)
    }

    fn table(&self) -> String {
        let mut text = format!("{}: {}\n", self.case.name, self.case.about);
        let base = self.names.first().map_or("", String::as_str);
        let mut rows = vec![vec![String::new()]];
        for column in self.columns() {
            rows[0].push(column.title.to_owned());
            rows[0].extend(column.compared.then(|| format!("of {base}")));
        }
        for name in &self.names {
            let mut row = vec![name.clone()];
            for column in self.columns() {
                let range = |spread: Option<Spread>| spread.map_or_else(|| "-".to_owned(), shown);
                row.push(range(self.spread(name, column.metric)));
                row.extend(column.compared.then(|| range(self.ratios(name, column.metric))));
            }
            rows.push(row);
        }
        text.push_str(&aligned(&rows));
        let mut failures = BTreeMap::<_, usize>::new();
        for (_, name, batch) in &self.batches {
            if let Some(why) = &batch.failure {
                *failures.entry((name, why)).or_default() += 1;
            }
        }
        for ((name, why), count) in failures {
            let _ = writeln!(text, "failed {count} times: {name}: {why}");
        }
        let kept =
            if self.mostly_calm() { "left out of the medians" } else { "kept, there are too few others" };
        let (busy, all) = (self.busy(), self.batches.len());
        let _ = writeln!(text, "{busy} of {all} measurements on a busy machine, {kept}");
        text
    }

    fn summary(&self) -> Value {
        let spread = |spread: Option<Spread>| {
            spread.map(|s| json!({ "median": s.median, "min": s.least, "max": s.most }))
        };
        let contestants: Vec<Value> = self
            .names
            .iter()
            .map(|name| {
                let metrics: serde_json::Map<String, Value> = self
                    .columns()
                    .iter()
                    .map(|column| {
                        let value = spread(self.spread(name, column.metric));
                        let ratio = spread(self.ratios(name, column.metric));
                        (column.metric.to_owned(), json!({ "value": value, "ratio": ratio }))
                    })
                    .collect();
                json!({ "name": name, "metrics": metrics })
            })
            .collect();
        let batches: Vec<Value> =
            self.batches.iter().map(|(round, name, batch)| raw(self.case, *round, name, batch)).collect();
        json!({
            "case": self.case.name, "about": self.case.about, "contestants": contestants, "batches": batches,
            "busy": self.busy(), "busy_left_out": self.mostly_calm(),
        })
    }
}

/// Median and range, with as many digits as mean something.
fn shown(spread: Spread) -> String {
    let digits = if spread.median < 10.0 { 2 } else { usize::from(spread.median < 100.0) };
    let Spread { median, least, most } = spread;
    format!("{median:.digits$} ({least:.digits$}-{most:.digits$})")
}

/// The first column to the left, the others to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate();
        let cells =
            cells.map(
                |(column, (cell, width))| {
                    if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                },
            );
        cells.collect::<Vec<_>>().join("  ") + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::cases::chosen;
    use super::*;

    fn batch(cpu: f64, foreign: f64) -> Batch {
        Batch { values: [("cpu_us", cpu)].into(), foreign, failure: None }
    }

    #[test]
    fn ratios_are_taken_round_by_round_and_busy_rounds_left_out() {
        let case = chosen(&["get-1k".to_owned()]).unwrap()[0];
        let mut batches = Vec::new();
        for (round, (base, other, foreign)) in
            [(10.0, 5.0, 0.0), (20.0, 30.0, 0.0), (40.0, 20.0, 0.1), (1.0, 9.0, 0.9)].into_iter().enumerate()
        {
            batches.push((round, "a".to_owned(), batch(base, 0.0)));
            batches.push((round, "b".to_owned(), batch(other, foreign)));
        }
        let measured = Measured { case, names: vec!["a".to_owned(), "b".to_owned()], batches };
        let ratios = measured.ratios("b", "cpu_us").unwrap();
        assert_eq!(ratios, Spread { median: 0.5, least: 0.5, most: 1.5 });
        assert_eq!(measured.spread("b", "cpu_us").unwrap(), Spread { median: 20.0, least: 5.0, most: 30.0 });
        assert!(
            measured.table().contains("1 of 8 measurements on a busy machine, left out"),
            "{}",
            measured.table()
        );
    }
}
