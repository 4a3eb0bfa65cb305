//! Takes DER apart where parsers hide the bytes.

/// Tag, contents and rest of what starts with a DER value.
pub(super) fn split(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, short], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = match short {
        0..=0x7f => (usize::from(short), rest),
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(short & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((tag, contents, rest))
}

/// Contents of the algorithm's identifier in a `SubjectPublicKeyInfo`, and the key.
pub(super) fn public_key(info: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_, contents, _) = split(info)?;
    let (_, algorithm, rest) = split(contents)?;
    let (_, bits, _) = split(rest)?;
    // The first byte counts unused bits; keys are whole bytes.
    Some((algorithm, bits.get(1..)?))
}
