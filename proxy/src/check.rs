//! `mvproxy check`: says before and after installation whether the proxy would run here, and what to mend.
//!
//! Nothing is changed: kernel objects are loaded into a folder of their own that is removed again, and API servers are only
//! asked who the proxy is to them.

use std::fmt;
use std::io::{self, Write as _};

use serde::{Deserialize, Serialize};

use crate::causes::chain;
use crate::config::{CheckRequest, Config, ConfigError, Output};
use crate::credentials::Credentials;

mod node;
mod rights;
mod servers;
mod table;
mod wire;

pub use node::{CAPABILITIES, LANE_CAPABILITY};
pub use rights::RIGHTS;
pub use table::table;

/// How serious a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Pass,
    /// Could not be looked at, or does not matter with this configuration.
    Skip,
    /// It runs, but not with all it has.
    Warn,
    /// It does not run, or not rightly.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at, in one word.
    pub check: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// All findings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Whether `mvproxy run` with the same flags would do its work.
    pub would_run: bool,
    /// In the order in which they were looked at.
    pub findings: Vec<Finding>,
}

impl Finding {
    fn pass(check: &str, found: impl Into<String>) -> Self {
        Self { check: check.to_owned(), verdict: Verdict::Pass, found: found.into(), remedy: None }
    }

    fn skip(check: &str, found: impl Into<String>) -> Self {
        Self { verdict: Verdict::Skip, ..Self::pass(check, found) }
    }

    fn warn(check: &str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warn, remedy: Some(remedy.into()), ..Self::pass(check, found) }
    }

    fn fail(check: &str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fail, remedy: Some(remedy.into()), ..Self::pass(check, found) }
    }

    /// A failure whose text says what to do.
    fn error(check: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        Self { verdict: Verdict::Fail, ..Self::pass(check, chain(error)) }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pass => "pass",
            Self::Skip => "skip",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        })
    }
}

/// Looks at everything and prints it.
///
/// # Errors
/// When no runtime can be had, or the report cannot be written.
pub fn run(request: &CheckRequest) -> io::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let as_table = request.output == Output::Table;
    let mut out = io::stdout();
    let report = runtime.block_on(check(request, |finding| {
        if as_table {
            // A closed pipe, as from `mvproxy check | head`, is no failure.
            let _ = out.write_all(table(finding).as_bytes());
        }
    }));
    let text = match request.output {
        Output::Table if report.would_run => "\nmvproxy would run here.\n".to_owned(),
        Output::Table => "\nmvproxy would not run here, or not rightly: see FAIL.\n".to_owned(),
        Output::Json => serde_json::to_string_pretty(&report).map_err(io::Error::other)? + "\n",
        Output::Yaml => serde_saphyr::to_string(&report).map_err(io::Error::other)?,
    };
    let _ = out.write_all(text.as_bytes());
    Ok(report)
}

/// Looks at everything; each finding is handed to `tell` as soon as it is known.
pub async fn check(request: &CheckRequest, mut tell: impl FnMut(&Finding)) -> Report {
    let mut findings = Vec::new();
    let mut add = |more: Vec<Finding>| {
        more.iter().for_each(&mut tell);
        findings.extend(more);
    };
    let config = &*request.config;
    add(configuration(&request.mistakes));
    add(node::findings(config));
    let credentials = Credentials::load(config);
    add(files(config, &credentials));
    if let (Ok(credentials), true) = (&credentials, request.mistakes.is_empty()) {
        add(rights::findings(config, credentials).await);
        add(servers::findings(config, credentials).await);
    } else {
        add(vec![Finding::skip("servers", "not asked before configuration and certificates are mended")]);
    }
    Report { would_run: findings.iter().all(|finding| finding.verdict != Verdict::Fail), findings }
}

fn configuration(mistakes: &[ConfigError]) -> Vec<Finding> {
    if mistakes.is_empty() {
        return vec![Finding::pass("flags", "sound")];
    }
    mistakes.iter().map(|mistake| Finding::error("flags", mistake)).collect()
}

fn files(
    config: &Config,
    loaded: &Result<Credentials, Vec<crate::credentials::CredentialError>>,
) -> Vec<Finding> {
    let credentials = match loaded {
        Ok(credentials) => credentials,
        // A missing flag was reported as such; its empty file name is not another mistake.
        Err(mistakes) => {
            let named =
                mistakes.iter().filter(|it| it.file().is_none_or(|file| !file.as_os_str().is_empty()));
            return named.map(|mistake| Finding::error("certificates", mistake)).collect();
        }
    };
    let doubts = credentials.doubts(config);
    if doubts.is_empty() {
        return vec![Finding::pass("certificates", "all load, fit together and are valid")];
    }
    let warn = |doubt| Finding { verdict: Verdict::Warn, ..Finding::pass("certificates", doubt) };
    doubts.into_iter().map(warn).collect()
}
