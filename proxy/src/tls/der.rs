//! Takes DER apart where parsers keep the bytes to themselves.

/// Contents and rest of what starts with a DER value; `None` when it ends early.
pub(super) fn split(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[_, short], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = match short {
        0..=0x7f => (usize::from(short), rest),
        // Up to 16 MiB; certificates are smaller than a TLS record.
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(short & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// A public key and the contents of its algorithm's identifier.
#[derive(Clone, Copy)]
pub(super) struct PublicKey<'a> {
    pub(super) algorithm: &'a [u8],
    pub(super) key: &'a [u8],
}

impl<'a> PublicKey<'a> {
    /// Reads the contents of a `SubjectPublicKeyInfo`.
    pub(super) fn of(info: &'a [u8]) -> Option<Self> {
        let (algorithm, rest) = split(info)?;
        let (bits, _) = split(rest)?;
        // The first byte counts unused bits, and keys have none.
        Some(Self { algorithm, key: bits.strip_prefix(&[0])? })
    }
}
