use http::Method;

use super::*;
use crate::classify::classify;
use crate::discovery::document::GroupList;
use crate::discovery::view::Name;
use crate::discovery::{Document, Part, Served};
use crate::steering::Steering;
use crate::upstream::{Role, Upstream};

/// A server of one group, version `v1`: `(resource, verbs)`, a subresource as `resource/subresource`.
fn serving(group: &str, resources: &[(&str, &[&str])]) -> Served {
    let is_top = |name: &&(&str, &[&str])| !name.0.contains('/');
    let resources: Vec<_> = resources
        .iter()
        .filter(is_top)
        .map(|(name, verbs)| {
            let prefix = format!("{name}/");
            let subresources: Vec<_> = resources
                .iter()
                .filter_map(|(name, verbs)| Some((name.strip_prefix(&prefix)?, verbs)))
                .map(|(name, verbs)| serde_json::json!({"subresource": name, "verbs": verbs}))
                .collect();
            serde_json::json!({"resource": name, "verbs": verbs, "subresources": subresources})
        })
        .collect();
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
    Snapshot::new(&upstreams, true)
}

fn decide<'a>(method: &Method, path: &str, marks: Marks<'a>, snapshot: &Snapshot) -> Route<'a> {
    let info = classify(method, path, None).ok();
    route(info.as_ref(), marks, snapshot)
}

fn local(reason: LocalReason, stand_ins: &[usize]) -> Route<'static> {
    Route::Local { reason, stand_ins: set(stand_ins) }
}

fn set(servers: &[usize]) -> ServerSet {
    servers.iter().copied().collect()
}

/// `/openapi/v2` where two peers serve more than the local server, and alike.
fn merged() -> Route<'static> {
    Route::OpenApiV2 { fullest: set(&[1, 2]), stand_ins: set(&[1, 2]) }
}

const READ: &[&str] = &["get", "list"];

#[test]
fn every_rung_of_the_ladder() {
    let old = || Some(serving("batch", &[("jobs", READ)]));
    let new = || Some(serving("batch", &[("jobs", READ), ("cronjobs", READ), ("cronjobs/status", READ)]));
    let skewed = snapshot(&[old(), new(), new()]);
    let starting = snapshot(&[None, new()]);
    let alone = snapshot(&[old()]);
    let unaccounted = snapshot(&[old(), new(), None]);
    let lacking = snapshot(&[Some(serving("apps", &[])), old(), new()]);
    let nothing = Marks::default();
    let proxied = Marks { already_proxied: true, ..nothing };
    let asks = |name| Marks { discovery: Some(Asked { name, form: None, root: None }), ..nothing };
    let listing = asks(Name::Aggregated(Document::Groups));
    let resources = |version| asks(Name::Resources { group: "batch", version });
    let describes = |openapi| Marks { openapi: Some(openapi), ..nothing };
    let of_batch = |version| describes(OpenApi::V3 { group: "batch", version });
    let health = Marks { about_this_server: true, ..nothing };
    let both = Marks { already_proxied: true, ..listing };
    let discovery = |marks: Marks<'static>| Route::Discovery {
        asked: marks.discovery.expect("a discovery request"),
        stand_ins: set(&[1, 2]),
    };
    let cronjobs = "/apis/batch/v1/cronjobs";
    let nowhere = "/apis/batch/v1/nothing";

    for (path, marks, snapshot, expected) in [
        ("/version", nothing, &skewed, local(LocalReason::NonResource, &[1, 2])),
        ("/readyz", health, &skewed, local(LocalReason::NonResource, &[])),
        ("/apis/batch/v1/watch", nothing, &skewed, local(LocalReason::NonResource, &[1, 2])),
        (cronjobs, proxied, &skewed, local(LocalReason::AlreadyProxied, &[])),
        (cronjobs, nothing, &starting, local(LocalReason::NotSynced, &[1])),
        (nowhere, nothing, &starting, local(LocalReason::NotSynced, &[])),
        ("/apis/batch/v1/jobs", nothing, &skewed, local(LocalReason::ServedLocally, &[1, 2])),
        ("/apis/batch/v1/jobs", nothing, &unaccounted, local(LocalReason::ServedLocally, &[1])),
        (nowhere, nothing, &skewed, local(LocalReason::ServedByNobody, &[1, 2])),
        ("/apis/batch/v2/cronjobs", nothing, &skewed, local(LocalReason::ServedByNobody, &[1, 2])),
        (cronjobs, nothing, &alone, local(LocalReason::ServedByNobody, &[])),
        (nowhere, nothing, &unaccounted, Route::Unavailable(set(&[2]))),
        (cronjobs, nothing, &unaccounted, Route::Peers(set(&[1]))),
        (cronjobs, nothing, &skewed, Route::Peers(set(&[1, 2]))),
        ("/apis/batch/v1/namespaces/n/cronjobs/c/status", nothing, &skewed, Route::Peers(set(&[1, 2]))),
        ("/apis", listing, &skewed, discovery(listing)),
        ("/apis/batch/v1", resources("v1"), &skewed, discovery(resources("v1"))),
        // What only the local server words, what nobody has, and what somebody unheard of may have.
        ("/apis/batch", asks(Name::Group("batch")), &skewed, local(LocalReason::NonResource, &[1, 2])),
        ("/apis/batch/v2", resources("v2"), &skewed, local(LocalReason::NonResource, &[1, 2])),
        ("/apis/batch/v2", resources("v2"), &unaccounted, Route::Unavailable(set(&[2]))),
        ("/apis/other", asks(Name::Group("other")), &unaccounted, Route::Unavailable(set(&[2]))),
        ("/apis/batch/v2", resources("v2"), &starting, local(LocalReason::NonResource, &[1])),
        ("/openapi/v2", describes(OpenApi::V2), &skewed, merged()),
        ("/openapi/v2", describes(OpenApi::V2), &alone, local(LocalReason::NonResource, &[])),
        ("/openapi/v2", describes(OpenApi::V2), &starting, local(LocalReason::NonResource, &[1])),
        ("/openapi/v3", describes(OpenApi::Index), &skewed, Route::OpenApiIndex { stand_ins: set(&[1, 2]) }),
        ("/openapi/v3", describes(OpenApi::Index), &alone, local(LocalReason::NonResource, &[])),
        ("/openapi/v3/apis/batch/v1", of_batch("v1"), &skewed, Route::PeersFirst(set(&[1, 2]))),
        ("/openapi/v3/apis/batch/v1", of_batch("v1"), &alone, local(LocalReason::NonResource, &[])),
        ("/openapi/v3/apis/batch/v1", of_batch("v1"), &lacking, Route::Peers(set(&[1, 2]))),
        ("/openapi/v3/apis/batch/v2", of_batch("v2"), &skewed, local(LocalReason::NonResource, &[1, 2])),
        ("/openapi/v3/apis/batch/v2", of_batch("v2"), &unaccounted, Route::Unavailable(set(&[2]))),
        ("/apis", both, &skewed, local(LocalReason::AlreadyProxied, &[])),
        ("/apis", listing, &alone, local(LocalReason::NonResource, &[])),
    ] {
        assert_eq!(decide(&Method::GET, path, marks, snapshot), expected, "{path} {marks:?}");
    }
}

