//! Reads the names in a document in protobuf, by the numbers of gnostic's `openapiv2/OpenAPIv2.proto`.

use std::collections::BTreeSet;

use prost::Message;

#[derive(Clone, PartialEq, Message)]
struct Document {
    #[prost(string, tag = "1")]
    swagger: String,
    #[prost(message, optional, tag = "8")]
    paths: Option<Paths>,
    #[prost(message, optional, tag = "9")]
    definitions: Option<Definitions>,
}

#[derive(Clone, PartialEq, Message)]
struct Paths {
    #[prost(message, repeated, tag = "2")]
    path: Vec<Named>,
}

#[derive(Clone, PartialEq, Message)]
struct Definitions {
    #[prost(message, repeated, tag = "1")]
    additional_properties: Vec<Named>,
}

#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes, tag = "2")]
    value: Vec<u8>,
}

/// Paths and definitions.
pub(crate) fn names(document: &[u8]) -> [BTreeSet<String>; 2] {
    let document = Document::decode(document).unwrap();
    assert_eq!(document.swagger, "2.0");
    let named = [document.paths.unwrap().path, document.definitions.unwrap().additional_properties];
    named.map(|named| {
        assert!(named.iter().all(|one| !one.value.is_empty()), "each is described");
        named.into_iter().map(|one| one.name).collect()
    })
}
