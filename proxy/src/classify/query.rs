//! Reads a raw query as Go's `url.ParseQuery` does.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The first value of `key`, empty where the key stands alone; borrowed when there is nothing to decode.
///
/// Pairs that hold a semicolon or a broken escape do not count.
pub(crate) fn first<'q>(query: &'q str, key: &str) -> Option<Cow<'q, str>> {
    query.split('&').filter(|pair| !pair.contains(';')).find_map(|pair| {
        let (found, value) = pair.split_once('=').unwrap_or((pair, ""));
        if unescape(found)? == key { unescape(value) } else { None }
    })
}

fn unescape(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains(['%', '+']) {
        return Some(Cow::Borrowed(text));
    }
    let is_escape =
        |rest: &str| rest.as_bytes().get(..2).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit));
    if !text.split('%').skip(1).all(is_escape) {
        return None;
    }
    if !text.contains('+') {
        return Some(percent_decode_str(text).decode_utf8_lossy());
    }
    let spaced = text.replace('+', " ");
    Some(Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned()))
}