#[test]
fn subresource_and_verb_count() {
    let old = Some(serving("g", &[("pods", READ), ("pods/log", &["get"])]));
    let new = Some(serving(
        "g",
        &[
            ("pods", &["get", "list", "patch"]),
            ("pods/log", &["get"]),
            ("pods/resize", &["get", "patch"]),
            ("new", READ),
        ],
    ));
    let skewed = snapshot(&[old, new]);
    let peer = Route::Peers(set(&[1]));
    for (method, path, expected) in [
        (Method::GET, "/apis/g/v1/namespaces/n/pods/p", local(LocalReason::ServedLocally, &[1])),
        (Method::GET, "/apis/g/v1/namespaces/n/pods/p/log", local(LocalReason::ServedLocally, &[1])),
        (Method::PATCH, "/apis/g/v1/namespaces/n/pods/p/resize", peer),
        (Method::PATCH, "/apis/g/v1/namespaces/n/pods/p", peer),
        // Nobody lists it: the local server words the 405, for it knows the resource.
        (Method::DELETE, "/apis/g/v1/namespaces/n/pods/p", local(LocalReason::ServedByNobody, &[1])),
        (Method::GET, "/apis/g/v1/namespaces/n/pods/p/nothing", local(LocalReason::ServedByNobody, &[1])),
        (Method::GET, "/apis/g/v1/namespaces/n/new/p/nothing", peer),
        (Method::DELETE, "/apis/g/v1/namespaces/n/new/p", peer),
        (Method::OPTIONS, "/apis/g/v1/namespaces/n/pods/p", local(LocalReason::ServedLocally, &[1])),
    ] {
        assert_eq!(decide(&method, path, Marks::default(), &skewed), expected, "{method} {path}");
    }
}

#[test]
fn a_switched_off_proxy_serves_everything_locally() {
    let server = snapshot(&[None]).upstream(0).expect("the local server");
    let disabled = Snapshot::disabled(server);
    assert_eq!(
        decide(&Method::GET, "/apis/batch/v1/cronjobs", Marks::default(), &disabled),
        local(LocalReason::Disabled, &[])
    );
}

#[test]
fn what_asks_about_one_server() {
    for (path, expected) in [
        ("/livez", true),
        ("/readyz/ping", true),
        ("//healthz", true),
        ("/metrics", true),
        ("/debug/pprof/heap", true),
        ("/version", false),
        ("/openapi/v3", false),
        ("/", false),
        ("/apis/metrics", false),
    ] {
        assert_eq!(is_about_this_server(path), expected, "{path}");
    }
}
