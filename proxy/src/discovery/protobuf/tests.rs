use super::*;

/// `(recorded JSON, recorded protobuf)` of one document.
macro_rules! recorded {
    ($($version:literal)*) => {
        [$(
            (
                include_str!(concat!("../../../../tests/fixtures/kube-apiserver/", $version, "/api.v2.json")),
                &include_bytes!(concat!("../../../../tests/fixtures/kube-apiserver/", $version, "/api.v2.pb"))[..],
            ),
            (
                include_str!(concat!("../../../../tests/fixtures/kube-apiserver/", $version, "/apis.v2.json")),
                &include_bytes!(concat!("../../../../tests/fixtures/kube-apiserver/", $version, "/apis.v2.pb"))[..],
            ),
        )*]
    };
}

#[test]
fn recorded_documents_are_encoded_byte_for_byte_as_recorded() {
    for (json, protobuf) in recorded!("v1.33" "v1.34" "v1.35" "v1.36" "v1.36-all") {
        let list = GroupList::decode(json.as_bytes()).expect("a recorded document");
        assert!(aggregated(&list, ApiVersion::V2) == protobuf, "{}", &json[..200]);
    }
}

#[test]
fn the_older_version_differs_in_its_name_only() {
    let list = GroupList::default();
    let (new, old) = (aggregated(&list, ApiVersion::V2), aggregated(&list, ApiVersion::V2beta1));
    let replaced = old.windows(7).position(|bytes| bytes == b"v2beta1").expect("the version's name");
    assert_eq!(old.len(), new.len() + "beta1".len());
    // Behind the lengths of the envelope's first field and of the name.
    assert_eq!(old[replaced + 7..], new[replaced + 2..]);
}

/// The bytes Go's generated code makes of the same object, written out by field.
#[test]
fn unaggregated_documents_are_encoded_as_the_generated_go_code_does() {
    let verbs = ["get".to_owned()];
    let pods = ApiResource {
        name: "pods".into(),
        singular_name: "pod",
        namespaced: true,
        group: "",
        version: "",
        kind: "Pod",
        verbs: Some(&verbs),
        short_names: &[],
        categories: &[],
    };
    let expected = b"\x0a\x04pods\x10\x01\x1a\x03Pod\x22\x05\x0a\x03get\x32\x03pod\x42\x00\x4a\x00\x52\x00";
    assert_eq!(api_resource(&pods).encode_to_vec(), expected);
    let without_verbs = ApiResource { verbs: None, namespaced: false, ..pods };
    let expected = b"\x0a\x04pods\x10\x00\x1a\x03Pod\x32\x03pod\x42\x00\x4a\x00\x52\x00";
    assert_eq!(api_resource(&without_verbs).encode_to_vec(), expected);

    let version = GroupVersion { group_version: "g/v1".into(), version: "v1" };
    let list = super::super::unaggregated::group_list(&[]);
    let empty = b"k8s\0\x0a\x12\x0a\x02v1\x12\x0cAPIGroupList\x12\x00\x1a\x00\x22\x00";
    assert_eq!(group_list(&list), empty);
    let groups = super::super::document::Group::default();
    let mut group = super::super::unaggregated::group(&groups);
    (group.name, group.versions, group.preferred_version) = ("g", vec![version.clone()], version);
    let expected = b"\x0a\x01g\x12\x0a\x0a\x04g/v1\x12\x02v1\x1a\x0a\x0a\x04g/v1\x12\x02v1";
    assert_eq!(api_group(&group).encode_to_vec(), expected);
}
