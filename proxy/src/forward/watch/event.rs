//! Reads just enough of a watch event to go on after it: whether it is a bookmark, and its resourceVersion.

use serde::Deserialize;

/// How a watch stream is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// One JSON object a line.
    Json,
    /// `metav1.WatchEvent` messages, each after its length in four big-endian bytes.
    Protobuf,
}

impl Encoding {
    /// The encoding a Content-Type names, where it is one of the two.
    pub fn of(content_type: &[u8]) -> Option<Self> {
        if content_type.starts_with(b"application/json") {
            Some(Encoding::Json)
        } else if content_type.starts_with(b"application/vnd.kubernetes.protobuf") {
            Some(Encoding::Protobuf)
        } else {
            None
        }
    }

    /// Length of the first event in a buffer, its frame included; `None` while it is incomplete. The first `searched`
    /// bytes are known to hold no end.
    pub(super) fn first_event(self, buffer: &[u8], searched: usize) -> Option<usize> {
        match self {
            Encoding::Json => {
                let newline = buffer.get(searched..)?.iter().position(|byte| *byte == b'\n')?;
                Some(searched + newline + 1)
            }
            Encoding::Protobuf => {
                let (length, rest) = buffer.split_first_chunk::<4>()?;
                let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
                (rest.len() >= length).then_some(length + 4)
            }
        }
    }

    /// Whether an event says nothing but how far the watch has come. Reads only its first bytes: servers write the type
    /// first.
    pub(super) fn is_bookmark(self, event: &[u8]) -> bool {
        match self {
            Encoding::Json => event.starts_with(br#"{"type":"BOOKMARK""#),
            Encoding::Protobuf => event.get(4..).is_some_and(|event| event.starts_with(b"\x0a\x08BOOKMARK")),
        }
    }

    /// The resourceVersion of an event's object.
    pub(super) fn resource_version(self, event: &[u8]) -> Option<String> {
        let version = match self {
            Encoding::Json => {
                serde_json::from_slice::<JsonEvent>(event).ok()?.object.metadata.resource_version
            }
            Encoding::Protobuf => protobuf_version(event.get(4..)?)?,
        };
        is_version(&version).then_some(version)
    }
}

/// Whether a resourceVersion names one moment: `0` and the empty one do not.
pub fn is_version(version: &str) -> bool {
    !version.is_empty() && version != "0" && version.bytes().all(|byte| byte.is_ascii_digit())
}

#[derive(Deserialize)]
struct JsonEvent {
    object: JsonObject,
}

#[derive(Deserialize)]
struct JsonObject {
    metadata: JsonMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonMetadata {
    resource_version: String,
}

/// Walks `WatchEvent.object.raw`, past the magic to `Unknown.raw`, to `metadata.resourceVersion`.
/// Field numbers: k8s.io/apimachinery `generated.proto` of meta/v1 and runtime.
fn protobuf_version(event: &[u8]) -> Option<String> {
    let object = field(field(event, 2)?, 1)?;
    let unknown = object.strip_prefix(b"k8s\0")?;
    let metadata = field(field(unknown, 2)?, 1)?;
    String::from_utf8(field(metadata, 6)?.to_vec()).ok()
}

/// The first length-delimited field of a message with this number (Protocol Buffers encoding).
fn field(mut message: &[u8], wanted: u64) -> Option<&[u8]> {
    const LENGTH_DELIMITED: u64 = 2;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        match tag & 7 {
            0 => drop(varint(&mut message)?),
            1 => message = message.get(8..)?,
            LENGTH_DELIMITED => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                let value = message.get(..length)?;
                if tag >> 3 == wanted {
                    return Some(value);
                }
                message = &message[length..];
            }
            5 => message = message.get(4..)?,
            _ => return None,
        }
    }
    None
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
