//! Makes random request lines, ordinary and odd ones.

use http::Method;
use percent_encoding::percent_encode_byte;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::agreement::assert_classified_alike;
use crate::cases;
use crate::cluster::{GROUPS, RESOURCES, SUBRESOURCES, VERSIONS};

/// A request line.
#[derive(Clone, Debug)]
pub(crate) struct RequestLine {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
}

pub(crate) fn request_line() -> impl Strategy<Value = RequestLine> {
    (method(), path(), option::weighted(0.4, query())).prop_map(|(method, path, query)| RequestLine {
        method,
        path,
        query,
    })
}

fn method() -> impl Strategy<Value = Method> {
    prop_oneof![
        4 => Just("GET"),
        4 => select(&["HEAD", "POST", "PUT", "PATCH", "DELETE"][..]),
        1 => select(&["OPTIONS", "CONNECT", "TRACE", "FOO", "get"][..]),
    ]
    .prop_map(|method| Method::from_bytes(method.as_bytes()).unwrap())
}

fn path() -> impl Strategy<Value = String> {
    let any_path = prop_oneof![6 => resource_path(), 2 => odd_path(), 1 => non_resource_path()];
    (any_path, option::weighted(0.1, 0..16_usize)).prop_map(|(path, escaped)| {
        let escape = |(at, c): (usize, char)| match escaped {
            Some(wanted) if wanted == at => c.to_string().bytes().map(percent_encode_byte).collect(),
            _ => c.to_string(),
        };
        path.chars().enumerate().map(escape).collect()
    })
}

/// Something that a server might serve, with and without namespace, name, subresource and more.
fn resource_path() -> impl Strategy<Value = String> {
    let base = (select(&GROUPS[..]), select(&VERSIONS[..]), select(&RESOURCES[..]));
    let legacy = option::weighted(0.1, select(&["watch", "proxy"][..]));
    let subresource = option::weighted(0.6, select(&SUBRESOURCES[1..]));
    let rest = (option::of(Just("ns1")), legacy, option::of(Just("n1")), subresource, any::<bool>());
    (base, rest).prop_map(|((group, version, resource), (namespace, legacy, name, subresource, more))| {
        let mut path = if group.is_empty() { "/api".to_owned() } else { format!("/apis/{group}") };
        let mut add = |segment: &str| {
            path.push('/');
            path.push_str(segment);
        };
        add(version);
        legacy.into_iter().for_each(&mut add);
        if let Some(namespace) = namespace {
            add("namespaces");
            add(namespace);
        }
        add(resource);
        if let Some(name) = name {
            add(name);
            subresource.into_iter().for_each(&mut add);
            if more {
                add("more");
            }
        }
        path
    })
}

/// Meaningful words in meaningless order.
fn odd_path() -> impl Strategy<Value = String> {
    let words = [
        "api",
        "apis",
        "v1",
        "batch",
        "namespaces",
        "ns1",
        "pods",
        "jobs",
        "watch",
        "proxy",
        "status",
        "finalize",
        "",
        "..",
        ".",
        "a%2Fb",
        "%2f",
        "%zz",
        "%",
        "API",
        "x;y=1",
        "ä",
    ];
    let slashes = select(&["", "/", "//"][..]);
    let start = select(&["api", "apis", "apis/batch", "apis//v1", ""][..]);
    (slashes.clone(), start, vec(select(words.to_vec()), 0..9), slashes)
        .prop_map(|(before, start, words, after)| format!("{before}{start}/{}{after}", words.join("/")))
}

fn non_resource_path() -> impl Strategy<Value = String> {
    let paths = ["", "/", "/api", "/apis", "/apis/", "/version", "/readyz/ping", "/openapi/v3/apis/batch/v1"];
    select(paths.to_vec()).prop_map(str::to_owned)
}

fn query() -> impl Strategy<Value = String> {
    let pairs = [
        "watch",
        "watch=",
        "watch=true",
        "watch=0",
        "watch=%30",
        "watch=fAlse",
        "watch=%zz",
        "w%61tch=1",
        "Watch=true",
        "watch=1;x",
        "limit=1",
        "limit=banana",
        "limit=%2B5",
        "timeoutSeconds=",
        "labelSelector=a%3Db",
        "fieldSelector=metadata.name%3Dn1",
        "fieldSelector=metadata.name==n2",
        "fieldSelector=bogus",
        "",
    ];
    let pair = prop_oneof![3 => select(pairs.to_vec()).prop_map(str::to_owned), 2 => field_selector()];
    vec(pair, 0..5).prop_map(|pairs| pairs.join("&"))
}

fn field_selector() -> impl Strategy<Value = String> {
    let pieces = [
        "metadata.name",
        "spec.nodeName",
        "=",
        "=",
        "==",
        "!=",
        ",",
        "\\,",
        "\\=",
        "\\\\",
        "\\",
        "%3D",
        "%2C",
        "n1",
        "n0",
        "..",
        "/",
        "%25",
        "+",
        "%",
        "%41",
    ];
    let term = select(vec![
        "metadata.name=",
        "metadata.name%3D%3D",
        "metadata.name!=",
        "metadata.name=n1,metadata.name=",
        "",
    ]);
    (term, vec(select(pieces.to_vec()), 0..6))
        .prop_map(|(term, pieces)| format!("fieldSelector={term}{}", pieces.concat()))
}

proptest! {
    #![proptest_config(cases(4096))]

    #[test]
    fn requests_are_classified_by_the_letter_of_the_specification(line in request_line()) {
        assert_classified_alike(&line.method, &line.path, line.query.as_deref());
    }
}
