//! The manifests in `deploy/kustomize/base` run the program with flags that it takes, beside files and rights that it needs.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "deploy/base.rs"]
mod base;
#[path = "deploy/grants.rs"]
mod grants;
#[path = "../e2e/rights.rs"]
#[allow(unreachable_pub, reason = "the e2e program's, which has a reach of its own")]
mod rights;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base::{Mounted, Workload};
use grants::Grants;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use mvproxy::config::{self, Config, Invocation, SteeringMode};
use mvproxy::{check, limits};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A control-plane node's file system, with what kubeadm puts there.
struct Node {
    root: TempDir,
}

impl Node {
    fn of_kubeadm() -> Self {
        let node = Self { root: tempfile::tempdir().unwrap() };
        node.write("/etc/kubernetes/manifests/kube-apiserver.yaml", KUBEADM_MANIFEST);
        for file in KUBEADM_FILES {
            node.write(&format!("/etc/kubernetes/pki/{file}"), "");
        }
        node
    }

    fn path(&self, on_node: &Path) -> PathBuf {
        self.root.path().join(on_node.strip_prefix("/").unwrap())
    }

    fn write(&self, on_node: &str, text: &str) {
        let path = self.path(Path::new(on_node));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// What `mvproxy` makes of the container's arguments on such a node. The manifest is read where the mounts put it; a
/// kubeconfig stands in for the service account, which a test has not.
fn configuration(workload: &Workload, node: &Node) -> Config {
    node.write("/service-account", KUBECONFIG);
    let mut arguments = vec!["mvproxy".to_owned()];
    arguments.extend(workload.arguments().into_iter().map(|argument| match argument.split_once('=') {
        Some((flag @ "--apiserver-manifest", file)) => {
            let file = node.path(&workload.mounted(Path::new(file)).unwrap().on_node);
            format!("{flag}={}", file.display())
        }
        _ => argument,
    }));
    arguments.push(format!("--kubeconfig={}", node.path(Path::new("/service-account")).display()));
    match config::parse(arguments) {
        Ok(Invocation::Run(config)) => *config,
        other => panic!("the container's arguments are no configuration: {other:#?}"),
    }
}

#[test]
fn kustomization_lists_the_files_that_are_there_and_moves_none_to_another_namespace() {
    let kustomization = base::kustomization();
    let listed: BTreeSet<String> = serde_json::from_value(kustomization["resources"].clone()).unwrap();
    let there =
        fs::read_dir(base::folder()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let there: BTreeSet<String> = there.filter(|name| name != "kustomization.yaml").collect();
    assert_eq!(listed, there);
    assert!(kustomization.get("namespace").is_none(), "it would move the Role in default");
    let kinds: Vec<_> =
        base::objects().iter().map(|object| object["kind"].as_str().unwrap().to_owned()).collect();
    for kind in ["DaemonSet", "ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"] {
        assert!(kinds.iter().any(|found| found == kind), "no {kind} in {kinds:?}");
    }
}

#[test]
fn every_field_is_one_that_kubernetes_knows() {
    for object in base::objects() {
        let known = match object["kind"].as_str().unwrap() {
            "ClusterRole" => known::<ClusterRole>(&object),
            "ClusterRoleBinding" => known::<ClusterRoleBinding>(&object),
            "DaemonSet" => known::<DaemonSet>(&object),
            "Role" => known::<Role>(&object),
            "RoleBinding" => known::<RoleBinding>(&object),
            "ServiceAccount" => known::<ServiceAccount>(&object),
            other => panic!("{other}"),
        };
        assert_eq!(known, object);
    }
}

/// What is left of an object when unknown fields are skipped.
fn known<T: DeserializeOwned + Serialize>(object: &Value) -> Value {
    let read: T = serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{error}: {object}"));
    serde_json::to_value(read).unwrap()
}

#[test]
fn arguments_and_mounts_are_a_configuration_for_a_kubeadm_node() {
    let (workload, node) = (Workload::read(), Node::of_kubeadm());
    let config = configuration(&workload, &node);
    assert_eq!(config.steering, SteeringMode::Always);
    assert_eq!(config.secure_port, 6443);
    assert_eq!(config.peer_advertise_ip, Some("10.43.7.11".parse().unwrap()));

    let files: Vec<_> =
        config.credential_files().into_iter().filter(|file| !file.starts_with(&node.root)).collect();
    assert_eq!(files.len(), KUBEADM_FILES.len(), "{files:?}");
    for file in files {
        let Mounted { on_node, read_only } = workload.mounted(file).expect("a mount has the file");
        assert!(node.path(&on_node).is_file(), "{} is {} on the node", file.display(), on_node.display());
        assert!(read_only, "{}", file.display());
    }
}

#[test]
fn every_path_in_the_arguments_is_under_a_mount_and_no_mount_is_there_for_nothing() {
    let (workload, node) = (Workload::read(), Node::of_kubeadm());
    let arguments = workload.arguments();
    let mut used: BTreeSet<PathBuf> = BTreeSet::new();
    let paths =
        arguments.iter().filter_map(|argument| argument.split_once('=')).map(|(_, value)| Path::new(value));
    for path in paths.filter(|path| path.is_absolute()) {
        let mounted =
            workload.mounted(path).unwrap_or_else(|| panic!("{} is under no mount", path.display()));
        used.insert(mounted.on_node);
    }
    let config = configuration(&workload, &node);
    used.extend(
        config.credential_files().into_iter().filter_map(|file| Some(workload.mounted(file)?.on_node)),
    );
    for (_, folder) in workload.mounts() {
        assert!(used.iter().any(|path| path.starts_with(&folder)), "nothing is used of {}", folder.display());
    }

    // On the node everything is where the README says it is.
    for (in_container, on_node) in
        [(&config.bpffs_dir, "/sys/fs/bpf/mvproxy"), (&config.state_dir.unwrap(), "/var/lib/mvproxy")]
    {
        let mounted = workload.mounted(in_container).unwrap();
        assert_eq!((mounted.on_node.as_path(), mounted.read_only), (Path::new(on_node), false));
        assert!(!in_container.starts_with("/sys"), "default AppArmor profiles deny writes there");
    }
}

#[test]
fn rights_are_those_of_the_readme_and_of_the_e2e_run_and_what_check_asks_for() {
    let objects = base::objects();
    let given = Grants::of_manifests(&objects);
    assert_eq!(given, Grants::of_requests(&rights::objects()), "tests/e2e/rights.rs");
    assert_eq!(given, Grants::of_readme(), "README.md");

    let account = json!({"kind": "ServiceAccount", "name": "mvproxy", "namespace": "kube-system"});
    for binding in objects.iter().filter(|object| object.get("roleRef").is_some()) {
        assert_eq!(binding["subjects"], json!([account]), "{}", binding["metadata"]["name"]);
    }
    let is_there = |object: &Value| {
        object["kind"] == "ServiceAccount"
            && object["metadata"]["name"] == account["name"]
            && object["metadata"]["namespace"] == account["namespace"]
    };
    assert!(objects.iter().any(is_there));

    for (verb, group, resource, namespace, loss) in check::RIGHTS {
        assert!(given.allow(verb, group, resource, namespace), "{verb} {resource} in {namespace:?}: {loss}");
    }
    for (group, resource, namespace) in given.resources() {
        let is_asked_for = check::RIGHTS.iter().any(|right| {
            (right.1, right.2, right.3) == (group.as_str(), resource.as_str(), namespace.as_str())
        });
        assert!(is_asked_for, "nothing needs {resource}.{group} in {namespace:?}");
    }
}

#[test]
fn the_container_has_no_more_power_than_it_uses() {
    let workload = Workload::read();
    let security = &workload.container["securityContext"];
    let added: BTreeSet<String> = serde_json::from_value(security["capabilities"]["add"].clone()).unwrap();
    let needed: BTreeSet<String> = check::CAPABILITIES
        .iter()
        .chain([&check::LANE_CAPABILITY])
        .map(|(name, _)| name[4..].to_owned())
        .collect();
    assert_eq!(added, needed);
    assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
    // It reads keys that only their owner may read.
    assert_eq!(security["runAsUser"], 0);
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(security["privileged"], false);
    assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault");
    for namespace in ["hostPID", "hostIPC"] {
        assert!(workload.pod.get(namespace).is_none(), "{namespace}");
    }
}

#[test]
fn a_new_proxy_can_start_beside_the_old_one_and_the_old_one_has_time_to_drain() {
    let workload = Workload::read();
    assert_eq!(
        workload.daemon_set["updateStrategy"]["rollingUpdate"],
        json!({"maxSurge": 1, "maxUnavailable": 0})
    );
    assert_eq!(workload.pod["hostNetwork"], true);
    assert!(workload.container.get("ports").is_none(), "they would be host ports");
    assert!(workload.daemon_set["minReadySeconds"].as_u64().unwrap() >= 30);
    let config = configuration(&workload, &Node::of_kubeadm());
    assert_eq!(config.listen.port(), 0, "both would want the port");
    let grace = Duration::from_secs(workload.pod["terminationGracePeriodSeconds"].as_u64().unwrap());
    assert!(grace >= limits::DRAIN_LIMIT + Duration::from_secs(10), "{grace:?}");
}

#[test]
fn pods_are_on_every_control_plane_node_and_probed_where_the_proxy_answers() {
    let workload = Workload::read();
    let config = configuration(&workload, &Node::of_kubeadm());
    for (probe, path) in [("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
        let asked = &workload.container[probe]["httpGet"];
        assert_eq!(asked["path"], path);
        assert_eq!(asked["host"], config.admin_address.ip().to_string());
        assert_eq!(asked["port"], config.admin_address.port());
    }
    let pod = &workload.pod;
    assert_eq!(pod["nodeSelector"], json!({"node-role.kubernetes.io/control-plane": ""}));
    assert_eq!(pod["tolerations"], json!([{"operator": "Exists"}]));
    assert_eq!(pod["priorityClassName"], "system-node-critical");
    assert_eq!(
        (&pod["serviceAccountName"], &pod["automountServiceAccountToken"]),
        (&json!("mvproxy"), &json!(true))
    );
    assert_eq!(
        workload.daemon_set["selector"]["matchLabels"],
        workload.daemon_set["template"]["metadata"]["labels"]
    );
    let image = workload.container["image"].as_str().unwrap();
    assert!(
        image.starts_with("placeholder.invalid/"),
        "{image}: no image is published, so none may be pulled"
    );
}

/// What kubeadm's API server and the proxy both read.
const KUBEADM_FILES: [&str; 6] = [
    "ca.crt",
    "apiserver.crt",
    "apiserver.key",
    "front-proxy-ca.crt",
    "front-proxy-client.crt",
    "front-proxy-client.key",
];

const KUBECONFIG: &str = "\
apiVersion: v1
kind: Config
current-context: here
clusters: [{name: here, cluster: {server: 'https://10.43.7.11:6443'}}]
contexts: [{name: here, context: {cluster: here, user: mvproxy}}]
users: [{name: mvproxy, user: {token: t0ken}}]
";

/// As kubeadm writes it, shortened.
const KUBEADM_MANIFEST: &str = "\
apiVersion: v1
kind: Pod
metadata:
  name: kube-apiserver
  namespace: kube-system
  labels: {component: kube-apiserver, tier: control-plane}
spec:
  hostNetwork: true
  containers:
  - name: kube-apiserver
    image: registry.k8s.io/kube-apiserver:v1.34.0
    command:
    - kube-apiserver
    - --advertise-address=10.43.7.11
    - --allow-privileged=true
    - --authorization-mode=Node,RBAC
    - --client-ca-file=/etc/kubernetes/pki/ca.crt
    - --enable-admission-plugins=NodeRestriction
    - --enable-bootstrap-token-auth=true
    - --etcd-cafile=/etc/kubernetes/pki/etcd/ca.crt
    - --etcd-certfile=/etc/kubernetes/pki/apiserver-etcd-client.crt
    - --etcd-keyfile=/etc/kubernetes/pki/apiserver-etcd-client.key
    - --etcd-servers=https://127.0.0.1:2379
    - --kubelet-client-certificate=/etc/kubernetes/pki/apiserver-kubelet-client.crt
    - --kubelet-client-key=/etc/kubernetes/pki/apiserver-kubelet-client.key
    - --proxy-client-cert-file=/etc/kubernetes/pki/front-proxy-client.crt
    - --proxy-client-key-file=/etc/kubernetes/pki/front-proxy-client.key
    - --requestheader-allowed-names=front-proxy-client
    - --requestheader-client-ca-file=/etc/kubernetes/pki/front-proxy-ca.crt
    - --requestheader-extra-headers-prefix=X-Remote-Extra-
    - --requestheader-group-headers=X-Remote-Group
    - --requestheader-username-headers=X-Remote-User
    - --secure-port=6443
    - --service-account-issuer=https://kubernetes.default.svc.cluster.local
    - --service-account-key-file=/etc/kubernetes/pki/sa.pub
    - --service-account-signing-key-file=/etc/kubernetes/pki/sa.key
    - --service-cluster-ip-range=10.96.0.0/12
    - --tls-cert-file=/etc/kubernetes/pki/apiserver.crt
    - --tls-private-key-file=/etc/kubernetes/pki/apiserver.key
";
