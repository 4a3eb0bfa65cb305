//! Reads ASN.1 strings as Go's `crypto/x509` does.

/// The text of a string; none when Go fails to parse the whole certificate over it.
pub(super) fn of(tag: u32, value: &[u8]) -> Option<String> {
    let ascii = |allowed: fn(&u8) -> bool| {
        value.iter().all(allowed).then(|| value.iter().copied().map(char::from).collect())
    };
    match tag {
        UTF8 => String::from_utf8(value.to_vec()).ok(),
        PRINTABLE => ascii(|byte| byte.is_ascii_alphanumeric() || b" '()*+,-./:=?&".contains(byte)),
        NUMERIC => ascii(|byte| byte.is_ascii_digit() || *byte == b' '),
        IA5 => ascii(u8::is_ascii),
        // A character of T.61 is taken for one of ISO 8859-1.
        T61 => Some(value.iter().copied().map(char::from).collect()),
        BMP => bmp(value),
        _ => None,
    }
}

const UTF8: u32 = 12;
const NUMERIC: u32 = 18;
const PRINTABLE: u32 = 19;
const T61: u32 = 20;
const IA5: u32 = 22;
const BMP: u32 = 30;

/// 16 bits a character, possibly with a final zero.
fn bmp(value: &[u8]) -> Option<String> {
    let (pairs, rest) = value.as_chunks::<2>();
    let pairs = pairs.strip_suffix(&[[0, 0]]).unwrap_or(pairs);
    let units: Vec<u16> = pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect();
    rest.is_empty().then(|| String::from_utf16(&units).ok()).flatten()
}
