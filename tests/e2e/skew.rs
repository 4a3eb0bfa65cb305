//! Uses what only a peer serves, through the node whose API server lacks it.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use http::Method;
use serde_json::Value;

use crate::apiserver::Kind;
use crate::identity::position;
use crate::report::Report;
use crate::site::Site;

/// A collection that new servers have and old ones lack: it is beta and off by default.
pub(crate) const PEER_ONLY: &str = "/apis/coordination.k8s.io/v1beta1/leasecandidates";
const OBJECT: &str = "apiVersion: coordination.k8s.io/v1beta1\nkind: LeaseCandidate\n\
    metadata: {name: probe, namespace: default}\nspec:\n  leaseName: probe\n  binaryVersion: 0.1.0\n  \
    emulationVersion: 0.1.0\n  strategy: OldestEmulationVersion\n";

/// The collection, after a look whether it is one in fact.
pub(crate) fn peer_only(site: &Site) -> Result<String> {
    for (kind, expected) in [(Kind::Old, 404), (Kind::New, 200)] {
        let answer = site.straight(position(site, kind)?, Method::GET, PEER_ONLY, None)?;
        ensure!(answer.status == expected, "{kind:?} server answers {} for {PEER_ONLY}", answer.status);
    }
    Ok(PEER_ONLY.to_owned())
}

/// Goes through it with kubectl.
pub(crate) fn run(site: &Site, peer_only: &str, report: &mut Report) -> Result<()> {
    report.begin("skew", "kubectl uses through the old node what only the new one serves.");
    let (old, new) = (position(site, Kind::Old)?, position(site, Kind::New)?);
    let answer = site.request(old, Method::GET, peer_only, None)?;
    report.equal("a list of what only the peer serves", "200", answer.status.as_str());

    for arguments in [&["api-resources", "--no-headers", "-o", "name"][..], &["api-versions"]] {
        let seen = kubectl(site, old, arguments, "")?;
        let straight = [kubectl_straight(site, old, arguments)?, kubectl_straight(site, new, arguments)?];
        let both: BTreeSet<&str> = straight.iter().flat_map(|said| said.stdout.lines()).collect();
        let lines: BTreeSet<&str> = seen.stdout.lines().collect();
        report.check(
            &format!("kubectl {}: what either server says", arguments.join(" ")),
            &format!("0: {} lines", both.len()),
            &format!("{}: {} lines {}", seen.status, lines.len(), seen.stderr),
            seen.status == 0 && seen.stderr.is_empty() && lines == both && !both.is_empty(),
        );
    }
    let (expected, seen) = (
        kubectl(site, new, &["get", "--raw", "/apis"], "")?,
        kubectl(site, old, &["get", "--raw", "/apis"], "")?,
    );
    report.equal("kubectl get --raw /apis at either node", &digest(&expected), &digest(&seen));
    for arguments in [
        &["explain", "leasecandidates", "--api-version=coordination.k8s.io/v1beta1", "--recursive"][..],
        &["explain", "leasecandidates.spec", "--api-version=coordination.k8s.io/v1beta1"],
    ] {
        let (expected, seen) = (kubectl_straight(site, new, arguments)?, kubectl(site, old, arguments, "")?);
        let what = format!("kubectl {}", arguments.join(" "));
        report.equal(&what, &digest(&expected), &digest(&seen));
        let is_told = seen.status == 0 && seen.stderr.is_empty() && seen.stdout.contains("FIELD");
        report.check(&what, "0 and fields", &seen.text(), is_told);
    }
    let local = &["explain", "deployments.spec", "--recursive"];
    let (expected, seen) = (kubectl_straight(site, old, local)?, kubectl(site, old, local, "")?);
    report.equal(&format!("kubectl {}", local.join(" ")), &digest(&expected), &digest(&seen));
    writes(site, old, report)?;
    refusals(site, old, report)
}

/// What kubectl says, straight and through the proxy.
fn refusals(site: &Site, old: usize, report: &mut Report) -> Result<()> {
    for arguments in [
        &["get", "pods", "-A"][..],
        &["get", "configmaps", "-n", "kube-system", "-o", "name"],
        &["get", "--raw", "/version"],
        &["auth", "whoami"],
        &["get", "nothings"],
        &["logs", "no-such-pod"],
        &["exec", "no-such-pod", "--", "true"],
        &[
            "get",
            "apiservices",
            "-o",
            "jsonpath={.items[?(@.status.conditions[0].status!='True')].metadata.name}",
        ],
    ] {
        let (expected, seen) = (kubectl_straight(site, old, arguments)?, kubectl(site, old, arguments, "")?);
        report.equal(&format!("kubectl {}", arguments.join(" ")), &expected.text(), &seen.text());
    }
    Ok(())
}

