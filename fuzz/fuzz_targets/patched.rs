//! Turns fuzzer bytes into small changes of something valid, which random bytes alone would hardly ever be.

/// Overwrites single bytes of `valid`: each three bytes of `changes` are a place and a value.
pub(crate) fn patched(valid: &[u8], changes: &[u8]) -> Vec<u8> {
    let mut bytes = valid.to_vec();
    for change in changes.chunks_exact(3) {
        let place = usize::from(u16::from_be_bytes([change[0], change[1]]));
        if let Some(byte) = bytes.get_mut(place) {
            *byte = change[2];
        }
    }
    bytes
}
