use super::*;

/// Vectors made by running the upstream parser: method, path, isResource, verb, group, version, resource, subresource,
/// namespace, name, parts, selectors or error.
const VECTORS: &str = include_str!("../../../tests/fixtures/requestinfo-vectors.tsv");

#[test]
fn every_upstream_vector_classifies_the_same() {
    let mut checked = 0;
    for line in VECTORS.lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        let [
            method,
            target,
            is_resource,
            verb,
            group,
            version,
            resource,
            subresource,
            namespace,
            name,
            _,
            outcome,
        ] = columns[..]
        else {
            panic!("vector has {} columns: {line}", columns.len());
        };
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let method = Method::from_bytes(method.as_bytes()).expect("vector has a method");
        let path = decode_path(path);
        let seen = classify(&method, &path, query);
        checked += 1;
        if outcome.contains("ERR:") {
            assert!(seen.is_err(), "{line}");
            continue;
        }
        let seen = seen.unwrap_or_else(|error| panic!("{line}: {error}"));
        let expected = RequestInfo {
            is_resource: is_resource == "true",
            verb,
            group,
            version,
            resource,
            subresource,
            namespace,
            name: name.into(),
        };
        assert_eq!(seen, expected, "{line}");
    }
    assert!(checked > 100, "only {checked} vectors were read");
}

#[test]
fn watch_is_read_like_go_reads_a_query() {
    for (query, expected) in [
        ("watch=1", "watch"),
        ("w%61tch=true", "watch"),
        ("watch=%30", "list"),
        ("watch=FALSE", "list"),
        ("watch=%zz", "list"),
        ("watch=%zz&watch=1", "watch"),
        ("watch=+0", "watch"),
        ("a=1;watch=1", "list"),
        ("limit=1&watch", "watch"),
    ] {
        let info = classify(&Method::GET, "/api/v1/pods", Some(query)).expect("a resource request");
        assert_eq!(info.verb, expected, "{query}");
    }
}

#[test]
fn a_field_selector_names_what_go_says_it_names() {
    const NAME: &str = "fieldSelector=metadata.name=";
    for (query, expected) in [
        (format!("{NAME}p1"), "p1"),
        (format!("{NAME}a+b"), "a b"),
        (format!("{NAME}a%252Fb"), ""),
        (format!("{NAME}."), ""),
        (format!("{NAME}p1,metadata.name=p0"), "p0"),
        (format!("{NAME}p1,metadata.name==p2"), "p2"),
        (format!("{NAME}p1,metadata.name!=p1,,"), "p1"),
        (format!("{NAME}p1,bogus"), ""),
        (format!("{NAME}a\\,b"), "a,b"),
        (format!("{NAME}a\\=\\\\"), "a=\\"),
        (format!("{NAME}a\\b"), ""),
        (format!("{NAME}a=b"), ""),
        (format!("{NAME}p1\\"), ""),
        (format!("fieldSelector=a=b&{NAME}p1"), ""),
        (format!("fieldSelector=%zz&{NAME}p1"), "p1"),
        (format!("{NAME}p1&limit=10&timeoutSeconds=5"), "p1"),
        (format!("{NAME}p1&limit=banana"), ""),
        (format!("{NAME}p1&timeoutSeconds="), ""),
    ] {
        let info = classify(&Method::GET, "/api/v1/pods", Some(&query)).expect("a resource request");
        assert_eq!(info.name, expected, "{query}");
    }
}
