//! The merged view of every pair of recorded API servers is the reviewed one in `fixtures/golden/discovery`.
//!
//! `UPDATE_GOLDEN=1 cargo test -p mvproxy-tests --test discovery_golden` writes the files anew, for review.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fmt::Write as _;
use std::path::PathBuf;

use mvproxy::discovery::document::{ApiVersion, GroupList, Resource};
use mvproxy::discovery::page::{Encoding, Form, Page};
use mvproxy::discovery::view::Name;
use mvproxy::discovery::{Document, Part, Served, Snapshot};
use mvproxy::steering::Steering;
use mvproxy::upstream::{Role, Upstream};
use serde_json::Value;

#[path = "discovery_support/protobuf.rs"]
mod protobuf;

const NAMES: [&str; 5] = ["v1.33", "v1.34", "v1.35", "v1.36", "v1.36-all"];

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// A server that serves what was recorded of one of this name. All were recorded from one program, with different settings.
fn recorded(name: &str) -> Served {
    let part = |file: &str| {
        let json = std::fs::read(fixtures().join("kube-apiserver").join(name).join(file)).unwrap();
        let list = GroupList::decode(&json).unwrap();
        Part { etag: Some(list.etag()), list }
    };
    let version = format!("{}.0", name.trim_end_matches("-all"));
    Served { core: part("api.v2.json"), groups: part("apis.v2.json"), version }
}

fn snapshot(local: &Served, peer: &Served) -> Snapshot {
    let counters = Steering::off("a test").counters();
    let upstream = |port: u16, role| {
        let address = ([127, 0, 0, 1], port).into();
        Upstream { address, role, slot: counters.slot(address) }
    };
    Snapshot::new(&[(upstream(1, Role::Local), Some(local)), (upstream(2, Role::Peer), Some(peer))], true)
}

/// The document that a node shows: the merged one, or its own server's.
fn shown(snapshot: &Snapshot, local: &Served, document: Document) -> GroupList {
    match snapshot.view().find(Name::Aggregated(document)) {
        Some(page) => GroupList::decode(&page.body(Form::USUAL).plain).unwrap(),
        None => local.part(document).list.clone(),
    }
}

/// `name verbs (subresource verbs, …)`, a verb being its first letters.
fn line(resource: &Resource) -> String {
    let verbs = |verbs: &Option<Vec<String>>| {
        let short = |verb: &String| match verb.as_str() {
            "deletecollection" => "D".to_owned(),
            verb => verb[..1].to_owned(),
        };
        let short: Vec<String> = verbs.iter().flatten().map(short).collect();
        short.concat()
    };
    let mut line = format!("    {} {}", resource.resource, verbs(&resource.verbs));
    let subresources: Vec<String> = resource
        .subresources
        .iter()
        .map(|one| format!("{} {}", one.subresource, verbs(&one.verbs)))
        .collect();
    if !subresources.is_empty() {
        write!(line, " ({})", subresources.join(", ")).unwrap();
    }
    line
}

/// What of a document is not in `known`, group by group in the document's order.
fn rendered(list: &GroupList, known: &GroupList) -> String {
    let mut text = String::new();
    for group in &list.items {
        let same = known.items.iter().find(|one| one.metadata.name == group.metadata.name);
        let versions: Vec<&str> = group.versions.iter().map(|one| one.version.as_str()).collect();
        writeln!(text, "{:?}: {}", group.metadata.name, versions.join(" ")).unwrap();
        for version in &group.versions {
            let same =
                same.and_then(|group| group.versions.iter().find(|one| one.version == version.version));
            if same == Some(version) {
                continue;
            }
            writeln!(text, "  {} {}", version.version, version.freshness).unwrap();
            for resource in &version.resources {
                if same.is_none_or(|version| !version.resources.contains(resource)) {
                    writeln!(text, "{}", line(resource)).unwrap();
                }
            }
        }
    }
    text
}

/// The documents that are merged on a node.
fn replaced(snapshot: &Snapshot, lists: [&GroupList; 2]) -> String {
    let mut names =
        vec![Name::Aggregated(Document::Core), Name::Aggregated(Document::Groups), Name::GroupList];
    for group in lists.into_iter().flat_map(|list| &list.items) {
        let name = group.metadata.name.as_str();
        names.push(Name::Group(name));
        names.extend(group.versions.iter().map(|one| Name::Resources { group: name, version: &one.version }));
    }
    let found =
        names.into_iter().filter(|name| snapshot.view().find(*name).is_some()).map(|name| match name {
            Name::Aggregated(document) => format!("{} aggregated", document.path()),
            Name::GroupList => "/apis".to_owned(),
            Name::Group(group) => format!("/apis/{group}"),
            Name::Resources { group: "", version } => format!("/api/{version}"),
            Name::Resources { group, version } => format!("/apis/{group}/{version}"),
        });
    let found: Vec<String> = found.collect();
    if found.is_empty() { "  nothing".to_owned() } else { format!("  {}", found.join("\n  ")) }
}

fn compare(file: &str, seen: &str) {
    let path = fixtures().join("golden/discovery").join(file);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, seen).unwrap();
        return;
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    let first = golden.lines().zip(seen.lines()).position(|(golden, seen)| golden != seen);
    assert!(
        golden == seen,
        "{file} differs from line {:?} on; with UPDATE_GOLDEN=1 it is written anew",
        first.map(|line| line + 1)
    );
}

