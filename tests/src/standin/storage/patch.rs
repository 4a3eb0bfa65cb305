//! Applies merge patches.

use serde_json::{Map, Value};

/// How lists and directives of a patch are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flavour {
    /// RFC 7386: lists are replaced.
    Merge,
    /// Strategic merge and server-side apply, approximated: lists of named objects merge by name, directives
    /// (`$setElementOrder/…`, `$retainKeys`) are ignored, except `$patch: delete` of a list element.
    Strategic,
}

/// Merges `patch` into `object`.
pub(super) fn merge(object: &mut Value, patch: Value, flavour: Flavour) {
    let Value::Object(patch) = patch else {
        *object = patch;
        return;
    };
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Some(fields) = object.as_object_mut() else { return };
    for (key, value) in patch {
        match value {
            _ if flavour == Flavour::Strategic && key.starts_with('$') => {}
            Value::Null => {
                fields.remove(&key);
            }
            Value::Array(items) if flavour == Flavour::Strategic => {
                let old = fields.entry(key).or_insert(Value::Null);
                merge_list(old, items);
            }
            value => merge(fields.entry(key).or_insert(Value::Null), value, flavour),
        }
    }
}

fn merge_list(old: &mut Value, items: Vec<Value>) {
    let named = |list: &[Value]| list.iter().all(|item| item.get("name").is_some_and(Value::is_string));
    let Some(list) = old.as_array_mut().filter(|list| named(list) && named(&items)) else {
        *old = Value::Array(items);
        return;
    };
    for item in items {
        let place = list.iter().position(|one| one["name"] == item["name"]);
        match (place, item.get("$patch").and_then(Value::as_str)) {
            (Some(place), Some("delete")) => {
                list.remove(place);
            }
            (None, Some("delete")) => {}
            (Some(place), _) => merge(&mut list[place], item, Flavour::Strategic),
            (None, _) => list.push(item),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merges_as_rfc_7386_says() {
        for (object, patch, merged) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut result = object.clone();
            merge(&mut result, patch.clone(), Flavour::Merge);
            assert_eq!(result, merged, "{object} + {patch}");
        }
    }

    #[test]
    fn strategic_patches_merge_named_lists() {
        let mut object = json!({"c": [{"name": "a", "image": "1", "tty": true}, {"name": "b"}]});
        let patch = json!({"c": [{"name": "a", "image": "2"}, {"name": "b", "$patch": "delete"}, {"name": "d"}],
                           "$setElementOrder/c": [{"name": "a"}]});
        merge(&mut object, patch, Flavour::Strategic);
        assert_eq!(object, json!({"c": [{"name": "a", "image": "2", "tty": true}, {"name": "d"}]}));
    }
}
