use super::*;

const JSON: &[u8] =
    include_bytes!("../../../../tests/fixtures/kube-apiserver/v1.36-all/watch-configmaps.jsonl");
const TABLE: &[u8] =
    include_bytes!("../../../../tests/fixtures/kube-apiserver/v1.36-all/watch-configmaps-table.jsonl");
const PROTOBUF: &[u8] =
    include_bytes!("../../../../tests/fixtures/kube-apiserver/v1.36-all/watch-configmaps.pb");
const TOO_OLD: &[u8] =
    include_bytes!("../../../../tests/fixtures/kube-apiserver/v1.36-all/watch-too-old.json");

/// The recorded streams: an object is added at 1197 and deleted at 1198, then a bookmark follows (not in the table).
const RECORDED: [(&str, Encoding, &[u8]); 3] = [
    ("json", Encoding::Json, JSON),
    ("table", Encoding::Json, TABLE),
    ("protobuf", Encoding::Protobuf, PROTOBUF),
];

#[test]
fn recorded_streams_are_passed_on_whole_however_they_are_cut() {
    for (name, encoding, stream) in RECORDED {
        for size in [1, 2, 3, 7, 64, 1000, stream.len()] {
            let mut splitter = Splitter::new(encoding, true);
            let mut passed = Vec::new();
            for piece in stream.chunks(size) {
                let events = splitter.push(Bytes::copy_from_slice(piece));
                passed.extend_from_slice(&events);
                let mut check = &passed[..];
                while let Some(length) = encoding.first_event(check, 0) {
                    check = &check[length..];
                }
                assert!(check.is_empty(), "{name}: an event was passed on in pieces of {size}");
            }
            assert_eq!(passed, stream, "{name} in pieces of {size}");
            assert!(splitter.rest().is_empty());
        }
    }
}

#[test]
fn a_stream_goes_on_after_its_last_whole_event() {
    for (name, encoding, stream) in RECORDED {
        let first = encoding.first_event(stream, 0).expect("a whole event");
        let mut splitter = Splitter::new(encoding, true);
        assert_eq!(splitter.resume_after(Some("1163")).as_deref(), Some("1163"), "{name}: nothing came yet");
        let passed = splitter.push(Bytes::copy_from_slice(&stream[..first + 20]));
        assert_eq!(passed.len(), first, "{name}");
        assert_eq!(splitter.resume_after(Some("1163")).as_deref(), Some("1197"), "{name}");
        splitter.push(Bytes::copy_from_slice(&stream[first + 20..]));
        assert_eq!(splitter.resume_after(Some("1163")).as_deref(), Some("1198"), "{name}");
    }
}

#[test]
fn a_stream_without_a_version_to_begin_after_goes_on_only_after_a_bookmark() {
    for (name, encoding, stream) in [RECORDED[0], RECORDED[2]] {
        let mut splitter = Splitter::new(encoding, false);
        let first = encoding.first_event(stream, 0).expect("a whole event");
        splitter.push(Bytes::copy_from_slice(&stream[..first]));
        assert_eq!(splitter.resume_after(None), None, "{name}: what exists comes in any order");
        splitter.push(Bytes::copy_from_slice(&stream[first..]));
        assert_eq!(splitter.resume_after(None).as_deref(), Some("1198"), "{name}");
    }
}

#[test]
fn a_stream_that_ended_in_an_error_event_does_not_go_on() {
    let mut splitter = Splitter::new(Encoding::Json, true);
    let mut event = TOO_OLD.trim_ascii_end().to_vec();
    event.push(b'\n');
    splitter.push(Bytes::from(event));
    assert_eq!(splitter.resume_after(Some("1")), None);
}

#[test]
fn an_endless_event_is_passed_on_and_gives_up_going_on() {
    let mut splitter = Splitter::new(Encoding::Json, true);
    let piece = Bytes::from(vec![b'x'; 1024 * 1024]);
    let passed: usize = (0..16).map(|_| splitter.push(piece.clone()).len()).sum();
    assert_eq!(passed, 16 * piece.len());
    assert_eq!(splitter.resume_after(Some("1")), None);
}

#[test]
fn hostile_protobuf_is_no_version() {
    for event in [
        &b"\0\0\0\x02\x12\xff"[..],
        b"\0\0\0\0",
        b"\0\0\0\x0b\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\0",
    ] {
        assert_eq!(Encoding::Protobuf.resource_version(event), None, "{event:?}");
    }
    assert_eq!(Encoding::Protobuf.first_event(b"\xff\xff\xff\xff", 0), None);
}
