use std::io::Read as _;

use flate2::read::GzDecoder;
use serde_json::Value;

use super::*;

const V2: ApiVersion = ApiVersion::V2;

fn recorded() -> Arc<GroupList> {
    let json = include_bytes!("../../../../tests/fixtures/kube-apiserver/v1.36-all/apis.v2.json");
    Arc::new(GroupList::decode(json).expect("a recorded document"))
}

fn form(encoding: Encoding, version: ApiVersion) -> Form {
    Form { encoding, version }
}

fn text(page: &Page, encoding: Encoding, version: ApiVersion) -> String {
    String::from_utf8(page.body(form(encoding, version)).plain.to_vec()).expect("text")
}

fn pages() -> [Arc<Page>; 4] {
    let merged = recorded();
    [
        Page::aggregated(Arc::clone(&merged)),
        Page::group_list(Arc::clone(&merged)),
        Page::group(Arc::clone(&merged), 1),
        Page::resources(merged, 1, 0),
    ]
}

#[test]
fn every_text_form_says_the_same() {
    for page in pages() {
        let json: Value = serde_json::from_str(&text(&page, Encoding::Json, V2)).expect("JSON");
        let pretty = text(&page, Encoding::PrettyJson, V2);
        assert_eq!(serde_json::from_str::<Value>(&pretty).expect("JSON"), json);
        assert!(pretty.starts_with("{\n  \"kind\"") && pretty.ends_with('}'), "{}", &pretty[..40]);
        let yaml = text(&page, Encoding::Yaml, V2);
        assert_eq!(serde_saphyr::from_str::<Value>(&yaml).expect("YAML"), json);
        assert!(yaml.starts_with("kind: "), "{}", &yaml[..40]);
    }
}

#[test]
fn the_older_version_differs_in_its_name_only() {
    let page = Page::aggregated(recorded());
    for encoding in [Encoding::Json, Encoding::PrettyJson, Encoding::Yaml] {
        let (new, old) = (text(&page, encoding, V2), text(&page, encoding, ApiVersion::V2beta1));
        assert_eq!(old, new.replacen("apidiscovery.k8s.io/v2", "apidiscovery.k8s.io/v2beta1", 1));
        assert_ne!(old, new);
    }
}

#[test]
fn only_aggregated_documents_have_a_tag_and_parameters() {
    let [aggregated, rest @ ..] = pages();
    assert_eq!(aggregated.etag(), Some(&recorded().etag()));
    for (encoding, version, media_type) in [
        (Encoding::Json, V2, "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"),
        (
            Encoding::PrettyJson,
            ApiVersion::V2beta1,
            "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        ),
        (Encoding::Yaml, V2, "application/yaml;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"),
        (
            Encoding::Protobuf,
            V2,
            "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        ),
    ] {
        assert_eq!(aggregated.media_type(form(encoding, version)), media_type);
        let (plain, _) = media_type.split_once(';').expect("parameters");
        for page in &rest {
            assert_eq!(page.media_type(form(encoding, version)), plain);
            assert_eq!(page.etag(), None);
        }
    }
}

#[test]
fn large_documents_are_compressed_and_small_ones_are_not() {
    let small = Page::aggregated(recorded());
    assert!(small.body(Form::USUAL).gzip.is_none());
    let mut list = GroupList::clone(&recorded());
    while list.encode().len() <= GZIP_THRESHOLD {
        list.items.extend(recorded().items.iter().cloned());
    }
    let large = Page::aggregated(Arc::new(list));
    for encoding in [Encoding::Json, Encoding::Yaml] {
        let body = large.body(form(encoding, V2));
        let gzip = body.gzip.as_ref().expect("it is large");
        assert!(gzip.len() < body.plain.len() / 4, "{} of {}", gzip.len(), body.plain.len());
        let mut plain = Vec::new();
        GzDecoder::new(&gzip[..]).read_to_end(&mut plain).expect("gzip");
        assert!(plain == body.plain);
    }
}

#[tokio::test]
async fn a_form_is_made_once() {
    let page = Page::aggregated(recorded());
    let first = page.prepared(form(Encoding::Yaml, V2)).await.plain;
    let second = page.prepared(form(Encoding::Yaml, V2)).await.plain;
    assert_eq!(first.as_ptr(), second.as_ptr());
}
