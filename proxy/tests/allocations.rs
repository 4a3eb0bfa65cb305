//! Counts what classification takes from the heap: nothing, unless a client escapes what it need not.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use allocation_counter::measure;
use http::Method;
use mvproxy::classify::{classify, decode_path};

/// Vectors made by running the upstream parser: method, target, and what the parser says.
const VECTORS: &str = include_str!("../../tests/fixtures/requestinfo-vectors.tsv");

#[test]
fn classification_allocates_only_to_undo_escapes() {
    let (mut plain, mut escaped) = (0, 0);
    for line in VECTORS.lines() {
        let mut columns = line.split('\t');
        let (method, target) = (columns.next().unwrap(), columns.next().unwrap());
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let seen = measure(|| {
            let decoded = decode_path(path);
            let _ = std::hint::black_box(classify(&method, &decoded, query));
        });
        // A path or a field selector with an escape is a string of its own; both are rare.
        if target.contains(['%', '+', '\\']) {
            escaped += 1;
            assert!(seen.count_total <= 4, "{target}: {seen:?}");
        } else {
            plain += 1;
            assert_eq!(seen.count_total, 0, "{target}: {seen:?}");
        }
    }
    assert!(plain > 100 && escaped > 5, "{plain} plain and {escaped} escaped vectors");
}

#[test]
fn the_counter_counts() {
    assert_eq!(measure(|| drop(std::hint::black_box(vec![0_u8; 64]))).count_total, 1);
}
