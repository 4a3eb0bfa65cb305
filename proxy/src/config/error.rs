//! Says what is wrong with a configuration: the flag, the value or file, and the remedy.

use std::io;
use std::path::PathBuf;

use kube::config::{InClusterError, KubeconfigError};
use thiserror::Error;

use super::origin::Flag;

/// One mistake in the configuration.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The command line has a flag or word that `mvproxy run` does not know.
    #[error("{word}: unknown{}; `mvproxy run --help` lists all flags", meant("--", .nearest.as_ref()))]
    UnknownFlag {
        /// As it was written.
        word: String,
        /// The flag that was probably meant, without dashes.
        nearest: Option<String>,
    },
    /// A flag of `mvproxy run` stands before `run`, or without it.
    #[error("{flag}: belongs behind the command: mvproxy run {flag}=VALUE")]
    Misplaced {
        /// The flag, with dashes.
        flag: String,
    },
    /// A flag stands without the value it needs.
    #[error("{flag}: needs a value; write {flag}=VALUE")]
    ValueMissing {
        /// The flag, with dashes.
        flag: String,
    },
    /// The command line cannot be understood for another reason.
    #[error("{summary}; see `mvproxy --help`")]
    Usage {
        /// What the command-line parser says, as one line.
        summary: String,
    },
    /// The `--config` file has a key that is no flag.
    #[error("--config: {}: unknown key {key:?}{}", .file.display(), meant("", .nearest.as_ref()))]
    UnknownKey {
        /// The `--config` file.
        file: PathBuf,
        /// As it was written.
        key: String,
        /// The key that was probably meant.
        nearest: Option<String>,
    },
    /// A flag without default is given nowhere.
    #[error("{flag}: required but not given; {remedy}")]
    Required {
        /// The flag.
        flag: Flag,
        /// Where it could come from.
        remedy: String,
    },
    /// A value cannot be read as what the flag wants.
    #[error("{flag}: {value:?} is not {expected}")]
    Invalid {
        /// The flag.
        flag: Flag,
        /// The value as it was written.
        value: String,
        /// What the flag wants, with an example.
        expected: &'static str,
    },
    /// `--feature-gates` on the command line or in `--config` names a gate that the proxy does not have.
    #[error("{flag}: unknown feature gate {gate:?}; the proxy has {known}=true|false")]
    UnknownGate {
        /// The flag.
        flag: Flag,
        /// The gate as it was written.
        gate: String,
        /// The one gate that is known.
        known: &'static str,
    },
    /// Two values exclude each other.
    #[error("{flag}: {value} does not go with --{other}={other_value}: {reason}")]
    Conflict {
        /// The flag to change.
        flag: Flag,
        /// Its value.
        value: String,
        /// The other flag, without dashes.
        other: &'static str,
        /// The other flag's value.
        other_value: String,
        /// Why, and what to give instead.
        reason: &'static str,
    },
    /// A file that the configuration is read from cannot be read.
    #[error("{flag}: cannot read {}", .file.display())]
    Unreadable {
        /// The flag that names the file.
        flag: Flag,
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The `--config` file or the manifest is not YAML of the expected shape.
    #[error("{flag}: cannot parse {}", .file.display())]
    Unparsable {
        /// The flag that names the file.
        flag: Flag,
        /// The file.
        file: PathBuf,
        /// Where and why.
        source: Box<serde_saphyr::Error>,
    },
    /// `--apiserver-manifest` is YAML, but no Pod that runs kube-apiserver with flags.
    #[error("{flag}: {} {found}; give the static-pod manifest of kube-apiserver", .file.display())]
    NoApiServer {
        /// `--apiserver-manifest`.
        flag: Flag,
        /// The file.
        file: PathBuf,
        /// What it has instead.
        found: &'static str,
    },
    /// `--kubeconfig` is not YAML of a kubeconfig's shape; its text is left out because it holds keys.
    #[error("{flag}: {} is not a kubeconfig: see line {line}, column {column}", .file.display())]
    KubeconfigUnparsable {
        /// `--kubeconfig`.
        flag: Flag,
        /// The file.
        file: PathBuf,
        /// Line of the first mistake, from 1.
        line: u64,
        /// Column of the first mistake, from 1.
        column: u64,
    },
    /// `--kubeconfig` is a kubeconfig, but not one that can be used.
    #[error("{flag}: cannot use {}", .file.display())]
    KubeconfigUnusable {
        /// `--kubeconfig`.
        flag: Flag,
        /// The file.
        file: PathBuf,
        /// Why.
        source: Box<KubeconfigError>,
    },
    /// The pod's service account files are there, but cannot be used.
    #[error("in-cluster credentials cannot be used; give --kubeconfig=FILE")]
    InClusterUnusable {
        /// Why.
        source: Box<InClusterError>,
    },
    /// Peers are to be discovered, but there are no credentials to discover them with.
    #[error(
        "--peers: empty, so peers are discovered, which needs own credentials: neither --kubeconfig nor \
         in-cluster files ({folder}) are there; give --kubeconfig=FILE, run as a pod with a service account, \
         or give --peers=HOST:PORT,..."
    )]
    NoOwnCredentials {
        /// Where in-cluster files are looked for.
        folder: &'static str,
    },
}

fn meant(dashes: &str, nearest: Option<&String>) -> String {
    nearest.map_or_else(String::new, |name| format!(", did you mean {dashes}{name}?"))
}
