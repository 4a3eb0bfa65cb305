//! Finds the real programs, in envtest's convention.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

/// Names the folder of the programs.
pub(crate) const VARIABLE: &str = "KUBEBUILDER_ASSETS";

/// Programs of a control plane.
#[derive(Clone, Debug)]
pub(crate) struct Assets {
    pub(crate) apiserver: PathBuf,
    pub(crate) etcd: PathBuf,
    pub(crate) kubectl: PathBuf,
    /// envtest has none; some scenarios need it.
    pub(crate) controller_manager: Option<PathBuf>,
}

impl Assets {
    /// Those in the folder that the variable names.
    pub(crate) fn find() -> Result<Self> {
        let folder = std::env::var_os(VARIABLE).with_context(|| {
            format!("{VARIABLE} is not set: it names a folder with kube-apiserver, etcd and kubectl")
        })?;
        let folder = PathBuf::from(folder);
        let controller_manager = folder.join("kube-controller-manager");
        Ok(Self {
            apiserver: program(&folder, "kube-apiserver")?,
            etcd: program(&folder, "etcd")?,
            kubectl: program(&folder, "kubectl")?,
            controller_manager: controller_manager.exists().then_some(controller_manager),
        })
    }
}

fn program(folder: &Path, name: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    ensure!(path.is_file(), "{VARIABLE}: {} has no {name}", folder.display());
    Ok(path)
}
