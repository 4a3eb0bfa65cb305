//! Lays out a throw-away control-plane node: kubeadm's certificates, its manifest, a kubeconfig.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use tempfile::TempDir;

/// A CA that signs this node's certificates.
pub(crate) type Authority = Issuer<'static, KeyPair>;

/// The files of one node.
pub(crate) struct Node {
    folder: TempDir,
    ca: Authority,
    front_proxy_ca: Authority,
}

impl Node {
    /// A node on which nothing is wrong.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let node = Self {
            ca: authority(folder.path(), "ca", "kubernetes"),
            front_proxy_ca: authority(folder.path(), "front-proxy-ca", "front-proxy-ca"),
            folder,
        };
        node.issue("apiserver", &node.ca, &serving());
        node.issue("front-proxy-client", &node.front_proxy_ca, &client("front-proxy-client"));
        node.write("mvproxy.conf", KUBECONFIG);
        node.write("kube-apiserver.yaml", &node.manifest());
        node
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn chmod(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// The CA of clients and API servers.
    pub(crate) fn ca(&self) -> &Authority {
        &self.ca
    }

    /// The CA of front proxies.
    pub(crate) fn front_proxy_ca(&self) -> &Authority {
        &self.front_proxy_ca
    }

    /// Writes `name.crt` and `name.key`.
    pub(crate) fn issue(&self, name: &str, issuer: &Authority, params: &CertificateParams) {
        let key = KeyPair::generate().unwrap();
        self.write(&format!("{name}.crt"), &params.signed_by(&key, issuer).unwrap().pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
        self.chmod(&format!("{name}.key"), 0o600);
    }

    /// `--name=<folder>/file` for each pair.
    pub(crate) fn file_flags(&self, pairs: &[(&str, &str)]) -> Vec<String> {
        pairs.iter().map(|(flag, file)| format!("--{flag}={}", self.path(file).display())).collect()
    }

    /// `mvproxy run` with the two flags that a kubeadm node needs, then `more`.
    pub(crate) fn command_line(&self, more: &[&str]) -> Vec<String> {
        let files = [("apiserver-manifest", "kube-apiserver.yaml"), ("kubeconfig", "mvproxy.conf")];
        let start = ["mvproxy", "run"].map(str::to_owned);
        let more = more.iter().map(|&flag| flag.to_owned());
        start.into_iter().chain(self.file_flags(&files)).chain(more).collect()
    }

    fn manifest(&self) -> String {
        MANIFEST.replace("PKI", &self.folder.path().display().to_string())
    }
}

/// Parameters of a serving certificate with the names that every API server has.
pub(crate) fn serving() -> CertificateParams {
    let names = ["kubernetes", "kubernetes.default.svc", "127.0.0.1"].map(str::to_owned);
    let mut params = named("kube-apiserver", &names);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

/// Parameters of a client certificate.
pub(crate) fn client(common_name: &str) -> CertificateParams {
    let mut params = named(common_name, &[]);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// The same, expired for years.
pub(crate) fn expired(mut params: CertificateParams) -> CertificateParams {
    params.not_before = date_time_ymd(2019, 1, 1);
    params.not_after = date_time_ymd(2020, 1, 1);
    params
}

/// A CA that no other file knows, written as `file.crt`.
pub(crate) fn authority(folder: &Path, file: &str, common_name: &str) -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = named(common_name, &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    fs::write(folder.join(format!("{file}.crt")), params.self_signed(&key).unwrap().pem()).unwrap();
    Issuer::new(params, key)
}

fn named(common_name: &str, names: &[String]) -> CertificateParams {
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

const KUBECONFIG: &str = "\
apiVersion: v1
kind: Config
current-context: here
clusters:
- name: here
  cluster:
    server: https://10.43.7.11:6443
    certificate-authority: ca.crt
contexts:
- name: here
  context:
    cluster: here
    user: mvproxy
users:
- name: mvproxy
  user:
    token: s3cret-t0ken
";

const MANIFEST: &str = "\
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
    image: example.net/kube-apiserver:v1.34.0
    command:
    - kube-apiserver
    - --advertise-address=10.43.7.11
    - --allow-privileged=true
    - --authorization-mode=Node,RBAC
    - --client-ca-file=PKI/ca.crt
    - --enable-bootstrap-token-auth=true
    - --etcd-servers=https://127.0.0.1:2379
    - --proxy-client-cert-file=PKI/front-proxy-client.crt
    - --proxy-client-key-file=PKI/front-proxy-client.key
    - --requestheader-allowed-names=front-proxy-client
    - --requestheader-client-ca-file=PKI/front-proxy-ca.crt
    - --requestheader-extra-headers-prefix=X-Remote-Extra-
    - --requestheader-group-headers=X-Remote-Group
    - --requestheader-username-headers=X-Remote-User
    - --secure-port=6443
    - --service-cluster-ip-range=10.96.0.0/12
    - --tls-cert-file=PKI/apiserver.crt
    - --tls-private-key-file=PKI/apiserver.key
    livenessProbe:
      httpGet: {host: 10.43.7.11, path: /livez, port: 6443, scheme: HTTPS}
    resources:
      requests:
        cpu: 250m
    volumeMounts:
    - {mountPath: PKI, name: k8s-certs, readOnly: true}
  volumes:
  - name: k8s-certs
    hostPath: {path: PKI, type: DirectoryOrCreate}
";
