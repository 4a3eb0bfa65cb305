use super::*;

const HEAD: &str =
    r#"{"kind":"APIGroupDiscoveryList","apiVersion":"apidiscovery.k8s.io/v2","metadata":{},"items":"#;

fn document(items: &str) -> Vec<u8> {
    format!("{HEAD}{items}}}").into_bytes()
}

/// Recorded, and computed with `sha512sum` over the document with its kind and apiVersion cut off.
#[test]
fn a_recorded_document_has_the_tag_of_the_server_it_was_recorded_from() {
    let recorded = include_bytes!("../../../../tests/fixtures/kube-apiserver/v1.34/apis.v2.json");
    let tag = "\"36EB20B532B5E2220EA305AA35A76130E48B4367FAC435B022F3FC7CC8651F2B\
53D6FFAE2CCFF66A7C4FE55F0C3C444469D951C312B0B0CA6E39D25226A5541F\"";
    assert_eq!(GroupList::decode(recorded).expect("a recorded document").etag(), tag);
}

#[test]
fn lists_that_go_writes_as_null_are_empty() {
    let list = GroupList::decode(&document("null")).expect("no groups");
    assert_eq!(list, GroupList::default());
    let items = r#"[{"metadata":{"name":"g"},"versions":[{"version":"v1","resources":[
        {"resource":"r","responseKind":null,"scope":"Cluster","singularResource":"","verbs":null}]}]}]"#;
    let list = GroupList::decode(&document(items)).expect("a group");
    assert_eq!(list.items[0].versions[0].resources[0].verbs, None);
}

#[test]
fn both_versions_are_read_and_other_objects_are_not() {
    let of = |kind: &str, version: &str| {
        GroupList::decode(format!(r#"{{"kind":"{kind}","apiVersion":"{version}","items":[]}}"#).as_bytes())
    };
    for version in ["apidiscovery.k8s.io/v2", "apidiscovery.k8s.io/v2beta1"] {
        assert!(of("APIGroupDiscoveryList", version).is_ok(), "{version}");
    }
    let long = "x".repeat(1000);
    for (kind, version) in [
        ("APIGroupList", "v1"),
        ("Status", "v1"),
        ("APIGroupDiscoveryList", "apidiscovery.k8s.io/v3"),
        ("APIGroupDiscoveryList", &long),
        (&long, "v1"),
    ] {
        let error = of(kind, version).expect_err("another object");
        assert!(matches!(error, DocumentError::Kind { .. }), "{error:?}");
        assert!(error.to_string().len() < 300, "{error}");
    }
}

#[test]
fn hostile_documents_are_refused_by_a_typed_error() {
    let nested = |opening: &str, closing: &str, times| {
        document(&format!("[{{\"x\":{}{}}}]", opening.repeat(times), closing.repeat(times)))
    };
    let mut invalid_utf8 = document(r#"[{"metadata":{"name":"?"}}]"#);
    *invalid_utf8.iter_mut().find(|byte| **byte == b'?').expect("the name") = 0xFF;
    let long = |length: usize| document(&format!(r#"[{{"metadata":{{"name":"{}"}}}}]"#, "a".repeat(length)));
    let verbs = document(&format!(r#"[{{"x":[{}""]}}]"#, "\"\",".repeat(bounds::MAX_STRINGS)));
    for (name, json, excess) in [
        ("deep lists", nested("[", "]", 100_000), Some(Excess::Depth)),
        ("deep objects", nested("{\"a\":", "", 1_000_000), Some(Excess::Depth)),
        ("a long name", long(10_000_000), Some(Excess::LongString)),
        ("many groups", document(&format!("[{}{{}}]", "{},".repeat(10_000_000))), Some(Excess::Objects)),
        ("many verbs", verbs, Some(Excess::Strings)),
        ("no UTF-8", invalid_utf8, None),
        ("HTML", b"<!DOCTYPE html><html>".to_vec(), None),
        ("protobuf", b"k8s\0\x0a\x02\x0a\x00".to_vec(), None),
        ("nothing", Vec::new(), None),
        ("half of it", document("[]")[..40].to_vec(), None),
        ("a list of numbers", document("[1,2,3]"), None),
        (
            "a resource without a name",
            document(r#"[{"versions":[{"version":"v1","resources":[{}]}]}]"#),
            None,
        ),
        ("a number for a name", document(r#"[{"metadata":{"name":1}}]"#), None),
    ] {
        match (GroupList::decode(&json).expect_err(name), excess) {
            (DocumentError::Excessive(found), Some(excess)) => assert_eq!(found, excess, "{name}"),
            (DocumentError::Malformed(error), None) => assert!(error.to_string().len() < 300, "{name}"),
            (error, _) => panic!("{name}: {error:?}"),
        }
    }
}

/// A hundred thousand groups are too many for any cluster, but no danger.
#[test]
fn what_is_within_the_bounds_is_read() {
    let group = r#"{"metadata":{"name":"g"},"versions":[]},"#;
    let items = format!("[{}{{}}]", group.repeat(100_000));
    let list = GroupList::decode(&document(&items)).expect("within the bounds");
    assert_eq!(list.items.len(), 100_001);
}
