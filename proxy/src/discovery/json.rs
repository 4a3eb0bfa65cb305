//! Writes JSON as Go's encoder does, byte for byte: tags are hashes of it.

use serde::Serialize;

/// One line with a newline at its end, as kube-apiserver answers programs.
pub(super) fn compact(value: &impl Serialize) -> Vec<u8> {
    let mut json = escaped(serde_json::to_vec(value));
    json.push(b'\n');
    json
}

/// Indented, without a newline at its end, as kube-apiserver answers people.
pub(super) fn pretty(value: &impl Serialize) -> Vec<u8> {
    escaped(serde_json::to_vec_pretty(value))
}

/// Go escapes what browsers could take for markup or for the end of a line. None of it occurs outside of strings, so that
/// it can be replaced in the finished text.
fn escaped(json: serde_json::Result<Vec<u8>>) -> Vec<u8> {
    let json = json.expect("structs of strings and lists serialise");
    if !json.iter().any(|byte| matches!(byte, b'<' | b'>' | b'&' | 0xE2)) {
        return json;
    }
    let mut escaped = Vec::with_capacity(json.len());
    let mut rest = json.as_slice();
    while let Some((byte, after)) = rest.split_first() {
        let (text, taken): (&[u8], usize) = match (byte, after) {
            (b'<', _) => (b"\\u003c", 1),
            (b'>', _) => (b"\\u003e", 1),
            (b'&', _) => (b"\\u0026", 1),
            (0xE2, [0x80, 0xA8, ..]) => (b"\\u2028", 3),
            (0xE2, [0x80, 0xA9, ..]) => (b"\\u2029", 3),
            _ => (&rest[..1], 1),
        };
        escaped.extend_from_slice(text);
        rest = &rest[taken..];
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_and_line_separators_are_escaped_as_go_does() {
        let value = serde_json::json!(["a<b>&c", "\u{2028}\u{2029}\u{20ac}", "\u{1}\u{8}\n\"\\"]);
        assert_eq!(
            String::from_utf8(compact(&value)).expect("JSON is text"),
            "[\"a\\u003cb\\u003e\\u0026c\",\"\\u2028\\u2029\u{20ac}\",\"\\u0001\\b\\n\\\"\\\\\"]\n"
        );
        assert_eq!(pretty(&serde_json::json!({"a": [], "b": {}})), b"{\n  \"a\": [],\n  \"b\": {}\n}");
    }
}
