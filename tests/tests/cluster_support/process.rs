//! Runs a program under test inside a network namespace, its log in a file.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mvproxy_tests::netns::Netns;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A program that is told to stop is gone within this time.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// A running program, killed on drop.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program in a namespace. Call it within [`Netns::run`] of the same namespace where mounts matter.
    pub fn start(netns: &Netns, program: &Path, arguments: &[String], log: &Path) -> Self {
        netns.run(|| Self::start_here(program, arguments, log))
    }

    /// Starts a program where the calling thread is.
    pub fn start_here(program: &Path, arguments: &[String], log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).unwrap();
        let child = Command::new(program)
            .args(arguments)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()));
        Self { child, log: log.to_owned() }
    }

    /// Waits for the one line that a stand-in prints when it is ready.
    pub fn serving(mut self) -> Self {
        let stdout = self.child.stdout.take().expect("stdout is piped");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        assert!(line.starts_with("serving on "), "it said {line:?}: {}", self.last_lines());
        self
    }

    /// Stops it as the kubelet does: SIGTERM, then wait until it is gone.
    pub fn terminate(mut self) {
        self.signal(Signal::SIGTERM);
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "it ended with {status}: {}", self.last_lines());
                return;
            }
            assert!(begun.elapsed() < STOP_LIMIT, "it does not stop: {}", self.last_lines());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stops it as the kubelet does where that takes longer than `grace`: SIGTERM, then SIGKILL. How long it took.
    pub fn stop(mut self, grace: Duration) -> Duration {
        self.signal(Signal::SIGTERM);
        let begun = Instant::now();
        while begun.elapsed() < grace && self.child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let took = begun.elapsed();
        self.kill();
        took
    }

    /// Stops it as a crash does.
    pub fn kill(mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// The end of its log.
    pub fn last_lines(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        format!("{}:\n{}", self.log.display(), lines[lines.len().saturating_sub(20)..].join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
