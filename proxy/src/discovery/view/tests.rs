use serde_json::{Value, json};

use super::*;
use crate::discovery::Part;
use crate::discovery::page::Form;
use crate::steering::Steering;
use crate::upstream::Role;

type Groups<'a> = &'a [(&'a str, &'a [(&'a str, &'a [&'a str])])];

/// A server of this version that serves `(group, [(version, [resource])])`.
fn serving(version: &str, groups: Groups<'_>) -> Served {
    let list = |wanted: bool| {
        let items = groups.iter().filter(|(name, _)| name.is_empty() == wanted);
        let items: Vec<Value> = items
            .map(|(name, versions)| {
                let versions: Vec<Value> = versions
                    .iter()
                    .map(|(version, resources)| {
                        let kind = |name: &&str| json!({"resource": name, "verbs": ["get"], "responseKind": {"kind": name}});
                        let resources: Vec<Value> = resources.iter().map(kind).collect();
                        json!({"version": version, "freshness": "Current", "resources": resources})
                    })
                    .collect();
                json!({"metadata": {"name": name}, "versions": versions})
            })
            .collect();
        let json = json!({"kind": "APIGroupDiscoveryList", "items": items}).to_string();
        let list = GroupList::decode(json.as_bytes()).expect("a document");
        Part { etag: Some(list.etag()), list }
    };
    Served { core: list(true), groups: list(false), version: version.to_owned() }
}

fn view(servers: &[Option<&Served>]) -> View {
    let counters = Steering::off("a test").counters();
    let servers: Vec<_> = servers
        .iter()
        .zip(1..)
        .map(|(served, port)| {
            let address = ([127, 0, 0, 1], port).into();
            let role = if port == 1 { Role::Local } else { Role::Peer };
            (Upstream { address, role, slot: counters.slot(address) }, *served)
        })
        .collect();
    View::of(&servers)
}

const CORE: Name<'_> = Name::Aggregated(Document::Core);
const GROUPS: Name<'_> = Name::Aggregated(Document::Groups);

fn resources<'a>(group: &'a str, version: &'a str) -> Name<'a> {
    Name::Resources { group, version }
}

/// The names that the view has a document for.
fn found<'a>(view: &View, names: &[Name<'a>]) -> Vec<Name<'a>> {
    names.iter().copied().filter(|name| view.find(*name).is_some()).collect()
}

fn json(view: &View, name: Name<'_>) -> Value {
    let page = view.find(name).unwrap_or_else(|| panic!("no {name:?}"));
    serde_json::from_slice(&page.body(Form::USUAL).plain).expect("JSON")
}

#[test]
fn what_servers_word_differently_is_replaced_at_each_of_them() {
    let old = serving(
        "v1.34.0",
        &[("", &[("v1", &["pods"])]), ("apps", &[("v1", &["deployments"])]), ("batch", &[("v1", &["jobs"])])],
    );
    let new = serving(
        "v1.36.0",
        &[
            ("", &[("v1", &["pods"])]),
            ("apps", &[("v1", &["deployments"])]),
            ("batch", &[("v2", &["jobs"]), ("v1", &["jobs", "cronjobs"])]),
            ("new", &[("v1", &["things"])]),
        ],
    );
    let all = [
        CORE,
        GROUPS,
        Name::GroupList,
        Name::Group("apps"),
        Name::Group("batch"),
        Name::Group("new"),
        resources("", "v1"),
        resources("apps", "v1"),
        resources("batch", "v1"),
        resources("batch", "v2"),
        resources("new", "v1"),
    ];
    let through_old = view(&[Some(&old), Some(&new)]);
    assert_eq!(
        found(&through_old, &all),
        [
            GROUPS,
            Name::GroupList,
            Name::Group("batch"),
            Name::Group("new"),
            resources("batch", "v1"),
            resources("batch", "v2"),
            resources("new", "v1")
        ]
    );
    let batch = json(&through_old, Name::Group("batch"));
    assert_eq!(batch["preferredVersion"]["groupVersion"], "batch/v2");
    assert_eq!(batch["versions"].as_array().map(Vec::len), Some(2));
    let listed = json(&through_old, resources("batch", "v1"));
    assert_eq!(
        (&listed["resources"][0]["name"], &listed["resources"][1]["name"]),
        (&json!("jobs"), &json!("cronjobs"))
    );

    // The new server has everything, until it is down: nothing may vanish then.
    let through_new = view(&[Some(&new), Some(&old)]);
    assert_eq!(found(&through_new, &all), found(&through_old, &all));
    for name in found(&through_old, &all) {
        assert_eq!(json(&through_new, name), json(&through_old, name));
    }
    // Servers that say the same are left to say it.
    assert_eq!(found(&view(&[Some(&new), Some(&new)]), &all), []);
}

#[test]
fn nothing_is_replaced_while_servers_agree_or_the_local_one_is_silent() {
    let groups: Groups<'_> = &[("", &[("v1", &["pods"])]), ("apps", &[("v1", &["deployments"])])];
    let (a, b) = (serving("v1.34.0", groups), serving("v1.36.0", groups));
    let all =
        [CORE, GROUPS, Name::GroupList, Name::Group("apps"), resources("", "v1"), resources("apps", "v1")];
    for servers in [vec![Some(&a), Some(&b)], vec![Some(&a), None], vec![None, Some(&b)], vec![]] {
        assert_eq!(found(&view(&servers), &all), []);
    }
}

#[test]
fn the_core_group_is_merged_too() {
    let old = serving("v1.34.0", &[("", &[("v1", &["pods"])])]);
    let new = serving("v1.36.0", &[("", &[("v1", &["pods", "podgroups"])])]);
    let view = view(&[Some(&old), Some(&new)]);
    assert_eq!(
        found(&view, &[CORE, GROUPS, Name::GroupList, resources("", "v1")]),
        [CORE, resources("", "v1")]
    );
    assert_eq!(json(&view, resources("", "v1"))["resources"][1]["name"], "podgroups");
}

#[test]
fn a_list_in_another_order_is_the_same_list() {
    let a = serving("v1.36.0", &[("apps", &[("v1", &["deployments", "replicasets"])])]);
    let b = serving("v1.34.0", &[("apps", &[("v1", &["replicasets", "deployments"])])]);
    let view = view(&[Some(&b), Some(&a)]);
    assert_eq!(
        found(&view, &[GROUPS, Name::GroupList, Name::Group("apps"), resources("apps", "v1")]),
        [GROUPS]
    );
}

#[test]
fn who_serves_a_group_version_is_known_also_of_peers_alone() {
    let old = serving("v1.34.0", &[("apps", &[("v1", &["deployments"])])]);
    let new = serving("v1.36.0", &[("apps", &[("v1", &["deployments"])]), ("new", &[("v1", &["things"])])]);
    for (servers, apps, things) in [
        (vec![Some(&old), Some(&new)], vec![0, 1], vec![1]),
        (vec![None, Some(&new), Some(&old)], vec![1, 2], vec![1]),
    ] {
        let view = view(&servers);
        assert_eq!(view.fullest_of("apps", "v1"), apps.into_iter().collect());
        assert_eq!(view.fullest_of("new", "v1"), things.into_iter().collect());
        for (name, listed) in [
            (resources("new", "v1"), true),
            (resources("new", "v2"), false),
            (Name::Group("new"), true),
            (Name::Group("other"), false),
            (Name::GroupList, true),
            (CORE, true),
        ] {
            assert_eq!(view.is_listed(name), listed, "{name:?}");
        }
    }
}

#[test]
fn the_local_servers_tags_are_kept() {
    let old = serving("v1.34.0", &[("apps", &[("v1", &["deployments"])])]);
    let new = serving("v1.36.0", &[]);
    let view = view(&[Some(&old), Some(&new)]);
    assert_eq!(view.local_etag(Document::Groups), old.groups.etag.as_ref());
    assert_eq!(view.local_etag(Document::Core), old.core.etag.as_ref());
}

#[test]
fn whoever_lists_most_is_told_from_who_lists_less() {
    let less = serving("v1.36.0", &[("", &[("v1", &["pods"])]), ("apps", &[("v1", &["deployments"])])]);
    let more = serving("v1.34.0", &[("apps", &[("v1", &["deployments", "daemonsets"])])]);
    let other =
        serving("v1.35.0", &[("apps", &[("v1", &["deployments", "replicasets"])]), ("new", &[("v1", &[])])]);
    let view = view(&[Some(&less), Some(&more), Some(&other), None]);
    let set = |servers: &[usize]| servers.iter().copied().collect();
    assert_eq!(view.fullest_of("apps", "v1"), set(&[1, 2]));
    assert_eq!(view.fullest_of("", "v1"), set(&[0]));
    assert_eq!(view.fullest_of("new", "v1"), set(&[2]));
    assert_eq!(view.fullest_of("new", "v2"), set(&[]));
    assert_eq!(view.fullest(), set(&[0, 1, 2]), "two resources each");
    let mut elsewhere: Vec<_> = view.elsewhere().collect();
    elsewhere.sort_unstable();
    assert_eq!(elsewhere, [("apps", "v1"), ("new", "v1")]);
}
