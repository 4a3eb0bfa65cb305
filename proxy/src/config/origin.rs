//! Remembers where a value was written, so that an error can say so.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The place a value was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    CommandLine,
    /// The `--config` file.
    ConfigFile(PathBuf),
    /// The `--apiserver-manifest` file.
    Manifest(PathBuf),
}

impl Origin {
    fn file(&self) -> Option<&Path> {
        match self {
            Self::CommandLine => None,
            Self::ConfigFile(file) | Self::Manifest(file) => Some(file),
        }
    }
}

/// A flag as errors name it: `--client-ca-file (from /etc/kubernetes/manifests/kube-apiserver.yaml)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// The flag without its dashes.
    pub name: &'static str,
    /// The file it was read from, if it was not on the command line.
    pub file: Option<Arc<Path>>,
}

impl Flag {
    /// A flag that nobody gave, or that was on the command line.
    pub fn bare(name: &'static str) -> Self {
        Self { name, file: None }
    }

    pub(super) fn at(name: &'static str, origin: &Origin) -> Self {
        Self { name, file: origin.file().map(Arc::from) }
    }
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--{}", self.name)?;
        match &self.file {
            Some(file) => write!(f, " (from {})", file.display()),
            None => Ok(()),
        }
    }
}

/// Where every given flag was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(BTreeMap<&'static str, Origin>);

impl Origins {
    pub(super) fn record(&mut self, name: &'static str, origin: Origin) {
        self.0.insert(name, origin);
    }

    /// The place `name` (without dashes) was read from; `None` for a default.
    pub fn of(&self, name: &str) -> Option<&Origin> {
        self.0.get(name)
    }

    /// `name` (without dashes) as an error should print it.
    pub fn flag(&self, name: &'static str) -> Flag {
        self.of(name).map_or_else(|| Flag::bare(name), |origin| Flag::at(name, origin))
    }
}
