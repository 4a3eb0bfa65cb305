//! Writes a PKI to disk in the layout that the demo and the privileged tests read.

use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Identity, Pki, Subject};

/// Static tokens of the written PKI, in kube-apiserver's `--token-auth-file` format.
pub const TOKENS_CSV: &str = "bob-token,bob,bob-uid,\"qa,ops\"\n";

impl Pki {
    /// Writes the CAs, the front-proxy client, one folder per node, alice, stranger and tokens.csv to `dir`.
    ///
    /// # Errors
    /// When a file cannot be written or a node's name is not a DNS name.
    pub fn write_to(&self, dir: &Path, nodes: &[(String, IpAddr)]) -> Result<()> {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        for (name, authority) in [("ca", &self.ca), ("front-proxy-ca", &self.front_proxy_ca)] {
            write_public(&dir.join(format!("{name}.crt")), &authority.cert_pem)?;
            write_secret(&dir.join(format!("{name}.key")), &authority.key_pem)?;
        }
        write_identity(dir, "front-proxy-client", &self.front_proxy_client)?;
        for (name, ip) in nodes {
            self.write_node(&dir.join(name), name, *ip)?;
        }
        let alice = Subject { common_name: "alice", organizations: &["dev", "ops"], uid: None };
        write_identity(dir, "alice", &self.client(&alice)?)?;
        let stranger = Subject { common_name: "stranger", ..Subject::default() };
        write_identity(dir, "stranger", &self.stranger(&stranger)?)?;
        write_secret(&dir.join("tokens.csv"), TOKENS_CSV)
    }

    fn write_node(&self, dir: &Path, name: &str, ip: IpAddr) -> Result<()> {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        write_identity(dir, "apiserver", &self.serving(name, ip)?)?;
        let users = [
            (
                "admin.conf",
                Subject { common_name: "kubernetes-admin", organizations: &["system:masters"], uid: None },
            ),
            ("mvproxy.conf", Subject { common_name: "system:mixed-version-proxy", ..Subject::default() }),
        ];
        for (file, subject) in users {
            let text = self.kubeconfig(&format!("https://{}:6443", bracketed(ip)), &subject)?;
            write_secret(&dir.join(file), &text)?;
        }
        Ok(())
    }

    /// A kubeconfig for `subject` at `server` (an https URL), everything embedded.
    ///
    /// # Errors
    /// When `subject` cannot be put into a certificate.
    pub fn kubeconfig(&self, server: &str, subject: &Subject<'_>) -> Result<String> {
        let identity = self.client(subject)?;
        let user = subject.common_name;
        Ok(format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: {user}@kubernetes\n\
             clusters:\n- name: kubernetes\n  cluster:\n    server: {server}\n    certificate-authority-data: {ca}\n\
             contexts:\n- name: {user}@kubernetes\n  context:\n    cluster: kubernetes\n    user: {user}\n\
             users:\n- name: {user}\n  user:\n    client-certificate-data: {cert}\n    client-key-data: {key}\n",
            ca = STANDARD.encode(self.ca_pem()),
            cert = STANDARD.encode(&identity.cert_pem),
            key = STANDARD.encode(&identity.key_pem),
        ))
    }
}

fn bracketed(ip: IpAddr) -> String {
    if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() }
}

fn write_identity(dir: &Path, name: &str, identity: &Identity) -> Result<()> {
    write_public(&dir.join(format!("{name}.crt")), &identity.cert_pem)?;
    write_secret(&dir.join(format!("{name}.key")), &identity.key_pem)
}

fn write_public(path: &Path, text: &str) -> Result<()> {
    write(path, text, 0o644)
}

fn write_secret(path: &Path, text: &str) -> Result<()> {
    write(path, text, 0o600)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    // An existing file keeps its old mode when it is only truncated.
    let _ = fs::remove_file(path);
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}
