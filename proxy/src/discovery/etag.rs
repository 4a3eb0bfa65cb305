//! Computes tags of content as kube-apiserver does: SHA-512 in upper-case hexadecimal and quotes.

use std::fmt::Write as _;

use aws_lc_rs::digest;
use http::HeaderValue;

/// The tag of content that comes in pieces.
pub(super) fn of(pieces: &[&[u8]]) -> HeaderValue {
    let mut hash = digest::Context::new(&digest::SHA512);
    for piece in pieces {
        hash.update(piece);
    }
    let mut tag = String::from("\"");
    for byte in hash.finish().as_ref() {
        // Writing to a String cannot fail.
        let _ = write!(tag, "{byte:02X}");
    }
    tag.push('"');
    HeaderValue::from_str(&tag).expect("hex digits in quotes")
}
