//! Puts renewed certificates, keys and CAs into use without a restart and without dropping a connection.
//!
//! Source of the two ways to notice a change: kube-apiserver's `dynamiccertificates`, which watches the folder (a mounted
//! Secret is renewed by swapping a symbolic link in it) and looks again every minute all the same.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use rustls_pki_types::UnixTime;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::causes::chain;
use crate::config::Config;
use crate::credentials::{Credentials, Expiration};
use crate::tls::{TlsContext, TlsError};

/// Longest time that a change goes unnoticed where the folder says nothing of it: behind a link into another folder, or on
/// a file system without notifications.
const POLL: Duration = Duration::from_secs(10);
/// A certificate and its key are two files: time for whoever renews them to write both.
const SETTLE: Duration = Duration::from_millis(200);

/// What readers of metrics and readiness see of the credentials in use.
#[derive(Debug, Default)]
pub struct CredentialState {
    /// Why the files as they are now cannot all be used; what they held before is used instead.
    pub mistakes: Vec<String>,
    /// Until when each certificate in use is valid.
    pub expirations: Vec<Expiration>,
    /// Changes that were put into use.
    pub reloads: u64,
    /// Changes that could not be, or not wholly.
    pub failures: u64,
}

/// The only writer of the TLS context.
#[derive(Debug)]
pub struct Reloader {
    config: Config,
    credentials: Credentials,
    tls: Arc<ArcSwap<TlsContext>>,
    state: Arc<ArcSwap<CredentialState>>,
    doubts: Vec<String>,
}

impl Reloader {
    /// Makes the first context, and logs what is doubtful about it.
    ///
    /// # Errors
    /// When a CA bundle cannot serve its purpose.
    pub fn new(config: &Config, credentials: Credentials) -> Result<Self, TlsError> {
        let tls = TlsContext::new(&credentials, &config.serving_tls, UnixTime::now())?;
        let state = CredentialState { expirations: credentials.expirations(), ..CredentialState::default() };
        let mut reloader = Self {
            config: config.clone(),
            credentials,
            tls: Arc::new(ArcSwap::from_pointee(tls)),
            state: Arc::new(ArcSwap::from_pointee(state)),
            doubts: Vec::new(),
        };
        reloader.tell_doubts();
        Ok(reloader)
    }

    /// The context, now and whenever it changes.
    pub fn tls(&self) -> Arc<ArcSwap<TlsContext>> {
        Arc::clone(&self.tls)
    }

    /// What is known about the files.
    pub fn state(&self) -> Arc<ArcSwap<CredentialState>> {
        Arc::clone(&self.state)
    }

    /// Reloads whenever something changed, for as long as the process lives.
    pub async fn run(mut self) {
        let changed = Arc::new(Notify::new());
        let _watcher = watch(&self.folders(), &changed);
        loop {
            if timeout(self.pause(), changed.notified()).await.is_ok() {
                sleep(SETTLE).await;
            }
            self.reload();
        }
    }

    /// Until the next look: a CA that expires is no change of any file.
    fn pause(&self) -> Duration {
        let left = self.tls.load().valid_until.map(|until| until.as_secs().saturating_sub(now_secs()));
        left.map_or(POLL, |left| POLL.min(Duration::from_secs(left.max(1))))
    }

    fn reload(&mut self) {
        let (fresh, mistakes) = self.credentials.reload(&self.config);
        let mut mistakes: Vec<String> = mistakes.iter().map(|mistake| chain(mistake)).collect();
        let (now, tls) = (UnixTime::now(), self.tls.load_full());
        let changed = fresh.changes(&self.credentials);
        let is_due = !changed.is_empty() || tls.valid_until.is_some_and(|until| now >= until);
        let mut is_renewed = false;
        if is_due {
            match tls.next(&fresh, &self.config.serving_tls, now) {
                Ok(next) => {
                    self.tls.store(Arc::new(next));
                    self.credentials = fresh;
                    is_renewed = true;
                    info!(changed = changed.join(","), "renewed credentials are in use");
                }
                Err(error) => mistakes.push(chain(&error)),
            }
        }
        self.publish(is_renewed, mistakes);
        self.tell_doubts();
    }

    fn publish(&self, is_renewed: bool, mistakes: Vec<String>) {
        let former = self.state.load_full();
        let is_news = mistakes != former.mistakes;
        if !is_renewed && !is_news {
            return;
        }
        let is_failure = is_news && !mistakes.is_empty();
        if is_failure {
            for mistake in &mistakes {
                warn!("{mistake}; what was loaded before stays in use");
            }
        }
        self.state.store(Arc::new(CredentialState {
            mistakes,
            expirations: self.credentials.expirations(),
            reloads: former.reloads + u64::from(is_renewed),
            failures: former.failures + u64::from(is_failure),
        }));
    }

    fn tell_doubts(&mut self) {
        let doubts = self.credentials.doubts(&self.config);
        for doubt in doubts.iter().filter(|doubt| !self.doubts.contains(doubt)) {
            warn!("{doubt}");
        }
        self.doubts = doubts;
    }

    fn folders(&self) -> BTreeSet<PathBuf> {
        let files = self.config.credential_files();
        files.iter().filter_map(|file| file.parent()).map(Path::to_owned).collect()
    }
}

/// Tells `changed` of changes in folders, for as long as the result lives.
fn watch(folders: &BTreeSet<PathBuf>, changed: &Arc<Notify>) -> Option<RecommendedWatcher> {
    let notified = Arc::clone(changed);
    let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // Whoever reads the files, this process first of all, does not change them.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            notified.notify_one();
        }
    });
    let mut watcher = match watcher {
        Ok(watcher) => watcher,
        Err(error) => {
            warn!(%error, seconds = POLL.as_secs(), "changed certificates are noticed by looking again only");
            return None;
        }
    };
    for folder in folders {
        if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
            warn!(folder = %folder.display(), %error, "changes are noticed by looking again only");
        }
    }
    Some(watcher)
}

fn now_secs() -> u64 {
    UnixTime::now().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn writing_is_noticed_and_reading_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("ca.crt");
        std::fs::write(&file, "old").expect("written");
        let changed = Arc::new(Notify::new());
        let watcher = watch(&BTreeSet::from([folder.path().to_owned()]), &changed);
        assert!(watcher.is_some());
        assert_eq!(std::fs::read_to_string(&file).expect("read"), "old");
        let noticed = timeout(Duration::from_millis(300), changed.notified()).await;
        assert!(noticed.is_err(), "reading is no change");
        // As a mounted Secret is renewed, and as an editor writes.
        let fresh = folder.path().join("fresh");
        std::fs::write(&fresh, "new").expect("written");
        for change in [
            |from: &Path, to: &Path| std::fs::rename(from, to),
            |_: &Path, to: &Path| std::fs::write(to, "newer"),
        ] {
            while timeout(Duration::from_millis(300), changed.notified()).await.is_ok() {}
            change(&fresh, &file).expect("changed");
            timeout(Duration::from_secs(5), changed.notified()).await.expect("noticed");
        }
    }
}
