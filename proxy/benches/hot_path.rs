//! What the proxy itself does for each request, without HTTP and TLS: `cargo bench -p mvproxy --bench hot_path`.
//!
//! With `--repeat PART TIMES` it does one part so often and ends: `cargo xtask bench --instructions` counts what that takes
//! under callgrind.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};

use divan::{Bencher, black_box};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, StatusCode, Uri};
use mvproxy::account::Accounts;
use mvproxy::classify::{classify, decode_path};
use mvproxy::config::RequestHeaderNames;
use mvproxy::discovery::document::GroupList;
use mvproxy::discovery::{Part, Served, Snapshot};
use mvproxy::forward::headers::{for_upstream, remove_hop_by_hop};
use mvproxy::identity::{Identity, IdentityHeaders};
use mvproxy::route::{Marks, is_about_this_server, route};
use mvproxy::steering::Steering;
use mvproxy::upstream::{Role, Upstream};
use mvproxy::vitals::Vitals;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [flag, part, times] = &arguments[..] else { return divan::main() };
    if flag != "--repeat" {
        return divan::main();
    }
    let times: usize = times.parse().expect("a number of times");
    let (_, work) = PARTS.iter().find(|(name, _)| name == part).expect("a part by its name");
    LazyLock::force(&WORLD);
    (0..times).for_each(|_| work());
}

/// Parts by name, as `--repeat` takes them.
const PARTS: [(&str, fn()); 5] = [
    ("classify", || classify_one()),
    ("route", || route_one()),
    ("headers", || headers_one()),
    ("account", || account_one()),
    ("response", || response_one()),
];

/// What a worker has at hand.
struct World {
    snapshot: Snapshot,
    accounts: Accounts,
    local: Upstream,
    names: IdentityHeaders,
    identity: Identity,
    request: HeaderMap,
    response: HeaderMap,
    uri: Uri,
}

static WORLD: LazyLock<World> = LazyLock::new(World::new);

impl World {
    /// A node of 1.34 beside one of 1.36.
    fn new() -> Self {
        let counters = Steering::off("a benchmark").counters();
        let server = |port: u16, role| {
            let address = ([127, 0, 0, 1], port).into();
            Upstream { address, role, slot: counters.slot(address) }
        };
        let (local, peer) = (server(6443, Role::Local), server(6444, Role::Peer));
        let older = served(
            include_bytes!("../../tests/fixtures/kube-apiserver/v1.34/api.v2.json"),
            include_bytes!("../../tests/fixtures/kube-apiserver/v1.34/apis.v2.json"),
        );
        let newer = served(
            include_bytes!("../../tests/fixtures/kube-apiserver/v1.36/api.v2.json"),
            include_bytes!("../../tests/fixtures/kube-apiserver/v1.36/apis.v2.json"),
        );
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let names = IdentityHeaders::new(&RequestHeaderNames {
            allowed_names: list(&["front-proxy-client"]),
            username: list(&["X-Remote-User"]),
            group: list(&["X-Remote-Group"]),
            uid: list(&["X-Remote-Uid"]),
            extra_prefix: list(&["X-Remote-Extra-"]),
        });
        let asserted = [("x-remote-user", "system:node:node-17"), ("x-remote-group", "system:nodes")]
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let vitals = Arc::new(Vitals::default());
        Self {
            snapshot: Snapshot::new(&[(local, Some(&older)), (peer, Some(&newer))], true),
            accounts: Accounts::new(counters, vitals, 0),
            local,
            names: names.expect("header names"),
            identity: Identity::Asserted(asserted.into()),
            request: headers(&[
                (USER_AGENT.as_str(), "kubelet/v1.34.0 (linux/amd64) kubernetes/abcdef0"),
                (CONTENT_TYPE.as_str(), "application/vnd.kubernetes.protobuf"),
                ("accept", "application/vnd.kubernetes.protobuf,application/json"),
                ("accept-encoding", "gzip"),
                (AUTHORIZATION.as_str(), "Bearer bob-token"),
            ]),
            response: headers(&[
                ("audit-id", "5f3c1c5e-6f0e-4b8a-9d5e-1f1f6d1d2a3b"),
                ("cache-control", "no-cache, private"),
                (CONTENT_TYPE.as_str(), "application/vnd.kubernetes.protobuf"),
                ("x-kubernetes-pf-flowschema-uid", "0d4f1a4e-7a39-4c4c-8a53-3c9b7e1c8b11"),
                ("x-kubernetes-pf-prioritylevel-uid", "a41ac8a2-3a5c-4f86-a6f1-7f3a5a9d6c10"),
            ]),
            uri: Uri::from_static(PATH),
        }
    }
}

