//! Finds the known word that a mistyped one was probably meant to be.

/// The closest of `known`, unless even that one differs in more than a third of its letters.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.trim_start_matches('-');
    let (distance, closest) = known.into_iter().map(|name| (edits(word, name), name)).min()?;
    let letters = closest.chars().count();
    (distance <= letters.div_ceil(3) && distance < letters).then_some(closest)
}

/// Levenshtein distance, ignoring ASCII case and the difference between `_` and `-`.
fn edits(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().map(fold).collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().map(fold).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(l != *r);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

fn fold(letter: char) -> char {
    if letter == '_' { '-' } else { letter.to_ascii_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant_and_nothing_far_away() {
        let known = ["v", "client-ca-file", "peer-ca-file", "peers", "secure-port"];
        for (word, expected) in [
            ("client-ca", Some("client-ca-file")),
            ("--client_ca_file", Some("client-ca-file")),
            ("clientCAFile", Some("client-ca-file")),
            ("peer", Some("peers")),
            ("secureport", Some("secure-port")),
            ("etcd-servers", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
        assert_eq!(edits("kitten", "sitting"), 3);
    }
}
