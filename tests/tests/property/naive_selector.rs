//! Reads field selectors in the steps of Go's `fields.ParseSelector`: split, sort, parse, look.

/// The name that a field selector requires, where kube-apiserver takes it for the request's name.
pub(crate) fn required_name(selector: &str) -> Option<String> {
    let mut parts = split_terms(selector);
    parts.sort();
    let mut terms = Vec::new();
    for part in parts.iter().filter(|part| !part.is_empty()) {
        terms.push(parse(part)?);
    }
    let (_, _, name) = terms
        .into_iter()
        .find(|(field, operator, _)| field == "metadata.name" && (*operator == "=" || *operator == "=="))?;
    let is_segment = name != "." && name != ".." && !name.contains('/') && !name.contains('%');
    is_segment.then_some(name)
}

fn split_terms(selector: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = selector.chars();
    while let Some(c) = chars.next() {
        if c == ',' {
            parts.push(String::new());
            continue;
        }
        let part = parts.last_mut().expect("begins with one part");
        part.push(c);
        if c == '\\' {
            part.extend(chars.next());
        }
    }
    parts
}

fn parse(term: &str) -> Option<(String, &'static str, String)> {
    for (at, _) in term.char_indices() {
        for operator in ["!=", "==", "="] {
            if term[at..].starts_with(operator) {
                let value = unescape(&term[at + operator.len()..])?;
                return Some((term[..at].to_owned(), operator, value));
            }
        }
    }
    None
}

fn unescape(value: &str) -> Option<String> {
    let mut plain = String::new();
    let mut is_escaped = false;
    for c in value.chars() {
        let is_special = matches!(c, '\\' | ',' | '=');
        match (is_escaped, is_special) {
            (true, true) | (false, false) => {
                plain.push(c);
                is_escaped = false;
            }
            (false, true) if c == '\\' => is_escaped = true,
            (true, false) | (false, true) => return None,
        }
    }
    (!is_escaped).then_some(plain)
}
