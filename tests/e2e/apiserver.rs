//! Makes the flags of a node's kube-apiserver as kubeadm does, and the manifest in which kubeadm leaves them.

use std::net::Ipv4Addr;
use std::path::Path;

use serde_json::json;

/// kube-apiserver's port.
pub(crate) const SECURE_PORT: u16 = 6443;

/// What makes API servers different.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An older version: emulated, with nothing beyond what is on by default.
    Old,
    /// The version of the program, with every API that it has.
    New,
}

impl Kind {
    fn flags(self) -> &'static [&'static str] {
        match self {
            Kind::Old => &["--emulated-version=kube=1.33"],
            Kind::New => &["--runtime-config=api/all=true"],
        }
    }
}

/// The built-in proxy (KEP-4020).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BuiltIn {
    Off,
    /// `--peer-ca-file` is given.
    On,
}

/// What one API server is started with.
#[derive(Debug)]
pub(crate) struct ApiServer<'a> {
    pub(crate) node: &'a str,
    pub(crate) address: Ipv4Addr,
    pub(crate) etcd: String,
    /// Folder of certificates and keys.
    pub(crate) files: &'a Path,
    pub(crate) audit_log: &'a Path,
    pub(crate) kind: Kind,
    pub(crate) built_in: BuiltIn,
}

impl ApiServer<'_> {
    /// Its command line.
    pub(crate) fn flags(&self) -> Vec<String> {
        let file = |flag: &str, name: &str| format!("--{flag}={}", self.files.join(name).display());
        let own = |flag: &str, name: &str| file(flag, &format!("{}/{name}", self.node));
        let mut flags = vec![
            format!("--advertise-address={}", self.address),
            format!("--secure-port={SECURE_PORT}"),
            format!("--etcd-servers={}", self.etcd),
            "--storage-media-type=application/json".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--allow-privileged=true".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/12".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
            file("service-account-key-file", "sa.pub"),
            file("service-account-signing-key-file", "sa.key"),
            file("client-ca-file", "ca.crt"),
            own("tls-cert-file", "apiserver.crt"),
            own("tls-private-key-file", "apiserver.key"),
            file("proxy-client-cert-file", "front-proxy-client.crt"),
            file("proxy-client-key-file", "front-proxy-client.key"),
            file("requestheader-client-ca-file", "front-proxy-ca.crt"),
            "--requestheader-allowed-names=front-proxy-client".to_owned(),
            "--requestheader-username-headers=X-Remote-User".to_owned(),
            "--requestheader-group-headers=X-Remote-Group".to_owned(),
            "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
            file("token-auth-file", "tokens.csv"),
            file("audit-policy-file", "audit.yaml"),
            format!("--audit-log-path={}", self.audit_log.display()),
        ];
        flags.extend(self.kind.flags().iter().map(ToString::to_string));
        match self.built_in {
            BuiltIn::Off => {
                // It would ask for what it cannot have without a CA; releases before 1.36 have it off.
                flags.push("--feature-gates=UnknownVersionInteroperabilityProxy=false".to_owned());
            }
            BuiltIn::On => {
                flags.push(file("peer-ca-file", "ca.crt"));
                flags.push("--feature-gates=UnknownVersionInteroperabilityProxy=true".to_owned());
            }
        }
        flags
    }

    /// The static pod that would run it; YAML may be written as JSON.
    pub(crate) fn manifest(&self) -> String {
        let mut command = vec!["kube-apiserver".to_owned()];
        command.extend(self.flags());
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "kube-apiserver", "namespace": "kube-system"},
            "spec": {
                "hostNetwork": true,
                "containers": [{"name": "kube-apiserver", "command": command}],
            },
        })
        .to_string()
    }
}

/// Everything is recorded with who asked, but nothing of what was said.
pub(crate) const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\n\
                                rules:\n- level: Metadata\n";
