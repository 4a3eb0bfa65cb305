//! Classifies any request line, and expects what the naive parser of the property tests says.
#![no_main]

use http::Method;
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/tests/property/agreement.rs"]
mod agreement;
#[path = "../../tests/tests/property/naive_request.rs"]
mod naive_request;
#[path = "../../tests/tests/property/naive_selector.rs"]
mod naive_selector;

const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "FOO", "get"];

fuzz_target!(|data: &[u8]| {
    let Some((first, target)) = data.split_first() else { return };
    let Ok(target) = std::str::from_utf8(target) else { return };
    let method = METHODS[usize::from(*first) % METHODS.len()];
    let method = Method::from_bytes(method.as_bytes()).expect("a token");
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    agreement::assert_classified_alike(&method, path, query);
});
