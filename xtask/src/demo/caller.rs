//! Sends requests the way a user would, with curl and kubectl, and keeps the command for the report.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::place::Place;
use super::process::{Launch, Process};
use crate::command::{self, Captured};
use crate::prerequisites::find_program;

/// curl and kubectl with the credentials of the demo's cluster.
pub(crate) struct Caller {
    kubectl: PathBuf,
    curl: PathBuf,
    folder: PathBuf,
    kubeconfig: PathBuf,
    caches: AtomicU32,
}

/// An answer to an HTTP request.
pub(crate) struct Answer {
    /// The command that drew it.
    pub(crate) command: String,
    /// HTTP status; `000` when there was none.
    pub(crate) status: String,
    /// Body, or curl's own message when there was no status.
    pub(crate) body: String,
}

/// Longest wait for one kubectl command.
const KUBECTL_LIMIT: Duration = Duration::from_secs(30);

impl Caller {
    /// Writes the settings of both programs to `folder`.
    ///
    /// curl is alice of the `dev` and `ops` groups, kubectl is kubernetes-admin.
    pub(crate) fn set_up(kubectl: PathBuf, folder: &Path, pki: &Path, admin_conf: &str) -> Result<Self> {
        let curl = find_program("curl").context("curl not found")?;
        let file = |name: &str| pki.join(name).display().to_string();
        let settings = format!(
            "silent\nshow-error\nnoproxy = \"*\"\nconnect-timeout = 5\nmax-time = 10\n\
             write-out = \"\\n%{{http_code}}\\n\"\ncacert = \"{}\"\ncert = \"{}\"\nkey = \"{}\"\n",
            file("ca.crt"),
            file("alice.crt"),
            file("alice.key"),
        );
        fs::write(folder.join("alice.curl"), settings)?;
        let kubeconfig = folder.join("admin.conf");
        fs::write(&kubeconfig, admin_conf)?;
        Ok(Self { kubectl, curl, folder: folder.to_owned(), kubeconfig, caches: AtomicU32::new(0) })
    }

    /// Sends a GET with curl from `place`.
    pub(crate) fn get(&self, place: &Place, options: &[&str], url: &str) -> Result<Answer> {
        let mut curl = place.command(&self.curl);
        curl.arg("-K").arg(self.folder.join("alice.curl")).args(options).arg(url);
        let output = command::capture(&mut curl, Duration::from_secs(20))?;
        let (body, status) = output.stdout.trim_end().rsplit_once('\n').unwrap_or(("", "000"));
        let body = if status == "000" { output.stderr.trim() } else { body };
        let words: Vec<_> = options.iter().copied().chain([url]).collect();
        Ok(Answer {
            command: format!("{}$ curl -K alice.curl {}", prompt(place), words.join(" ")),
            status: status.to_owned(),
            body: body.to_owned(),
        })
    }

    /// Runs kubectl from `place`.
    pub(crate) fn kubectl(&self, place: &Place, arguments: &[&str]) -> Result<Captured> {
        let mut kubectl = place.command(&self.kubectl);
        self.configure(&mut kubectl);
        command::capture(kubectl.args(arguments), KUBECTL_LIMIT)
    }

    /// Starts kubectl in the background; what it prints is in the log.
    pub(crate) fn start_kubectl(&self, place: &Place, arguments: &[&str], log: PathBuf) -> Result<Process> {
        let mut words = vec![format!("--kubeconfig={}", self.kubeconfig.display())];
        words.push(format!("--cache-dir={}", self.fresh_cache().display()));
        words.extend(arguments.iter().map(|word| (*word).to_owned()));
        let program = &self.kubectl;
        Launch { name: "kubectl".to_owned(), program, arguments: words, place, cgroup: None, log }.start()
    }

    /// The kubectl command as one could type it.
    pub(crate) fn kubectl_text(place: &Place, arguments: &[&str]) -> String {
        let mut command = Command::new("kubectl");
        format!("{}$ {}", prompt(place), command::text_of(command.args(arguments)))
    }

    /// The variables that a user needs for the same commands.
    pub(crate) fn exports(&self) -> String {
        format!("cd {}; export KUBECONFIG={}", self.folder.display(), self.kubeconfig.display())
    }

    fn configure(&self, kubectl: &mut Command) {
        kubectl.current_dir(&self.folder).env("HOME", &self.folder);
        kubectl.arg("--kubeconfig").arg(&self.kubeconfig);
        kubectl.arg("--cache-dir").arg(self.fresh_cache());
    }

    /// A new discovery cache for every command: kubectl would trust an old one for hours.
    fn fresh_cache(&self) -> PathBuf {
        let number = self.caches.fetch_add(1, Ordering::Relaxed);
        self.folder.join(format!("kubectl-cache-{number}"))
    }
}

/// Name of a place in front of a command.
pub(crate) fn prompt(place: &Place) -> &str {
    match place {
        Place::Here => "",
        Place::Namespace(name) => name.rsplit('-').next().unwrap_or(name),
    }
}
