//! Writes the static-pod manifest that kubeadm would leave for a node's kube-apiserver.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;

/// What the flags of a node's API server depend on.
pub(crate) struct ApiServer<'a> {
    /// Folder of the certificates.
    pub(crate) pki: &'a Path,
    /// Name of the node.
    pub(crate) node: &'a str,
    /// Address that the API server advertises.
    pub(crate) address: Ipv4Addr,
    /// Port that it serves on.
    pub(crate) port: u16,
}

impl ApiServer<'_> {
    /// Flags that both the manifest and the stand-in have.
    pub(crate) fn flags(&self) -> Vec<String> {
        let pki = |file: &str| self.pki.join(file).display().to_string();
        let own = |file: &str| self.pki.join(self.node).join(file).display().to_string();
        vec![
            format!("--advertise-address={}", self.address),
            format!("--client-ca-file={}", pki("ca.crt")),
            "--requestheader-allowed-names=front-proxy-client".to_owned(),
            format!("--requestheader-client-ca-file={}", pki("front-proxy-ca.crt")),
            "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
            "--requestheader-group-headers=X-Remote-Group".to_owned(),
            "--requestheader-username-headers=X-Remote-User".to_owned(),
            format!("--secure-port={}", self.port),
            format!("--tls-cert-file={}", own("apiserver.crt")),
            format!("--tls-private-key-file={}", own("apiserver.key")),
        ]
    }

    /// The manifest, from which `mvproxy run --apiserver-manifest` takes its configuration.
    pub(crate) fn manifest(&self) -> String {
        let mut flags = self.flags();
        flags.extend(self.flags_of_kubeadm());
        flags.sort();
        let mut text = HEAD.to_owned();
        for flag in flags {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "    - {flag}");
        }
        text + TAIL
    }

    /// Flags in a manifest of kubeadm's that the stand-in has no use for, but mvproxy partly has.
    fn flags_of_kubeadm(&self) -> Vec<String> {
        let pki = |file: &str| self.pki.join(file).display().to_string();
        vec![
            "--allow-privileged=true".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--enable-bootstrap-token-auth=true".to_owned(),
            "--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname".to_owned(),
            format!("--proxy-client-cert-file={}", pki("front-proxy-client.crt")),
            format!("--proxy-client-key-file={}", pki("front-proxy-client.key")),
            "--service-cluster-ip-range=10.96.0.0/12".to_owned(),
        ]
    }
}

const HEAD: &str = "\
apiVersion: v1
kind: Pod
metadata:
  name: kube-apiserver
  namespace: kube-system
  labels:
    component: kube-apiserver
    tier: control-plane
spec:
  hostNetwork: true
  priorityClassName: system-node-critical
  containers:
  - name: kube-apiserver
    image: kube-apiserver
    command:
    - kube-apiserver
";

const TAIL: &str = "\
    resources:
      requests:
        cpu: 250m
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifest_holds_every_flag_of_the_stand_in_once() {
        let pki = Path::new("/pki");
        let server = ApiServer { pki, node: "old", address: Ipv4Addr::new(10, 43, 7, 11), port: 6443 };
        let manifest = server.manifest();
        for flag in server.flags() {
            assert_eq!(manifest.matches(&format!("    - {flag}\n")).count(), 1, "{flag}");
        }
        assert!(manifest.contains("- --tls-cert-file=/pki/old/apiserver.crt\n"));
    }
}
