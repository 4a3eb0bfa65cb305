//! Encodes a `metav1.Status` as kube-apiserver's protobuf media type wants it.
//!
//! Field numbers: k8s.io/apimachinery `generated.proto` of meta/v1 (`Status`, `StatusDetails`) and runtime (`Unknown`,
//! `TypeMeta`).

use super::Failure;

/// Media type.
pub(super) const CONTENT_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// First bytes of every encoded object.
const MAGIC: &[u8] = b"k8s\0";

/// The whole body.
pub(super) fn encode(failure: &Failure) -> Vec<u8> {
    let mut details = Vec::new();
    if let Some(seconds) = failure.retry_after {
        number(&mut details, 5, u64::from(seconds));
    }
    let mut status = Vec::new();
    bytes(&mut status, 1, &[]);
    bytes(&mut status, 2, b"Failure");
    bytes(&mut status, 3, failure.message.as_bytes());
    bytes(&mut status, 4, failure.reason.as_bytes());
    if failure.retry_after.is_some() {
        bytes(&mut status, 5, &details);
    }
    number(&mut status, 6, u64::from(failure.code.as_u16()));

    let mut type_meta = Vec::new();
    bytes(&mut type_meta, 1, b"v1");
    bytes(&mut type_meta, 2, b"Status");
    let mut unknown = MAGIC.to_vec();
    bytes(&mut unknown, 1, &type_meta);
    bytes(&mut unknown, 2, &status);
    bytes(&mut unknown, 3, &[]);
    bytes(&mut unknown, 4, &[]);
    unknown
}

/// A length-delimited field.
fn bytes(message: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(message, field << 3 | 2);
    varint(message, value.len() as u64);
    message.extend_from_slice(value);
}

/// A varint field.
fn number(message: &mut Vec<u8>, field: u64, value: u64) {
    varint(message, field << 3);
    varint(message, value);
}

fn varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    message.push(value.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    /// The bytes that Go's generated encoder makes of the same object, written out by field.
    #[test]
    fn the_encoding_is_that_of_the_generated_go_code() {
        let failure = Failure {
            code: StatusCode::SERVICE_UNAVAILABLE,
            reason: "ServiceUnavailable",
            message: "try later",
            retry_after: Some(1),
        };
        let status =
            b"\x0a\x00\x12\x07Failure\x1a\x09try later\x22\x12ServiceUnavailable\x2a\x02\x28\x01\x30\xf7\x03";
        let mut expected = b"k8s\0\x0a\x0c\x0a\x02v1\x12\x06Status\x12".to_vec();
        expected.push(u8::try_from(status.len()).expect("short"));
        expected.extend_from_slice(status);
        expected.extend_from_slice(b"\x1a\x00\x22\x00");
        assert_eq!(encode(&failure), expected);
    }
}
