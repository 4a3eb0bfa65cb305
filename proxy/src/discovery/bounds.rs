//! Bounds a discovery document before it is parsed: how much memory parsing it can take is known then.
//!
//! A document of few bytes can become many objects: `{}` is two bytes, and a group made of it about fifty.

/// How far a document goes beyond what any API server serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Excess {
    /// Objects and lists in each other.
    #[error("nested deeper than {MAX_DEPTH} levels")]
    Depth,
    /// Objects.
    #[error("more than {MAX_OBJECTS} objects")]
    Objects,
    /// Strings, keys included.
    #[error("more than {MAX_STRINGS} strings")]
    Strings,
    /// One string.
    #[error("a string of more than {MAX_STRING} bytes")]
    LongString,
}

/// A group list has 12 levels.
pub const MAX_DEPTH: usize = 32;
/// A resource is about 8 objects, and a cluster can have 10,000. An empty one takes two bytes on the wire and a hundred times
/// that in memory.
pub const MAX_OBJECTS: usize = 250_000;
/// A resource is about 80 strings.
pub const MAX_STRINGS: usize = 4_000_000;
/// The longest name Kubernetes allows has 253 bytes.
pub const MAX_STRING: usize = 4096;

/// How much there was in documents that belong together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    objects: usize,
    strings: usize,
}

/// Looks a document through without taking memory. Whether it is JSON at all is for the parser to say.
///
/// # Errors
/// See [`Excess`].
pub fn check(json: &[u8]) -> Result<(), Excess> {
    Counts::default().add(json)
}

impl Counts {
    /// Looks one more document through.
    ///
    /// # Errors
    /// See [`Excess`].
    pub fn add(&mut self, json: &[u8]) -> Result<(), Excess> {
        let mut depth = 0_usize;
        let mut rest = json;
        while let Some((byte, after)) = rest.split_first() {
            rest = after;
            match byte {
                b'{' | b'[' => {
                    depth += 1;
                    self.objects += usize::from(*byte == b'{');
                    if depth > MAX_DEPTH {
                        return Err(Excess::Depth);
                    }
                    if self.objects > MAX_OBJECTS {
                        return Err(Excess::Objects);
                    }
                }
                b'}' | b']' => depth = depth.saturating_sub(1),
                b'"' => {
                    self.strings += 1;
                    if self.strings > MAX_STRINGS {
                        return Err(Excess::Strings);
                    }
                    let length = string_length(rest);
                    if length > MAX_STRING {
                        return Err(Excess::LongString);
                    }
                    rest = rest.get(length + 1..).unwrap_or_default();
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether objects and lists are in each other at more levels than these.
pub fn is_deeper_than(levels: usize, json: &[u8]) -> bool {
    let mut depth = 0_usize;
    let mut rest = json;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => rest = rest.get(quoted_length(rest) + 1..).unwrap_or_default(),
            _ => {}
        }
        if depth > levels {
            return true;
        }
    }
    false
}

/// Bytes up to the closing quote; no more than one beyond the limit are looked at.
fn string_length(rest: &[u8]) -> usize {
    quoted_length(&rest[..rest.len().min(MAX_STRING + 1)])
}

/// Bytes up to the closing quote, as they are written, or all.
fn quoted_length(rest: &[u8]) -> usize {
    let mut is_escaped = false;
    let is_end = |byte: &u8| {
        let ends = *byte == b'"' && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        ends
    };
    rest.iter().position(is_end).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_holds_exactly() {
        let nested = |depth: usize| "[".repeat(depth);
        let objects = |number: usize| "{},".repeat(number);
        let strings = |number: usize| "\"\",".repeat(number);
        let string = |length: usize| format!("\"{}\"", "a".repeat(length));
        for (fits, exceeds, excess) in [
            (nested(MAX_DEPTH), nested(MAX_DEPTH + 1), Excess::Depth),
            (objects(MAX_OBJECTS), objects(MAX_OBJECTS + 1), Excess::Objects),
            (strings(MAX_STRINGS), strings(MAX_STRINGS + 1), Excess::Strings),
            (string(MAX_STRING), string(MAX_STRING + 1), Excess::LongString),
        ] {
            assert_eq!(check(fits.as_bytes()), Ok(()), "{excess}");
            assert_eq!(check(exceeds.as_bytes()), Err(excess));
        }
    }

    #[test]
    fn documents_that_belong_together_are_counted_together() {
        let half = "{\"\":0},".repeat(MAX_OBJECTS / 2);
        let mut counts = Counts::default();
        assert_eq!(counts.add(half.as_bytes()), Ok(()));
        assert_eq!(counts.add(half.as_bytes()), Ok(()));
        assert_eq!(counts.add(b"[\"\"]"), Ok(()), "there may be more strings");
        assert_eq!(counts.add(b"{}"), Err(Excess::Objects));
    }

    #[test]
    fn depth_alone_is_counted_the_same() {
        let long = format!("[\"{}\"", "[".repeat(2 * MAX_STRING));
        for (text, depth) in
            [("1", 0), ("[]", 1), ("{}{}[[]]", 2), ("[{\"a\":[1]}]", 3), ("[\"[\\\"[\"]", 1), (&long, 1)]
        {
            assert!(!is_deeper_than(depth, text.as_bytes()), "{text}");
            assert!(depth == 0 || is_deeper_than(depth - 1, text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_is_in_a_string_does_not_count() {
        let braces = format!("[\"{}\", \"\\\"{}\\\\\", {{}}]", "{[".repeat(100), "[".repeat(100));
        assert_eq!(check(braces.as_bytes()), Ok(()));
        for broken in ["\"", "\"\\", "\"\\\"", "]]]]", "\u{1f600}\""] {
            assert_eq!(check(broken.as_bytes()), Ok(()), "{broken}: for the parser to refuse");
        }
    }
}
