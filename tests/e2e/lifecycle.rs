//! Creates, changes and deletes what not every API server knows, and lets controllers clean up.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use http::Method;
use serde_json::json;

use crate::apiserver::{Kind, SECURE_PORT};
use crate::cluster_support::Process;
use crate::identity::position;
use crate::report::Report;
use crate::site::Site;
use crate::skew::kubectl;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";
const NAMESPACE: &str = "doomed";
/// A new API is to be known everywhere within this time.
const KNOWN: Duration = Duration::from_secs(6);
/// A namespace is to be gone within this time.
const GONE: Duration = Duration::from_mins(1);

/// Definitions, and a namespace that holds an object of a resource that only one server serves.
pub(crate) fn run(site: &Site, peer_only: &str, report: &mut Report) -> Result<()> {
    report.begin(
        "lifecycle",
        "Custom resources during skew, and a namespace with objects of which one server knows nothing.",
    );
    let (old, new) = (position(site, Kind::Old)?, position(site, Kind::New)?);
    definitions(site, old, new, report)?;
    if site.assets.controller_manager.is_none() {
        report.note("left out: deletion of namespaces; the assets have no kube-controller-manager");
        return Ok(());
    }
    namespaces(site, old, peer_only, report)
}

fn definitions(site: &Site, old: usize, new: usize, report: &mut Report) -> Result<()> {
    let definition = |version: &str| {
        json!({
            "metadata": {"name": "widgets.example.com"},
            "spec": {
                "group": "example.com",
                "scope": "Namespaced",
                "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
                "versions": [{"name": version, "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                    "type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}}}],
            },
        })
    };
    let created = site.request(old, Method::POST, DEFINITIONS, Some(&definition("v1")))?;
    report.equal("a definition is created through the old node", "201", created.status.as_str());
    for node in [old, new] {
        let took = wait(KNOWN, || Ok(site.request(node, Method::GET, WIDGETS, None)?.status == 200))?;
        let name = &site.nodes[node].name;
        report.check(&format!("it is served through {name}"), "within 6 s", &within(took), took.is_some());
    }
    let widget = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "one"}, "spec": {"size": 1}});
    let made = site.request(new, Method::POST, WIDGETS, Some(&widget))?;
    report.equal("an object of it", "201", made.status.as_str());
    let took = wait(KNOWN, || {
        let said = kubectl(site, old, &["explain", "widgets.spec.size"], "")?;
        Ok(said.status == 0 && said.stdout.contains("integer"))
    })?;
    report.check("kubectl explain knows it", "within 6 s", &within(took), took.is_some());
    let deleted = site.request(new, Method::DELETE, &format!("{DEFINITIONS}/widgets.example.com"), None)?;
    report.equal("it is deleted through the new node", "200", deleted.status.as_str());
    for node in [old, new] {
        let took = wait(KNOWN, || {
            let listed = site.request(node, Method::GET, "/apis", None)?.text().contains("example.com");
            Ok(!listed && site.request(node, Method::GET, WIDGETS, None)?.status == 404)
        })?;
        let name = &site.nodes[node].name;
        report.check(&format!("it is gone through {name}"), "within 6 s", &within(took), took.is_some());
    }
    Ok(())
}

/// The controller manager asks the old node, whose API server does not know what the namespace holds.
fn namespaces(site: &Site, old: usize, peer_only: &str, report: &mut Report) -> Result<()> {
    let _manager = controller_manager(site, old)?;
    let namespace = json!({"metadata": {"name": NAMESPACE}});
    let created = site.request(old, Method::POST, "/api/v1/namespaces", Some(&namespace))?;
    report.equal("a namespace", "201", created.status.as_str());
    let collection = peer_only.replace("/v1beta1/", &format!("/v1beta1/namespaces/{NAMESPACE}/"));
    let candidate = json!({
        "apiVersion": "coordination.k8s.io/v1beta1", "kind": "LeaseCandidate", "metadata": {"name": "one"},
        "spec": {"leaseName": "one", "binaryVersion": "0.1.0", "emulationVersion": "0.1.0", "strategy": "OldestEmulationVersion"},
    });
    let made = site.request(old, Method::POST, &collection, Some(&candidate))?;
    report.equal("in it an object of which the old server knows nothing", "201", made.status.as_str());
    let map = json!({"metadata": {"name": "one"}});
    let maps = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    ensure!(site.request(old, Method::POST, &maps, Some(&map))?.status == 201, "no ConfigMap");
    let target = format!("/api/v1/namespaces/{NAMESPACE}");
    let deleted = site.request(old, Method::DELETE, &target, None)?;
    report.equal("the namespace is deleted", "200", deleted.status.as_str());
    let took = wait(GONE, || Ok(site.request(old, Method::GET, &target, None)?.status == 404))?;
    report.check("it ends", "within 60 s", &within(took), took.is_some());
    let left = crate::etcd::history(&site.elsewhere, "/registry/leasecandidates/doomed/")?;
    let is_deleted = left.last().is_some_and(|change| change.value.is_none());
    report.equal("nothing is left in etcd of what it held", "true", &is_deleted.to_string());
    Ok(())
}

fn controller_manager(site: &Site, node: usize) -> Result<Process> {
    let at = &site.nodes[node];
    let program = site.assets.controller_manager.clone().unwrap_or_default();
    let kubeconfig = site.files.path().join(&at.name).join("admin.conf");
    let key = site.files.path().join("sa.key");
    let arguments = [
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--service-account-private-key-file={}", key.display()),
        "--leader-elect=false".to_owned(),
        "--controllers=namespace-controller,garbage-collector-controller,serviceaccount-controller"
            .to_owned(),
        "--secure-port=0".to_owned(),
    ];
    let log = at.server_log.with_file_name(format!("kube-controller-manager-{}.log", at.name));
    ensure!(at.address().port() == SECURE_PORT, "it asks the port that is steered");
    Ok(at.run(|| Process::start_here(&program, &arguments, &log)))
}

/// How long it took; `None` when it did not happen.
fn wait(limit: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<Option<Duration>> {
    let begun = Instant::now();
    while begun.elapsed() < limit {
        if holds()? {
            return Ok(Some(begun.elapsed()));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(None)
}

fn within(took: Option<Duration>) -> String {
    took.map_or_else(
        || "not within the limit".to_owned(),
        |took| format!("after {:.1} s", took.as_secs_f32()),
    )
}
