use http::Method;

use super::*;
use crate::classify::classify;
use crate::discovery::document::GroupList;
use crate::discovery::{Part, Served};
use crate::steering::Steering;
use crate::upstream::{Role, Upstream};

/// A document with one group, version `v1`.
fn serving(group: &str, resources: &[&str]) -> Served {
    let resources: Vec<_> = resources.iter().map(|name| serde_json::json!({"resource": name})).collect();
    let document = serde_json::json!({
        "kind": "APIGroupDiscoveryList", "metadata": {},
        "items": [{"metadata": {"name": group}, "versions": [{"version": "v1", "resources": resources}]}]
    });
    let list = GroupList::decode(document.to_string().as_bytes()).expect("a document");
    Served { groups: Part { list, etag: None }, ..Served::default() }
}

fn snapshot(servers: &[Option<Served>]) -> Snapshot {
    let counters = Steering::off("a test").counters();
    let upstreams: Vec<_> = servers
        .iter()
        .enumerate()
        .map(|(number, served)| {
            let port = 6443 + u16::try_from(number).expect("few servers");
            let address = ([127, 0, 0, 1], port).into();
            let role = if number == 0 { Role::Local } else { Role::Peer };
            (Upstream { address, role, slot: counters.slot(address) }, served.as_ref())
        })
        .collect();
    Snapshot::new(&upstreams)
}

fn decide(path: &str, marks: Marks, snapshot: &Snapshot) -> Route {
    let info = classify(&Method::GET, path, None).ok();
    route(info.as_ref(), marks, snapshot)
}

#[test]
fn every_rung_of_the_ladder() {
    let old = || Some(serving("batch", &["jobs"]));
    let new = || Some(serving("batch", &["jobs", "cronjobs"]));
    let skewed = snapshot(&[old(), new(), new()]);
    let starting = snapshot(&[None, new()]);
    let alone = snapshot(&[old()]);
    let proxied = Marks { already_proxied: true, ..Marks::default() };
    let listing = Marks { discovery: Some(Document::Groups), ..Marks::default() };
    let both = Marks { already_proxied: true, ..listing };
    let peers: ServerSet = [1, 2].into_iter().collect();

    for (path, marks, snapshot, expected) in [
        ("/version", Marks::default(), &skewed, Route::Local(LocalReason::NonResource)),
        ("/apis/batch/v1/watch", Marks::default(), &skewed, Route::Local(LocalReason::NonResource)),
        ("/apis/batch/v1/cronjobs", proxied, &skewed, Route::Local(LocalReason::AlreadyProxied)),
        ("/apis/batch/v1/cronjobs", Marks::default(), &starting, Route::Local(LocalReason::NotSynced)),
        ("/apis/batch/v1/jobs", Marks::default(), &skewed, Route::Local(LocalReason::ServedLocally)),
        ("/apis/batch/v1/nothing", Marks::default(), &skewed, Route::Local(LocalReason::ServedByNobody)),
        ("/apis/batch/v2/cronjobs", Marks::default(), &skewed, Route::Local(LocalReason::ServedByNobody)),
        ("/apis/batch/v1/cronjobs", Marks::default(), &alone, Route::Local(LocalReason::ServedByNobody)),
        ("/apis/batch/v1/cronjobs", Marks::default(), &skewed, Route::Peers(peers)),
        ("/apis/batch/v1/namespaces/n/cronjobs/c/status", Marks::default(), &skewed, Route::Peers(peers)),
        ("/apis", listing, &skewed, Route::Discovery(Document::Groups)),
        ("/apis", both, &skewed, Route::Local(LocalReason::NonResource)),
        ("/apis", listing, &alone, Route::Local(LocalReason::NonResource)),
    ] {
        assert_eq!(decide(path, marks, snapshot), expected, "{path}");
    }
}

#[test]
fn a_switched_off_proxy_serves_everything_locally() {
    let skewed = snapshot(&[None]);
    let local = skewed.upstream(0).expect("the local server");
    let disabled = Snapshot::disabled(local);
    assert_eq!(
        decide("/apis/batch/v1/cronjobs", Marks::default(), &disabled),
        Route::Local(LocalReason::Disabled)
    );
}