/// One file per pair: both orders have to show the same documents.
fn compare_pairs(suffix: &str, change: impl Fn(&mut Served)) {
    for (number, first) in NAMES.iter().enumerate() {
        for second in &NAMES[number + 1..] {
            let (a, mut b) = (recorded(first), recorded(second));
            change(&mut b);
            let (on_a, on_b) = (snapshot(&a, &b), snapshot(&b, &a));
            let mut text = format!("# {first} and {second}{suffix}: what is not as in the latter\n");
            for document in Document::ALL {
                let list = shown(&on_a, &a, document);
                assert!(list == shown(&on_b, &b, document), "{} of {first} and {second}", document.path());
                let etag = list.etag();
                writeln!(text, "\n{}, tag {}…", document.path(), &etag.to_str().unwrap()[1..33]).unwrap();
                text.push_str(&rendered(&list, &b.part(document).list));
            }
            for (node, snapshot, served) in [(first, &on_a, &a), (second, &on_b, &b)] {
                let groups = shown(snapshot, served, Document::Groups);
                let core = shown(snapshot, served, Document::Core);
                writeln!(text, "\nmerged on {node}:\n{}", replaced(snapshot, [&core, &groups])).unwrap();
            }
            compare(&format!("{first}+{second}{suffix}.txt"), &text);
        }
    }
}

#[test]
fn the_merged_view_of_every_pair_is_the_reviewed_one() {
    compare_pairs("", |_| {});
}

/// No recorded server lacks what an older one has. This one does: a resource, a subresource, verbs, a version, a group; and it
/// cannot ask one of its aggregated API servers.
#[test]
fn the_merged_view_of_every_pair_in_which_either_lacks_something_is_the_reviewed_one() {
    compare_pairs("-lacking", |served| {
        let core = &mut served.core.list.items[0].versions[0].resources;
        core.retain(|resource| resource.resource != "podtemplates");
        let pods = core.iter_mut().find(|resource| resource.resource == "pods").unwrap();
        pods.subresources.retain(|one| one.subresource != "ephemeralcontainers");
        pods.short_names = vec!["pod".to_owned()];
        let groups = &mut served.groups.list.items;
        groups.retain(|group| group.metadata.name != "batch");
        let autoscaling = groups.iter_mut().find(|group| group.metadata.name == "autoscaling").unwrap();
        autoscaling.versions.retain(|version| version.version != "v2");
        let apps = &mut groups.iter_mut().find(|group| group.metadata.name == "apps").unwrap().versions[0];
        apps.freshness = "Stale".to_owned();
        apps.resources[0].verbs = Some(vec!["get".to_owned(), "list".to_owned()]);
        for part in [&mut served.core, &mut served.groups] {
            part.etag = Some(part.list.etag());
        }
    });
}

/// Two servers of which neither has all: written out in full.
#[test]
fn a_whole_merged_document_is_the_reviewed_one() {
    let (mut old, mut new) = (recorded("v1.33"), recorded("v1.36"));
    let kept = |served: &mut Served, names: &[&str]| {
        let groups = &mut served.groups.list.items;
        groups.retain(|group| names.contains(&group.metadata.name.as_str()));
        served.groups.etag = Some(served.groups.list.etag());
    };
    kept(&mut old, &["autoscaling", "events.k8s.io", "storage.k8s.io", "batch"]);
    kept(&mut new, &["autoscaling", "policy", "storage.k8s.io", "coordination.k8s.io"]);
    let snapshot = snapshot(&old, &new);
    for (name, file) in [
        (Name::Aggregated(Document::Groups), "whole-apis.json"),
        (Name::GroupList, "whole-apis-unaggregated.json"),
    ] {
        let page = snapshot.view().find(name).unwrap();
        let form = Form { encoding: Encoding::PrettyJson, version: ApiVersion::V2 };
        compare(file, std::str::from_utf8(&page.body(form).plain).unwrap());
    }
}

fn json(page: &Page) -> Value {
    serde_json::from_slice(&page.body(Form::USUAL).plain).unwrap()
}

/// The texts of a whole pair of servers, in all three media types.
#[test]
fn json_yaml_and_protobuf_of_every_pair_say_the_same() {
    let form = |encoding| Form { encoding, version: ApiVersion::V2 };
    let mut compared = 0;
    for first in NAMES {
        for second in NAMES.into_iter().filter(|second| *second != first) {
            let snapshot = snapshot(&recorded(first), &recorded(second));
            let resources = [("storage.k8s.io", "v1beta1"), ("resource.k8s.io", "v1alpha3")]
                .map(|(group, version)| Name::Resources { group, version });
            let names = [Name::Aggregated(Document::Groups), Name::GroupList, Name::Group("storage.k8s.io")];
            for page in names.iter().chain(&resources).filter_map(|name| snapshot.view().find(*name)) {
                let (yaml, pb) = (page.body(form(Encoding::Yaml)), page.body(form(Encoding::Protobuf)));
                let yaml = std::str::from_utf8(&yaml.plain).unwrap();
                assert_eq!(serde_saphyr::from_str::<Value>(yaml).unwrap(), json(page), "{first} {second}");
                assert_eq!(protobuf::decoded(&pb.plain), json(page), "{first} {second}");
                compared += 1;
            }
        }
    }
    assert!(compared >= 36, "{compared} documents are too few for this to mean anything");
}
