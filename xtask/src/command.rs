//! Runs other programs: shown, bounded, and stopped when a signal arrives.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::interrupt;

/// What a program printed and how it ended.
pub(crate) struct Captured {
    /// Exit status.
    pub(crate) status: ExitStatus,
    /// Standard output as text.
    pub(crate) stdout: String,
    /// Standard error as text.
    pub(crate) stderr: String,
}

impl Captured {
    /// Standard output of a program that succeeded.
    pub(crate) fn success(self, what: &str) -> Result<String> {
        if self.status.success() {
            return Ok(self.stdout);
        }
        bail!("{what} failed ({}): {}", self.status, self.stderr.trim());
    }
}

/// Runs a program whose output goes to the terminal; it may take as long as it needs.
pub(crate) fn stream(command: &mut Command) -> Result<()> {
    let text = text_of(command);
    eprintln!("$ {text}");
    let child = command.stdin(Stdio::null()).spawn().with_context(|| format!("cannot start `{text}`"))?;
    let status = wait(child, &text, None, false)?;
    if status.success() { Ok(()) } else { bail!("`{text}` failed ({status})") }
}

/// Runs a program quietly and returns what it printed; it is killed after `limit`.
pub(crate) fn capture(command: &mut Command, limit: Duration) -> Result<Captured> {
    let text = text_of(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{text}`"))?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let status = wait(child, &text, Some(limit), true)?;
    Ok(Captured { status, stdout: join(stdout)?, stderr: join(stderr)? })
}

/// Runs a program quietly and fails unless it succeeds within ten seconds.
pub(crate) fn quiet(command: &mut Command) -> Result<String> {
    let text = text_of(command);
    capture(command, Duration::from_secs(10))?.success(&format!("`{text}`"))
}

/// The command as one would type it.
pub(crate) fn text_of(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    let program = program.rsplit('/').next().unwrap_or_default().to_owned();
    let words = command.get_args().map(|word| quoted(&word.to_string_lossy()));
    [program].into_iter().chain(words).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=/.,:@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn wait(mut child: Child, text: &str, limit: Option<Duration>, report_progress: bool) -> Result<ExitStatus> {
    let started = Instant::now();
    let mut next_report = Duration::from_secs(2);
    loop {
        if let Some(status) = child.try_wait().with_context(|| format!("cannot wait for `{text}`"))? {
            return Ok(status);
        }
        let elapsed = started.elapsed();
        let too_late = limit.is_some_and(|limit| elapsed > limit);
        let interrupted = interrupt::check();
        if too_late || interrupted.is_err() {
            end(&mut child);
            interrupted?;
            bail!("`{text}` did not end within {} s", elapsed.as_secs());
        }
        if report_progress && elapsed >= next_report {
            eprintln!("  … {text} ({} s)", elapsed.as_secs());
            next_report += Duration::from_secs(10);
        }
        thread::sleep(interrupt::TICK);
    }
}

/// Ends a program: politely, and after a second with force.
pub(crate) fn end(child: &mut Child) {
    let pid = Pid::from_raw(child.id().cast_signed());
    // An error here means that the program has ended by itself, which the waits below notice.
    let _ = kill(pid, Signal::SIGTERM);
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(1) {
        if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
            return;
        }
        thread::sleep(interrupt::TICK);
    }
    let _ = child.kill();
    let _ = child.wait();
}

fn collect<R: Read + Send + 'static>(stream: Option<R>) -> JoinHandle<std::io::Result<Vec<u8>>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            stream.read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    })
}

fn join(reader: JoinHandle<std::io::Result<Vec<u8>>>) -> Result<String> {
    let bytes = reader.join().map_err(|_| anyhow::anyhow!("a reader thread panicked"))??;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
