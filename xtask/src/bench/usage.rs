//! Reads what processes have used: CPU time to the nanosecond, threads that have ended included, and memory.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::time::TimeValLike as _;
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

/// CPU time of some processes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// User and system.
    pub(crate) total: Duration,
    /// Ticks of 10 ms in user mode and in the kernel: they tell the share of each, not more.
    ticks: (u64, u64),
}

impl Usage {
    /// Of these processes until now.
    pub(crate) fn of(pids: &[u32]) -> Result<Self> {
        let mut sum = Self::default();
        for pid in pids {
            let clock =
                clock_getcpuclockid(Pid::from_raw(pid.cast_signed())).context("a process has ended")?;
            sum.total += Duration::from_nanos(clock.now()?.num_nanoseconds().unsigned_abs());
            let (user, system) = ticks(*pid)?;
            sum.ticks.0 += user;
            sum.ticks.1 += system;
        }
        Ok(sum)
    }

    /// What was used after an earlier moment.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            total: self.total.saturating_sub(earlier.total),
            ticks: (self.ticks.0 - earlier.ticks.0, self.ticks.1 - earlier.ticks.1),
        }
    }

    /// Share of the time that was spent in the kernel.
    pub(crate) fn system_share(&self) -> f64 {
        let (user, system) = self.ticks;
        super::statistics::ratio(system, user + system)
    }
}

fn ticks(pid: u32) -> Result<(u64, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may have spaces; fields are counted from behind it.
    let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat")?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut next = || Ok::<_, anyhow::Error>(fields.next().context("/proc/PID/stat is short")?.parse()?);
    Ok((next()?, next()?))
}

/// A process and the processes that it started.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|child| child.parse().ok());
    std::iter::once(pid).chain(children.flat_map(family)).collect()
}

/// Resident memory of some processes in KiB: now, and at most.
pub(crate) fn memory(pids: &[u32]) -> Result<(u64, u64)> {
    let mut sum = (0, 0);
    for pid in pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        sum.0 += field("VmRSS:");
        sum.1 += field("VmHWM:");
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn work_shows_in_the_cpu_time_of_this_process() {
        let own = [std::process::id()];
        let before = Usage::of(&own).unwrap();
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(50) {}
        let used = Usage::of(&own).unwrap().since(&before);
        // Other tests run in this process, and other processes on this machine.
        assert!(used.total > Duration::from_millis(5), "{used:?}");
        assert!(memory(&own).unwrap().0 > 100);
    }
}
