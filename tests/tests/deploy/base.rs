//! Reads the manifests as kustomize would find them.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// The folder of the base.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kustomize/base")
}

/// `kustomization.yaml`.
pub(crate) fn kustomization() -> Value {
    read("kustomization.yaml").remove(0)
}

/// Every object of the files that it lists.
pub(crate) fn objects() -> Vec<Value> {
    let kustomization = kustomization();
    let files = kustomization["resources"].as_array().unwrap();
    files.iter().flat_map(|file| read(file.as_str().unwrap())).collect()
}

fn read(file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(folder().join(file)).unwrap();
    serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The `DaemonSet`.
pub(crate) struct Workload {
    /// Its specification.
    pub(crate) daemon_set: Value,
    /// That of its pods.
    pub(crate) pod: Value,
    /// Their one container.
    pub(crate) container: Value,
}

/// Where a path of the container is on the node.
pub(crate) struct Mounted {
    pub(crate) on_node: PathBuf,
    pub(crate) read_only: bool,
}

impl Workload {
    pub(crate) fn read() -> Self {
        let mut found = objects().into_iter().filter(|object| object["kind"] == "DaemonSet");
        let mut daemon_set = found.next().expect("a DaemonSet");
        assert!(found.next().is_none(), "one");
        let daemon_set = daemon_set["spec"].take();
        let pod = daemon_set["template"]["spec"].clone();
        let containers = pod["containers"].as_array().unwrap();
        assert_eq!(containers.len(), 1);
        assert!(pod.get("initContainers").is_none());
        Self { container: containers[0].clone(), pod, daemon_set }
    }

    /// What the program is started with, without its name.
    pub(crate) fn arguments(&self) -> Vec<String> {
        assert_eq!(self.container["command"], serde_json::json!(["mvproxy"]));
        serde_json::from_value(self.container["args"].clone()).unwrap()
    }

    /// Folders in the container, and on the node.
    pub(crate) fn mounts(&self) -> Vec<(PathBuf, PathBuf)> {
        let mounts = self.container["volumeMounts"].as_array().unwrap();
        let found: Vec<_> =
            mounts.iter().map(|mount| (text(&mount["mountPath"]).into(), self.host_path(mount))).collect();
        assert_eq!(found.len(), self.pod["volumes"].as_array().unwrap().len(), "each volume is mounted once");
        found
    }

    /// Where `path` of the container is on the node, if any mount has it.
    pub(crate) fn mounted(&self, path: &Path) -> Option<Mounted> {
        let mounts = self.container["volumeMounts"].as_array().unwrap();
        let around = mounts.iter().filter(|mount| path.starts_with(text(&mount["mountPath"])));
        let mount = around.max_by_key(|mount| text(&mount["mountPath"]).len())?;
        let below = path.strip_prefix(text(&mount["mountPath"])).unwrap();
        let host_path = self.host_path(mount);
        // Joining nothing would leave a slash at the end.
        let on_node = if below.as_os_str().is_empty() { host_path } else { host_path.join(below) };
        Some(Mounted { on_node, read_only: mount["readOnly"] == true })
    }

    fn host_path(&self, mount: &Value) -> PathBuf {
        let volumes = self.pod["volumes"].as_array().unwrap();
        let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]);
        text(&volume.unwrap_or_else(|| panic!("no volume for {mount}"))["hostPath"]["path"]).into()
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}