/// Creates, changes and deletes an object that only the peer knows.
fn writes(site: &Site, old: usize, report: &mut Report) -> Result<()> {
    let file = &["-f", "-"];
    for (arguments, expected) in [
        (&["create", "--validate=strict"][..], "leasecandidate.coordination.k8s.io/probe created"),
        (
            &["apply", "--server-side", "--force-conflicts"],
            "leasecandidate.coordination.k8s.io/probe serverside-applied",
        ),
        (&["apply", "--dry-run=server"], "leasecandidate.coordination.k8s.io/probe"),
        (&["apply"], "leasecandidate.coordination.k8s.io/probe"),
        (&["diff"], ""),
        (&["get"], "probe"),
        (&["delete", "--wait=false"], "deleted"),
    ] {
        let arguments = [arguments, file].concat();
        let seen = kubectl(site, old, &arguments, OBJECT)?;
        let holds = seen.status == 0 && seen.stdout.contains(expected);
        report.check(&format!("kubectl {}", arguments.join(" ")), expected, &seen.text(), holds);
    }
    let wrong = OBJECT.replace("leaseName", "leaseNames");
    let seen = kubectl(site, old, &["create", "--validate=strict", "-f", "-"], &wrong)?;
    let expected = "unknown field \"spec.leaseNames\"";
    report.check(
        "kubectl create of what is not valid",
        expected,
        &seen.text(),
        seen.stderr.contains(expected),
    );
    Ok(())
}

/// What a command said.
pub(crate) struct Said {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    /// All of it.
    pub(crate) fn text(&self) -> String {
        format!("{}: {}{}", self.status, self.stdout, self.stderr)
    }
}

/// kubectl as an administrator from elsewhere.
pub(crate) fn kubectl(site: &Site, node: usize, arguments: &[&str], input: &str) -> Result<Said> {
    let at = &site.nodes[node];
    let kubeconfig = site.files.path().join(&at.name).join("admin.conf");
    site.elsewhere.run(|| {
        let mut command = Command::new(&site.assets.kubectl);
        command
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .arg("--request-timeout=20s")
            .args(arguments);
        run_with(command.env("HOME", site.files.path().join("home").join(&at.name)), input)
    })
}

/// The same on the node, by a forwarder whose connections come from the source that is never steered.
fn kubectl_straight(site: &Site, node: usize, arguments: &[&str]) -> Result<Said> {
    let at = &site.nodes[node];
    let admin = site.files.path().join(&at.name).join("admin.conf");
    let straight = std::fs::read_to_string(&admin)?;
    let server = format!("https://{}:6443", at.ip);
    ensure!(straight.contains(&server), "{} does not name {server}", admin.display());
    let kubeconfig = site.files.path().join(&at.name).join("straight.conf");
    std::fs::write(
        &kubeconfig,
        straight.replace(&server, &format!("https://127.0.0.1:{}", crate::forwarder::PORT)),
    )?;
    let forwarder = crate::forwarder::Forwarder::start(&at.netns)?;
    let said = at.netns.run(|| {
        let mut command = Command::new(&site.assets.kubectl);
        command
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .arg("--request-timeout=20s")
            .args(arguments);
        run_with(command.env("HOME", site.files.path().join("home").join("straight")), "")
    });
    drop(forwarder);
    said
}

fn run_with(command: &mut Command, input: &str) -> Result<Said> {
    use std::io::Write as _;
    use std::process::Stdio;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("kubectl")?;
    child.stdin.take().context("stdin is piped")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Said {
        status: output.status.code().unwrap_or(-1),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    })
}

/// Long answers, told apart by their length and their lines in order.
fn digest(said: &Said) -> String {
    let mut lines: Vec<&str> = said.stdout.lines().collect();
    lines.sort_unstable();
    let text: Value = lines.concat().into();
    format!("{}: {} lines, {} {}", said.status, lines.len(), short(&text.to_string()), said.stderr)
}

fn short(text: &str) -> String {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hash = DefaultHasher::new();
    text.hash(&mut hash);
    format!("{:016x}", hash.finish())
}
