use prost::Message;

use super::*;

/// The messages as `OpenAPIv2.proto` has them, as far as these tests write them.
#[derive(Clone, PartialEq, Message)]
struct Document {
    #[prost(string, tag = "1")]
    swagger: String,
    #[prost(string, tag = "3")]
    host: String,
    #[prost(message, optional, tag = "8")]
    paths: Option<Paths>,
    #[prost(message, optional, tag = "9")]
    definitions: Option<Definitions>,
    #[prost(message, repeated, tag = "14")]
    tags: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
struct Paths {
    #[prost(message, repeated, tag = "1")]
    vendor_extension: Vec<Entry>,
    #[prost(message, repeated, tag = "2")]
    path: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
struct Definitions {
    #[prost(message, repeated, tag = "1")]
    additional_properties: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes, tag = "2")]
    value: Vec<u8>,
    #[prost(fixed32, tag = "3")]
    more: u32,
    #[prost(double, tag = "4")]
    yet_more: f64,
}

fn entries(names: &[(&str, &str)]) -> Vec<Entry> {
    let entry = |(name, value): &(&str, &str)| Entry {
        name: (*name).to_owned(),
        value: value.as_bytes().to_vec(),
        more: 7,
        yet_more: 0.5,
    };
    names.iter().map(entry).collect()
}

fn document(host: &str, paths: &[(&str, &str)], definitions: &[(&str, &str)]) -> Document {
    Document {
        swagger: "2.0".to_owned(),
        host: host.to_owned(),
        paths: Some(Paths { vendor_extension: entries(&[(host, "x")]), path: entries(paths) }),
        definitions: Some(Definitions { additional_properties: entries(definitions) }),
        tags: entries(&[(host, "tag")]),
    }
}

#[test]
fn what_is_missing_is_added_and_nothing_is_overridden() {
    let local = document("local", &[("/a", "1"), ("/c", "1")], &[("A", "1")]).encode_to_vec();
    let peer = document("peer", &[("/a", "2"), ("/b", "2")], &[("A", "2"), ("B", "2")]).encode_to_vec();
    let last = document("last", &[], &[("B", "3"), ("C", "3")]).encode_to_vec();
    let mut merged = Gnostic::parse(&local).expect("a document");
    assert_eq!(merged.write(), local, "alone it is what it was");
    for other in [&peer, &last] {
        merged.add(&Gnostic::parse(other).expect("a document"));
    }
    let expected =
        document("local", &[("/a", "1"), ("/b", "2"), ("/c", "1")], &[("A", "1"), ("B", "2"), ("C", "3")]);
    assert_eq!(Document::decode(&merged.write()[..]).expect("a document"), expected);
}

#[test]
fn a_part_in_two_pieces_is_one() {
    let half = document("local", &[("/a", "1")], &[("A", "1")]);
    let half = half.encode_to_vec();
    let mut text = half.clone();
    text.extend(document("", &[("/b", "1")], &[]).encode_to_vec());
    let mut merged = Gnostic::parse(&text).expect("a document");
    merged.add(&Gnostic::parse(&half).expect("a document"));
    let paths = Document::decode(&merged.write()[..]).expect("a document").paths.expect("paths").path;
    assert_eq!(paths, entries(&[("/a", "1"), ("/b", "1")]));
}

#[test]
fn what_is_no_document_is_refused() {
    let good = document("local", &[("/a", "1")], &[("A", "1")]).encode_to_vec();
    for end in 0..good.len() {
        // Some beginnings are whole fields; none may be read beyond its end.
        let _ = Gnostic::parse(&good[..end]);
    }
    let no_text = [b"\x0a\x032.0".as_slice(), b"\x42\x05\x12\x03\x0a\x01\xff"].concat();
    let no_entry = [b"\x0a\x032.0".as_slice(), b"\x42\x02\x10\x01"].concat();
    for (text, expected) in [
        (&b""[..], "not OpenAPI 2.0"),
        (b"\x0a\x033.0", "not OpenAPI 2.0"),
        (b"{\"swagger\":\"2.0\"}", "not the protobuf it should be"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "not the protobuf it should be"),
        (b"\x0a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80", "not the protobuf it should be"),
        (b"\x0b\x0c", "not the protobuf it should be"),
        (b"\x40\x01", "not the protobuf it should be"),
        (&no_text, "not the protobuf it should be"),
        (&no_entry, "not the protobuf it should be"),
    ] {
        let error = Gnostic::parse(text).expect_err("no document");
        assert_eq!(error.to_string(), expected, "{text:?}");
    }
}

#[test]
fn there_are_only_so_many_names() {
    let names: Vec<String> = (0..=MOST_NAMES).map(|number| number.to_string()).collect();
    let pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    assert!(Gnostic::parse(&document("", &pairs[1..], &[]).encode_to_vec()).is_ok());
    let error = Gnostic::parse(&document("", &pairs, &[]).encode_to_vec()).expect_err("too many");
    assert_eq!(error.to_string(), "more than 250000 names");
}

/// A client may read it message by message, one within the other.
#[test]
fn there_are_only_so_many_messages_in_each_other() {
    let nested = |levels: usize| {
        let mut message = b"\x08\x01".to_vec();
        for _ in 1..levels {
            let mut outer = vec![0x12];
            encode_varint(message.len() as u64, &mut outer);
            outer.append(&mut message);
            message = outer;
        }
        message
    };
    assert!(!is_deeper_than(MAX_MESSAGES, &nested(MAX_MESSAGES)));
    assert!(is_deeper_than(MAX_MESSAGES, &nested(MAX_MESSAGES + 1)));
    let mut document = document("", &[], &[("A", "1")]).encode_to_vec();
    document.extend([0x5a]);
    let deep = nested(100_000);
    encode_varint(deep.len() as u64, &mut document);
    document.extend(deep);
    let error = Gnostic::parse(&document).expect_err("too deep");
    assert_eq!(error.to_string(), "nested deeper than 1024 levels");
    let text = "A text is no message, however long: \"{[( \u{1f600}".repeat(100_000);
    assert!(!is_deeper_than(16, text.as_bytes()));
}

#[test]
fn what_was_taken_out_of_json_is_taken_out_here() {
    let whole = document("", &[("/a", "1"), ("/b", "1")], &[("A", "1"), ("B", "1")]).encode_to_vec();
    let rest = document("", &[("/b", "1")], &[("A", "1")]).encode_to_vec();
    let mut gnostic = Gnostic::parse(&whole).expect("a document");
    let names = |name: &str| [name.to_owned()].into_iter().collect();
    gnostic.take_out(&Names { paths: names("/a"), definitions: names("B") });
    assert_eq!(gnostic.write(), rest);
    let whole = Gnostic::parse(&whole).expect("a document");
    assert_eq!(gnostic.size() + gnostic.growth(&whole), whole.size());
}
