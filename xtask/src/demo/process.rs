//! Starts a program in the background, keeps what it prints, and ends it with the demo.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::place::{Place, command_of};
use crate::prerequisites::find_program;
use crate::{command, interrupt};

/// A program in the background.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// Where in the log this run begins; earlier lines are of earlier runs.
    log_start: u64,
}

/// What to start and where.
pub(crate) struct Launch<'a> {
    /// Name for messages.
    pub(crate) name: String,
    /// The program.
    pub(crate) program: &'a Path,
    /// Its arguments.
    pub(crate) arguments: Vec<String>,
    /// Its network namespace.
    pub(crate) place: &'a Place,
    /// Its cgroup2 folder, when it has one of its own.
    pub(crate) cgroup: Option<&'a Path>,
    /// File that its output is appended to.
    pub(crate) log: PathBuf,
}

impl Launch<'_> {
    /// Starts it.
    pub(crate) fn start(self) -> Result<Process> {
        let log = append_to(&self.log)?;
        let log_start = log.metadata()?.len();
        let mut command = command_of(&self.words());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot start {}", self.name))?;
        Ok(Process { name: self.name, child, log: self.log, log_start })
    }

    /// Every wrapper replaces itself by the next, so the process id is the program's.
    fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if find_program("setpriv").is_some() {
            // Ends the program when xtask is killed and cannot do it.
            words.extend(["setpriv", "--pdeathsig", "KILL"].map(str::to_owned));
        }
        if let Some(cgroup) = self.cgroup {
            let procs = cgroup.join("cgroup.procs").to_string_lossy().into_owned();
            let join = r#"echo $$ > "$0" && exec "$@""#.to_owned();
            words.extend(["sh".to_owned(), "-c".to_owned(), join, procs]);
        }
        words.extend(self.place.prefix());
        words.push(self.program.to_string_lossy().into_owned());
        words.extend(self.arguments.iter().cloned());
        words
    }
}

impl Process {
    /// Process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What this run has printed so far.
    pub(crate) fn output(&self) -> Result<String> {
        let bytes = fs::read(&self.log).with_context(|| format!("cannot read {}", self.log.display()))?;
        let start = usize::try_from(self.log_start)?.min(bytes.len());
        Ok(String::from_utf8_lossy(&bytes[start..]).into_owned())
    }

    /// Waits until `ready` says so.
    ///
    /// # Errors
    /// When the program ends, or is not ready within `limit`; the message names its log.
    pub(crate) fn wait_until(
        &mut self,
        what: &str,
        limit: Duration,
        mut ready: impl FnMut(&Self) -> Result<bool>,
    ) -> Result<()> {
        let started = Instant::now();
        let answer = interrupt::poll(limit, || {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended ({status}) before it was {what}; {}", self.name, self.last_words());
            }
            Ok(ready(self)?.then_some(()))
        })?;
        if answer.is_none() {
            let seconds = started.elapsed().as_secs();
            bail!("{} was not {what} within {seconds} s; {}", self.name, self.last_words());
        }
        Ok(())
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.pid().cast_signed());
        kill(pid, signal).with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// Sends SIGKILL and waits until the process is gone.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.child.wait().with_context(|| format!("cannot wait for {}", self.name))?;
        Ok(())
    }

    fn last_words(&self) -> String {
        let output = self.output().unwrap_or_default();
        let last = output.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it printed nothing");
        format!("log: {}, last line: {last}", self.log.display())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // A stopped process takes SIGTERM only once it continues.
            let _ = self.signal(Signal::SIGCONT);
            command::end(&mut self.child);
        }
    }
}

fn append_to(path: &Path) -> Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, log: &Path) -> Process {
        Launch {
            name: "test".to_owned(),
            program: Path::new("sh"),
            arguments: vec!["-c".to_owned(), script.to_owned()],
            place: &Place::Here,
            cgroup: None,
            log: log.to_owned(),
        }
        .start()
        .unwrap()
    }

    fn log(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("mvproxy-xtask-{}-{name}.log", std::process::id()))
    }

    #[test]
    fn dropped_process_is_gone_even_when_it_was_stopped() {
        let path = log("stopped");
        let mut process = shell("echo ready; exec sleep 60", &path);
        let limit = Duration::from_secs(10);
        process.wait_until("ready", limit, |p| Ok(p.output()?.contains("ready"))).unwrap();
        process.signal(Signal::SIGSTOP).unwrap();
        let pid = process.pid();
        drop(process);
        assert!(!Path::new("/proc").join(pid.to_string()).exists());
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn waiting_for_a_process_that_ends_fails_with_its_last_words() {
        let path = log("ended");
        let mut process = shell("echo because; exit 3", &path);
        let error = process.wait_until("ready", Duration::from_secs(10), |_| Ok(false)).unwrap_err();
        assert!(error.to_string().contains("last line: because"), "{error}");
        fs::remove_file(path).unwrap();
    }
}
