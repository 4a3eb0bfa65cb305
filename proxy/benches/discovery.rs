//! What merged discovery of a cluster with 5,000 custom resource definitions costs: `cargo bench -p mvproxy --bench discovery`.
//!
//! The time of `snapshot` is CPU off the path of requests, once per change; `max alloc` and `grow` of it are what the
//! snapshot keeps and what making it takes beside. `serve` is what a request pays.

use std::sync::LazyLock;

use divan::{AllocProfiler, Bencher, black_box};
use mvproxy::discovery::document::{ApiVersion, Group, GroupList, GroupMeta, GroupVersionKind};
use mvproxy::discovery::document::{Resource, Subresource, Version};
use mvproxy::discovery::page::{Encoding, Form};
use mvproxy::discovery::view::Name;
use mvproxy::discovery::{Document, Part, Served, Snapshot};
use mvproxy::steering::Steering;
use mvproxy::upstream::{Role, Upstream};

#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

/// Two resources each.
const DEFINITIONS: usize = 5_000;

fn main() {
    let bytes = document(DEFINITIONS).encode().len();
    println!("{DEFINITIONS} groups, {} resources, {bytes} bytes of JSON", 2 * DEFINITIONS);
    divan::main();
}

fn resource(group: &str, name: &str) -> Resource {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let kind = |group: &str, version: &str, kind: &str| {
        Some(GroupVersionKind { group: group.to_owned(), version: version.to_owned(), kind: kind.to_owned() })
    };
    Resource {
        resource: format!("{name}s"),
        response_kind: kind(group, "v1", name),
        scope: "Namespaced".to_owned(),
        singular_resource: name.to_owned(),
        verbs: Some(words(&[
            "delete",
            "deletecollection",
            "get",
            "list",
            "patch",
            "create",
            "update",
            "watch",
        ])),
        short_names: words(&["wd"]),
        categories: words(&["all"]),
        subresources: vec![Subresource {
            subresource: "status".to_owned(),
            response_kind: kind(group, "v1", name),
            accepted_types: Vec::new(),
            verbs: Some(words(&["get", "patch", "update"])),
        }],
    }
}

fn document(definitions: usize) -> GroupList {
    let group = |number: usize| {
        let name = format!("group-{number:05}.example.com");
        let resources = ["widget", "gadget"].map(|kind| resource(&name, kind)).into();
        let freshness = "Current".to_owned();
        Group {
            metadata: GroupMeta { name },
            versions: vec![Version { version: "v1".to_owned(), resources, freshness }],
        }
    };
    GroupList::of((0..definitions).map(group).collect())
}

/// The local server, which lacks a hundred definitions, and two peers.
static SERVERS: LazyLock<Vec<(Upstream, Served)>> = LazyLock::new(|| {
    let counters = Steering::off("a benchmark").counters();
    let server = |number: u16, version: &str, definitions| {
        let address = ([127, 0, 0, 1], 6443 + number).into();
        let role = if number == 0 { Role::Local } else { Role::Peer };
        let list = document(definitions);
        let groups = Part { etag: Some(list.etag()), list };
        let served = Served { groups, version: version.to_owned(), ..Served::default() };
        (Upstream { address, role, slot: counters.slot(address) }, served)
    };
    vec![
        server(0, "v1.34.0", DEFINITIONS - 100),
        server(1, "v1.36.0", DEFINITIONS),
        server(2, "v1.36.0", DEFINITIONS),
    ]
});

fn taken() -> Snapshot {
    let servers: Vec<_> = SERVERS.iter().map(|(upstream, served)| (*upstream, Some(served))).collect();
    Snapshot::new(&servers, true)
}

#[divan::bench(sample_count = 20)]
fn decode(bencher: Bencher<'_, '_>) {
    let json = document(DEFINITIONS).encode();
    bencher.bench(|| GroupList::decode(black_box(&json)).expect("a document"));
}

#[divan::bench(sample_count = 20)]
fn snapshot(bencher: Bencher<'_, '_>) {
    LazyLock::force(&SERVERS);
    bencher.bench(taken);
}

#[divan::bench]
fn serve(bencher: Bencher<'_, '_>) {
    let snapshot = taken();
    bencher.bench(|| {
        let page = snapshot.view().find(Name::Aggregated(Document::Groups)).expect("a merged document");
        page.body(Form::USUAL).clone()
    });
}

#[divan::bench(args = [Encoding::PrettyJson, Encoding::Yaml, Encoding::Protobuf], sample_count = 10)]
fn first_time_in_another_form(bencher: Bencher<'_, '_>, encoding: Encoding) {
    bencher.with_inputs(taken).bench_refs(|snapshot| {
        let page = snapshot.view().find(Name::Aggregated(Document::Groups)).expect("a merged document");
        page.body(Form { encoding, version: ApiVersion::V2 }).plain.len()
    });
}
