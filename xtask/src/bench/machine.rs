//! Describes the machine, and how busy others keep it.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::TimeValLike as _;
use serde_json::{Value, json};

use super::statistics::ratio;
use super::usage::Usage;
use crate::command::capture;

/// A round is marked as busy when others had more than this share of all CPUs. Fixed before any run.
pub(crate) const BUSY: f64 = 0.25;

/// CPU time of the whole machine, and what of it is the benchmark's own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ledger {
    used: u64,
    all: u64,
    own: Duration,
}

impl Ledger {
    /// Until now; `living` are processes of the benchmark that have not ended.
    pub(crate) fn open(living: &[u32]) -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let first = stat.lines().next().unwrap_or_default();
        let ticks: Vec<u64> =
            first.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal; guests are in user already.
        let at = |index: usize| ticks.get(index).copied().unwrap_or(0);
        let idle = at(3) + at(4);
        let all: u64 = (0..8).map(at).sum();
        let mut own = Usage::of(living)?.total;
        for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
            let usage = getrusage(who)?;
            for time in [usage.user_time(), usage.system_time()] {
                own += Duration::from_micros(time.num_microseconds().unsigned_abs());
            }
        }
        Ok(Self { used: all - idle, all, own })
    }

    /// Share of the machine that others used since an earlier moment.
    pub(crate) fn foreign_share_since(&self, earlier: &Self) -> f64 {
        let own = u64::try_from((self.own.saturating_sub(earlier.own)).as_millis() / 10).unwrap_or(u64::MAX);
        ratio((self.used - earlier.used).saturating_sub(own), self.all - earlier.all)
    }
}

/// Takes as many files as are allowed: a watch may cost a proxy two.
pub(crate) fn raise_file_limit() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}

/// What the figures were measured on.
pub(crate) fn describe() -> Value {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let first_line = |program: &str, argument: &str| {
        let ran = capture(Command::new(program).arg(argument), Duration::from_secs(10));
        // nginx says it on stderr.
        ran.map_or_else(|_| String::new(), |ran| format!("{}{}", ran.stdout, ran.stderr))
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    json!({
        "date": first_line("date", "-uIminutes"),
        "cpu": model.trim_start_matches(['\t', ' ', ':']),
        "cpus": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "haproxy": first_line("haproxy", "-v"),
        "nginx": first_line("nginx", "-v"),
        "h2load": first_line("h2load", "--version"),
    })
}
