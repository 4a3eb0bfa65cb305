//! Computes tags of content as kube-apiserver does: SHA-512 in upper-case hexadecimal and quotes.

use aws_lc_rs::digest;
use http::HeaderValue;

use super::hex;

/// The tag of content that comes in pieces.
pub(super) fn of(pieces: &[&[u8]]) -> HeaderValue {
    let mut hash = digest::Context::new(&digest::SHA512);
    for piece in pieces {
        hash.update(piece);
    }
    let digits = hex::lower(hash.finish().as_ref()).to_ascii_uppercase();
    HeaderValue::from_str(&format!("\"{digits}\"")).expect("hex digits in quotes")
}
