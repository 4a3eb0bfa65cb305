use http::HeaderValue;

use super::*;

const V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const V2BETA1: &str = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

/// What an answer is made of, shortly.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Aggregated(Encoding),
    Beta(Encoding),
    Plain(Encoding),
    /// The local server's own answer: its own document, or its 406.
    Local,
}

fn see(path: &str, accept: Option<&str>) -> Seen {
    let accept = accept.map(|accept| (ACCEPT, HeaderValue::from_str(accept).expect("a header value")));
    match asked(&Method::GET, path, None, &HeaderMap::from_iter(accept)) {
        Some(Asked { name: Name::Aggregated(_), form: Some(form), .. }) => match form.version {
            ApiVersion::V2 => Seen::Aggregated(form.encoding),
            ApiVersion::V2beta1 => Seen::Beta(form.encoding),
        },
        Some(Asked { form: Some(form), .. }) => Seen::Plain(form.encoding),
        Some(Asked { form: None, .. }) => panic!("roots are the local server's to refuse"),
        None => Seen::Local,
    }
}

/// The negotiation table recorded from kube-apiserver 1.36, row by row, but for the two of `v2beta1`: 1.36 refuses it, and
/// clients that know nothing newer would see nothing of what peers serve.
#[test]
fn the_recorded_negotiation_table() {
    use Encoding::{Json, PrettyJson, Protobuf, Yaml};
    use Seen::{Aggregated, Beta, Local, Plain};
    let of = |media_type: &str| V2.replace("application/json", media_type);
    for (accept, seen) in [
        (V2.to_owned(), Aggregated(Json)),
        (format!("{V2};profile=nopeer"), Local),
        (format!("{V2};profile=other"), Aggregated(Json)),
        (format!("{V2};profile=\"nopeer\""), Aggregated(Json)),
        (format!("{V2};profile=NOPEER"), Aggregated(Json)),
        (
            "application/json; as=APIGroupDiscoveryList; v=v2; x=y; g=apidiscovery.k8s.io".to_owned(),
            Aggregated(Json),
        ),
        (of("application/vnd.kubernetes.protobuf"), Aggregated(Protobuf)),
        (of("application/yaml"), Aggregated(Yaml)),
        (of("*/*"), Aggregated(Json)),
        (of("application/*"), Aggregated(Json)),
        (of("application/cbor"), Local),
        (format!("{V2},{V2BETA1},application/json"), Aggregated(Json)),
        (format!("application/json, {V2}"), Aggregated(Json)),
        (format!("application/json;q=1,{V2};q=0.1"), Aggregated(Json)),
        ("application/json".to_owned(), Plain(Json)),
        ("*/*".to_owned(), Plain(Json)),
        (V2.replace("v=v2", "v=v3"), Local),
        (V2.replace("g=apidiscovery.k8s.io;", ""), Local),
        (V2.replace("v=v2;", ""), Local),
        ("text/html".to_owned(), Local),
        (format!("{V2};pretty=1"), Aggregated(PrettyJson)),
        (V2BETA1.to_owned(), Beta(Json)),
        (format!("{V2BETA1},application/json"), Beta(Json)),
    ] {
        assert_eq!(see("/apis", Some(&accept)), seen, "{accept}");
    }
    assert_eq!(see("/apis", None), Plain(Json));
}

/// What the source says beyond the table.
#[test]
fn clauses_are_weighed_and_refused_as_in_the_source() {
    use Encoding::{Json, Protobuf, Yaml};
    use Seen::{Aggregated, Local, Plain};
    let protobuf = V2.replace("application/json", "application/vnd.kubernetes.protobuf");
    let yaml = V2.replace("application/json", "application/yaml");
    let range = V2.replace("application/json", "application/*");
    for (accept, seen) in [
        (format!("{V2};q=0.1,{protobuf};q=0.2"), Aggregated(Protobuf)),
        (format!("{V2};q=zero,{protobuf};q=0.2"), Aggregated(Protobuf)),
        (format!("{V2};q=0"), Aggregated(Json)),
        (format!("{V2};profile=nopeer;q=0.5,{V2};q=0.9"), Aggregated(Json)),
        (format!("{V2};profile=nopeer,{V2};profile=other"), Local),
        // A range gives way to what is named, however heavy.
        (format!("{range},{protobuf};q=0.1"), Aggregated(Protobuf)),
        (format!("{V2};stream=watch"), Aggregated(Json)),
        (format!("{yaml};stream=watch"), Local),
        (format!("{V2};stream=other,{yaml}"), Aggregated(Yaml)),
        (format!("{V2};sv=v1"), Local),
        (format!("{V2};sv="), Aggregated(Json)),
        (format!("{V2};v=v3"), Local),
        ("application/json/x,application/yaml".to_owned(), Plain(Yaml)),
        ("*".to_owned(), Plain(Json)),
        ("application/json;profile=nopeer".to_owned(), Local),
        ("application/vnd.kubernetes.protobuf, */*".to_owned(), Plain(Protobuf)),
    ] {
        assert_eq!(see("/apis", Some(&accept)), seen, "{accept}");
    }
    // Only the first of several headers counts.
    let mut headers = HeaderMap::new();
    for accept in ["application/json", V2] {
        headers.append(ACCEPT, HeaderValue::from_static(accept));
    }
    let name = asked(&Method::GET, "/apis", None, &headers).map(|asked| asked.name);
    assert_eq!(name, Some(Name::GroupList));
}

