//! Knows the files of a benchmark: certificates, configurations, logs, raw data.

use std::path::{Path, PathBuf};

/// A folder in `target/bench`, made anew for each run.
#[derive(Clone, Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// The folder at `path`.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// A file in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Folder of the certificates.
    pub(crate) fn pki(&self) -> PathBuf {
        self.file("pki")
    }

    /// Folder of the certificate that the backend and every proxy show.
    pub(crate) fn node(&self) -> PathBuf {
        self.pki().join("node")
    }

    /// The CA of that certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.pki().join("ca.crt")
    }

    /// Certificate and key in one file, as haproxy wants them.
    pub(crate) fn pem(&self) -> PathBuf {
        self.file("haproxy.pem")
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}