fn served(core: &[u8], groups: &[u8]) -> Served {
    let part = |json| Part { list: GroupList::decode(json).expect("a recorded document"), etag: None };
    Served { core: part(core), groups: part(groups), version: String::new() }
}

fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let fields =
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    fields.collect()
}

const PATH: &str = "/apis/apps/v1/namespaces/kube-system/deployments/coredns?resourceVersion=0";
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 17));

fn classify_one() {
    let uri = black_box(&WORLD.uri);
    let path = decode_path(uri.path());
    black_box(classify(&Method::GET, &path, uri.query()).ok());
}

fn route_one() {
    let uri = black_box(&WORLD.uri);
    let path = decode_path(uri.path());
    let info = classify(&Method::GET, &path, uri.query()).ok();
    let marks = Marks { about_this_server: is_about_this_server(&path), ..Marks::default() };
    black_box(route(info.as_ref(), marks, &WORLD.snapshot));
}

fn headers_one() {
    let mut headers = black_box(&WORLD.request).clone();
    let cleaned = for_upstream(&mut headers, &WORLD.identity, &WORLD.names, CLIENT, false);
    black_box((cleaned.is_ok(), headers));
}

fn response_one() {
    let mut headers = black_box(&WORLD.response).clone();
    remove_hop_by_hop(&mut headers);
    black_box(headers);
}

fn account_one() {
    let mut record = WORLD.accounts.open(Method::GET, WORLD.uri.clone());
    record.sent_to(black_box(&WORLD.local));
    record.answered(StatusCode::OK);
    record.completed();
}

#[divan::bench]
fn classified(bencher: Bencher<'_, '_>) {
    bencher.bench(classify_one);
}

#[divan::bench]
fn classified_and_routed(bencher: Bencher<'_, '_>) {
    bencher.bench(route_one);
}

#[divan::bench]
fn classified_routed_and_accounted(bencher: Bencher<'_, '_>) {
    bencher.bench(|| {
        route_one();
        account_one();
    });
}

/// Copying the headers included.
#[divan::bench]
fn request_headers_cleaned(bencher: Bencher<'_, '_>) {
    bencher.bench(headers_one);
}

/// What of it is copying.
#[divan::bench]
fn request_headers_copied(bencher: Bencher<'_, '_>) {
    bencher.bench(|| black_box(&WORLD.request).clone());
}

#[divan::bench]
fn response_headers_cleaned(bencher: Bencher<'_, '_>) {
    bencher.bench(response_one);
}

#[divan::bench]
fn accounted(bencher: Bencher<'_, '_>) {
    bencher.bench(account_one);
}

/// The counters alone, as they are: relaxed adds in a worker's own part of a mapped array.
#[divan::bench]
fn counted_in_the_map(bencher: Bencher<'_, '_>) {
    let counters = Steering::off("a benchmark").counters();
    let slot = counters.slot(([127, 0, 0, 1], 6443).into());
    bencher.bench(|| {
        let cells = counters.shard(black_box(0), black_box(slot));
        cells.requests.fetch_add(1, Relaxed);
        cells.rerouted.fetch_add(1, Relaxed);
        cells.add_response(black_box(200), black_box(1_234_567));
    });
}

/// The same with a library's labels.
#[divan::bench]
fn counted_by_label(bencher: Bencher<'_, '_>) {
    #[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
    struct Labels {
        peer: String,
        code: u16,
    }
    let families: [Family<Labels, Counter<u64, AtomicU64>>; 4] = Default::default();
    bencher.bench(|| {
        for family in &families {
            let labels = Labels { peer: black_box("127.0.0.1:6443").to_owned(), code: black_box(200) };
            family.get_or_create(&labels).inc();
        }
    });
}
