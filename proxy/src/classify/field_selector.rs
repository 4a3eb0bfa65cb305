//! Finds the one name that a list or watch asks for with a field selector.
//!
//! Source: k8s.io/apimachinery `fields.ParseSelector` and `RequiresExactMatch`, as `RequestInfoFactory` uses them. The
//! syntax of a label selector beside it is not checked: the API server refuses the request over it anyway.

use std::borrow::Cow;

use super::query;

/// List options that kube-apiserver reads as numbers; with one that is none it ignores the field selector.
const NUMBERS: [&str; 2] = ["limit", "timeoutSeconds"];

/// The name that the query's field selector requires, if it can be a path segment. Allocates only to unescape.
pub(super) fn required_name(query: &str) -> Option<Cow<'_, str>> {
    let selector = query::first(query, "fieldSelector")?;
    let is_broken = |key| query::first(query, key).is_some_and(|value| value.parse::<i64>().is_err());
    if NUMBERS.into_iter().any(is_broken) {
        return None;
    }
    match selector {
        Cow::Borrowed(selector) => name_in(selector),
        Cow::Owned(selector) => name_in(&selector).map(|name| Cow::Owned(name.into_owned())),
    }
}

fn name_in(selector: &str) -> Option<Cow<'_, str>> {
    let mut required: Option<(&str, Cow<'_, str>)> = None;
    for term in terms(selector).filter(|term| !term.is_empty()) {
        let (field, is_equal, value) = split(term)?;
        let value = unescape(value)?;
        // Go sorts the terms: of several on the name the first in byte order counts.
        let is_first = required.as_ref().is_none_or(|(known, _)| term < *known);
        if is_equal && field == "metadata.name" && is_first {
            required = Some((term, value));
        }
    }
    let (_, name) = required?;
    (!matches!(&*name, "." | "..") && !name.contains(['/', '%'])).then_some(name)
}

/// Splits at the commas that no backslash escapes.
fn terms(selector: &str) -> impl Iterator<Item = &str> {
    let mut is_escaped = false;
    selector.split(move |c| {
        let splits = c == ',' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        splits
    })
}

/// Field, whether it must equal the value, and the value as it is written; `None` without an operator.
fn split(term: &str) -> Option<(&str, bool, &str)> {
    let (field, value) = term.split_once('=')?;
    Some(match field.strip_suffix('!') {
        Some(field) => (field, false, value),
        None => (field, true, value.strip_prefix('=').unwrap_or(value)),
    })
}

/// Resolves backslashes; `None` where a backslash escapes nothing or an equals sign stands alone.
fn unescape(value: &str) -> Option<Cow<'_, str>> {
    if !value.contains(['\\', '=']) {
        return Some(Cow::Borrowed(value));
    }
    let (mut plain, mut chars) = (String::with_capacity(value.len()), value.chars());
    while let Some(c) = chars.next() {
        plain.push(match c {
            '=' => return None,
            '\\' => chars.next().filter(|escaped| matches!(escaped, '\\' | ',' | '='))?,
            c => c,
        });
    }
    Some(Cow::Owned(plain))
}