#[test]
fn a_path_names_a_document() {
    let resources = |group, version| Some(Name::Resources { group, version });
    for (path, aggregated, plain) in [
        ("/api", Some(Name::Aggregated(Document::Core)), None),
        ("/apis", Some(Name::Aggregated(Document::Groups)), Some(Name::GroupList)),
        // The roots with a slash are unaggregated whatever is asked for.
        ("/apis/", None, Some(Name::GroupList)),
        ("/api/", None, None),
        ("/api/v1", None, resources("", "v1")),
        ("/api/v1/", None, resources("", "v1")),
        ("/apis/batch", None, Some(Name::Group("batch"))),
        ("/apis/batch/", None, Some(Name::Group("batch"))),
        ("/apis/batch/v1", None, resources("batch", "v1")),
        ("/apis/batch/v1/", None, resources("batch", "v1")),
        ("/apis/batch/v1//", None, None),
        ("/apis//", None, None),
        ("/apis//v1", None, None),
        ("/apis/batch/v1/jobs", None, None),
        ("/api/v1/pods", None, None),
        ("/", None, None),
        ("/API", None, None),
        ("/openapi/v3", None, None),
        ("api/v1", None, None),
    ] {
        for (accept, expected) in [(V2, aggregated), ("application/json", plain)] {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
            let seen = asked(&Method::GET, path, None, &headers).filter(|asked| asked.form.is_some());
            assert_eq!(seen.map(|asked| asked.name), expected, "{path} {accept}");
            assert_eq!(asked(&Method::POST, path, None, &headers), None, "{path}");
        }
    }
}

/// `/api` has a router before it that knows no ranges but `*/*`.
#[test]
fn the_core_root_takes_fewer_ranges() {
    let range = V2.replace("application/json", "application/*");
    assert_eq!(see("/api", Some(&range)), Seen::Local);
    assert_eq!(see("/api", Some(&format!("{range},application/json"))), Seen::Aggregated(Encoding::Json));
    assert_eq!(see("/api", Some(&V2.replace("application/json", "*/*"))), Seen::Aggregated(Encoding::Json));
}

#[test]
fn below_the_roots_a_client_that_accepts_nothing_is_known_as_such() {
    let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("text/html"))]);
    let seen = asked(&Method::GET, "/apis/batch/v1", None, &headers);
    assert_eq!(seen.map(|asked| asked.form), Some(None));
}

#[test]
fn people_get_indented_json() {
    use Encoding::{Json, PrettyJson};
    for (query, agent, encoding) in [
        (None, "kubectl/v1.36.0", Json),
        (None, "curl/8.5.0", PrettyJson),
        (None, "Wget/1.21", PrettyJson),
        (None, "Mozilla/5.0 (X11)", PrettyJson),
        (Some("pretty=true"), "kubectl/v1.36.0", PrettyJson),
        (Some("pretty=1"), "", PrettyJson),
        (Some("a=b&pretty=T"), "", PrettyJson),
        (Some("pretty=false"), "curl/8.5.0", Json),
        (Some("pretty=yes"), "curl/8.5.0", Json),
        (Some("pretty="), "curl/8.5.0", PrettyJson),
        (Some("pretty"), "kubectl/v1.36.0", Json),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(V2));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        let form = asked(&Method::GET, "/apis", query, &headers).and_then(|asked| asked.form);
        assert_eq!(form.map(|form| form.encoding), Some(encoding), "{query:?} {agent}");
    }
}
