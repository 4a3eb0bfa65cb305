//! Decides whether an object matches a label or a field selector.

use serde_json::Value;

/// A selector that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unable to parse requirement: {requirement:?}")]
pub(super) struct BadSelector {
    pub(super) requirement: String,
}

/// Requirements on fields, all of which must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldSelector(Vec<(String, bool, String)>);

impl FieldSelector {
    pub(super) fn parse(text: &str) -> Result<Self, BadSelector> {
        text.split(',')
            .filter(|term| !term.is_empty())
            .map(|term| {
                let (field, equal, value) = match (term.split_once("!="), term.split_once('=')) {
                    (Some((field, value)), _) => (field, false, value),
                    (None, Some((field, value))) => (field, true, value.strip_prefix('=').unwrap_or(value)),
                    (None, None) => return Err(BadSelector { requirement: term.to_owned() }),
                };
                Ok((field.to_owned(), equal, value.to_owned()))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The value that `field` must have.
    pub(super) fn required(&self, field: &str) -> Option<&str> {
        self.0.iter().find(|(name, equal, _)| name == field && *equal).map(|(_, _, value)| value.as_str())
    }

    fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|(field, equal, value)| (field_of(object, field) == *value) == *equal)
    }
}

/// The text of a scalar at a dotted path; empty when there is none.
fn field_of(object: &Value, path: &str) -> String {
    match path.split('.').try_fold(object, |value, name| value.get(name)) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(_) | Value::Number(_)) => {
            object.pointer(&format!("/{}", path.replace('.', "/"))).map(Value::to_string).unwrap_or_default()
        }
        _ => String::new(),
    }
}

/// Requirements on labels, all of which must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LabelSelector(Vec<(String, Requirement)>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    Exists,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
}

impl LabelSelector {
    pub(super) fn parse(text: &str) -> Result<Self, BadSelector> {
        terms(text).map(parse_requirement).collect::<Result<_, _>>().map(Self)
    }

    fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|(label, requirement)| {
            let value = object.pointer("/metadata/labels").and_then(|labels| labels.get(label)?.as_str());
            match requirement {
                Requirement::Exists => value.is_some(),
                Requirement::Absent => value.is_none(),
                Requirement::In(values) => value.is_some_and(|value| values.iter().any(|one| one == value)),
                Requirement::NotIn(values) => value.is_none_or(|value| values.iter().all(|one| one != value)),
            }
        })
    }
}

/// Splits at the commas outside parentheses.
fn terms(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    text.split(move |c| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|term| !term.is_empty())
}

fn parse_requirement(term: &str) -> Result<(String, Requirement), BadSelector> {
    let one = |label: &str, value: &str, make: fn(Vec<String>) -> Requirement| {
        Ok((label.trim().to_owned(), make(vec![value.trim().to_owned()])))
    };
    if let Some((label, value)) = term.split_once("!=") {
        return one(label, value, Requirement::NotIn);
    }
    if let Some((label, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        return one(label, value, Requirement::In);
    }
    let words = term.split_once(char::is_whitespace);
    match words.map(|(label, rest)| (label, rest.trim())) {
        None => match term.strip_prefix('!') {
            Some(label) => Ok((label.to_owned(), Requirement::Absent)),
            None => Ok((term.to_owned(), Requirement::Exists)),
        },
        Some((label, set)) => {
            let (make, set): (fn(Vec<String>) -> Requirement, _) = match set.strip_prefix("notin") {
                Some(set) => (Requirement::NotIn, set),
                None => (Requirement::In, set.strip_prefix("in").ok_or_else(|| bad(term))?),
            };
            let set = set
                .trim()
                .strip_prefix('(')
                .and_then(|set| set.strip_suffix(')'))
                .ok_or_else(|| bad(term))?;
            Ok((label.to_owned(), make(set.split(',').map(|value| value.trim().to_owned()).collect())))
        }
    }
}

fn bad(term: &str) -> BadSelector {
    BadSelector { requirement: term.to_owned() }
}

/// Both selectors of a list or watch.
#[derive(Clone, Debug, Default)]
pub(super) struct Selectors {
    pub(super) fields: FieldSelector,
    pub(super) labels: LabelSelector,
}

impl Selectors {
    pub(super) fn matches(&self, object: &Value) -> bool {
        self.fields.matches(object) && self.labels.matches(object)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selects_by_labels_and_fields() {
        let object =
            json!({"metadata": {"name": "a", "labels": {"app": "web", "tier": "front"}}, "spec": {"n": 3}});
        for (text, matches) in [
            ("app=web", true),
            ("app==web,tier!=back", true),
            ("app!=web", false),
            ("app in (db, web),tier", true),
            ("app notin (db,web)", false),
            ("!app", false),
            ("!missing", true),
            ("missing", false),
            ("missing notin (x)", true),
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap().matches(&object), matches, "{text}");
        }
        for (text, matches) in [("metadata.name=a", true), ("metadata.name!=a", false), ("spec.n==3", true)] {
            assert_eq!(FieldSelector::parse(text).unwrap().matches(&object), matches, "{text}");
        }
        assert!(LabelSelector::parse("app near (web)").is_err());
        assert!(FieldSelector::parse("bogus").is_err());
    }
}
