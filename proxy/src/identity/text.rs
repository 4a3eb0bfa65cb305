//! Reads the strings of a certificate as Go's `crypto/x509` does (`parseASN1String`).

use x509_parser::asn1_rs::Tag;

/// The text of a string; `None` where Go refuses the whole certificate.
pub(super) fn of(tag: Tag, value: &[u8]) -> Option<String> {
    let is_made_of = |allowed: fn(u8) -> bool| value.iter().all(|byte| allowed(*byte));
    let is_sound = match tag {
        Tag::Utf8String => true,
        Tag::PrintableString => is_made_of(is_printable),
        Tag::NumericString => is_made_of(|byte| byte.is_ascii_digit() || byte == b' '),
        Tag::Ia5String => value.is_ascii(),
        // T.61 has its own code page; everybody reads it as ISO 8859-1.
        Tag::T61String => return Some(value.iter().copied().map(char::from).collect()),
        Tag::BmpString => return basic_plane(value),
        _ => false,
    };
    if is_sound { str::from_utf8(value).ok().map(str::to_owned) } else { None }
}

/// With `*` and `&`, which the standard leaves out and certificates contain.
fn is_printable(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b" '()*+,-./:=?&".contains(&byte)
}

/// Two bytes a character, possibly with a zero at the end.
fn basic_plane(value: &[u8]) -> Option<String> {
    let (pairs, rest) = value.as_chunks::<2>();
    let pairs = pairs.strip_suffix(&[[0, 0]]).unwrap_or(pairs);
    if !rest.is_empty() {
        return None;
    }
    // A surrogate is no character of the plane.
    pairs.iter().map(|pair| char::from_u32(u16::from_be_bytes(*pair).into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_read_as_go_reads_them() {
        for (tag, value, expected) in [
            (Tag::Utf8String, "jörg ☃".as_bytes(), Some("jörg ☃")),
            (Tag::Utf8String, b"j\xf6rg", None),
            (Tag::PrintableString, b"Dev & Co (*): '+,-./=?", Some("Dev & Co (*): '+,-./=?")),
            (Tag::PrintableString, b"eve@example.com", None),
            (Tag::PrintableString, b"a_b", None),
            (Tag::NumericString, b"12 34", Some("12 34")),
            (Tag::NumericString, b"12a", None),
            (Tag::Ia5String, b"eve@example.com", Some("eve@example.com")),
            (Tag::Ia5String, b"j\xf6rg", None),
            (Tag::T61String, b"j\xf6rg", Some("jörg")),
            (Tag::BmpString, b"\0j\0\xf6\0r\0g\x26\x03", Some("jörg☃")),
            (Tag::BmpString, b"\0a\0\0", Some("a")),
            (Tag::BmpString, b"\0a\0", None),
            (Tag::BmpString, b"\xd8\x3d\xde\x00", None),
            (Tag::UniversalString, b"\0\0\0a", None),
            (Tag::VisibleString, b"a", None),
            (Tag::Integer, b"\x07", None),
        ] {
            assert_eq!(of(tag, value).as_deref(), expected, "{tag} {value:?}");
        }
    }
}
