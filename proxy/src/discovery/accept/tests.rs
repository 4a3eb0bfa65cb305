use http::HeaderValue;

use super::*;

const V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// The rows of the negotiation table recorded from kube-apiserver 1.36 that end in merged v2 JSON, and their opposites.
#[test]
fn the_recorded_negotiation_table() {
    let client_go = format!(
        "{V2},application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
    );
    for (accept, merged) in [
        (V2.to_owned(), true),
        (format!("{V2};profile=nopeer"), false),
        (format!("{V2};profile=other"), true),
        (format!("{V2};profile=\"nopeer\""), true),
        (format!("{V2};profile=NOPEER"), true),
        ("application/json; as=APIGroupDiscoveryList; v=v2; x=y; g=apidiscovery.k8s.io".to_owned(), true),
        (V2.replace("application/json", "*/*"), true),
        (V2.replace("application/json", "application/*"), true),
        (V2.replace("application/json", "application/yaml"), false),
        (V2.replace("application/json", "application/vnd.kubernetes.protobuf"), false),
        (client_go, true),
        (format!("application/json,{V2}"), true),
        (format!("application/json;q=1,{V2};q=0.1"), true),
        (format!("{V2};profile=nopeer;q=0.5,{V2};q=0.9"), true),
        ("application/json".to_owned(), false),
        ("*/*".to_owned(), false),
        (V2.replace("v=v2", "v=v3"), false),
        (V2.replace("v=v2", "v=v2beta1"), false),
        (V2.replace("g=apidiscovery.k8s.io;", ""), false),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_str(&accept).expect("a header value"));
        let seen = merged_document(&Method::GET, "/apis", &headers);
        assert_eq!(seen, merged.then_some(Document::Groups), "{accept}");
    }
}

#[test]
fn only_the_two_exact_paths_and_get() {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static(V2));
    assert_eq!(merged_document(&Method::GET, "/api", &headers), Some(Document::Core));
    for path in ["/apis/", "/apis/batch", "/", "/API"] {
        assert_eq!(merged_document(&Method::GET, path, &headers), None, "{path}");
    }
    assert_eq!(merged_document(&Method::POST, "/apis", &headers), None);
}
