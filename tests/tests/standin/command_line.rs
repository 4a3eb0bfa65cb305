//! The program: certificates, store and two servers as processes of their own.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use mvproxy_tests::client::{Client, ClientOptions, Trust};
use mvproxy_tests::pki::Identity;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{create_config_map, get};

/// A child that does not outlive its test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the program and returns what it says it serves on.
fn start(args: &[&str]) -> (Process, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_mvproxy-standin"))
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("serving on ").unwrap_or_else(|| panic!("{line:?}")).to_owned();
    (Process(child), address)
}

fn server(dir: &Path, name: &str, documents: &str) -> (Process, std::net::SocketAddr) {
    let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let (process, address) = start(&[
        "serve",
        "--documents",
        documents,
        "--store",
        &file("store.sock"),
        "--bind-address=127.0.0.1",
        "--secure-port=0",
        "--hostname",
        name,
        "--tls-cert-file",
        &file(&format!("pki/{name}/apiserver.crt")),
        "--tls-private-key-file",
        &file(&format!("pki/{name}/apiserver.key")),
        "--client-ca-file",
        &file("pki/ca.crt"),
        "--requestheader-client-ca-file",
        &file("pki/front-proxy-ca.crt"),
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-uid-headers=X-Remote-Uid",
        "--token-auth-file",
        &file("pki/tokens.csv"),
    ]);
    (process, address.parse().unwrap())
}

#[tokio::test]
async fn certificates_store_and_two_servers_work_together() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let pki = dir.join("pki");
    let made = Command::new(env!("CARGO_BIN_EXE_mvproxy-standin"))
        .args(["pki", "--dir", pki.to_str().unwrap(), "--node", "a=127.0.0.1", "--node", "b=127.0.0.1"])
        .status()
        .unwrap();
    assert!(made.success());
    for secret in [
        "ca.key",
        "front-proxy-client.key",
        "tokens.csv",
        "a/apiserver.key",
        "a/admin.conf",
        "a/mvproxy.conf",
    ] {
        let permissions = std::fs::metadata(pki.join(secret)).unwrap().permissions();
        assert_eq!(permissions.mode() & 0o777, 0o600, "{secret}");
    }
    let (_store, _) = start(&["store", "--listen", dir.join("store.sock").to_str().unwrap()]);
    let (_a, a) = server(dir, "a", "v1.34");
    let (mut b, b_address) = server(dir, "b", "v1.36-all");

    let read = |name: &str| std::fs::read_to_string(pki.join(name)).unwrap();
    let alice = Identity { cert_pem: read("alice.crt"), key_pem: read("alice.key") };
    let options = |address| ClientOptions::new(address, Trust::Ca(read("ca.crt"))).with_identity(&alice);
    create_config_map(&mut Client::connect(&options(b_address)).await.unwrap(), "one").await;
    let mut client = Client::connect(&options(a)).await.unwrap();
    assert_eq!(get(&mut client, "/api/v1/namespaces/default/configmaps/one", &[]).await.status, 200);

    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
    assert_eq!(get(&mut client, leases, &[]).await.json().unwrap()["items"].as_array().unwrap().len(), 2);
    kill(Pid::from_raw(b.0.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert!(b.0.wait().unwrap().success());
    assert_eq!(get(&mut client, leases, &[]).await.json().unwrap()["items"].as_array().unwrap().len(), 1);
}
