//! Reads the `--config` file: YAML with the flags' names as keys.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::error::ConfigError;
use super::flags;
use super::nearest::nearest;
use super::origin::{Flag, Origin};
use super::sources::Source;

/// Reads `text`; unknown keys go to `mistakes`, the rest of the file still counts.
pub(super) fn read(
    flag: Flag,
    path: &Path,
    text: &str,
    mistakes: &mut Vec<ConfigError>,
) -> Result<Source, ConfigError> {
    let entries: Option<BTreeMap<String, Texts>> = match from_yaml(text) {
        Ok(entries) => entries,
        Err(source) => return Err(ConfigError::Unparsable { flag, file: path.to_path_buf(), source }),
    };
    let mut values = BTreeMap::new();
    for (key, Texts(texts)) in entries.unwrap_or_default() {
        match (known(&key), texts) {
            (Some(name), Some(texts)) => drop(values.insert(name, texts)),
            (Some(_), None) => {}
            (None, _) => mistakes.push(unknown_key(path, key)),
        }
    }
    Ok(Source { origin: Origin::ConfigFile(path.to_path_buf()), values })
}

/// Parses YAML in which only `true` and `false` are booleans, so that `steering: off` stays a word.
pub(super) fn from_yaml<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Box<serde_saphyr::Error>> {
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(Box::new)
}

/// Every flag is a key but `--config` itself.
fn known(key: &str) -> Option<&'static str> {
    flags::find(key).map(|flag| flag.name).filter(|name| *name != "config")
}

fn unknown_key(path: &Path, key: String) -> ConfigError {
    let names = flags::FLAGS.iter().map(|flag| flag.name).filter(|name| *name != "config");
    let nearest = nearest(&key, names).map(str::to_owned);
    ConfigError::UnknownKey { file: path.to_path_buf(), key, nearest }
}

/// One scalar, a list of scalars, or a map of scalars (`feature-gates`), all as text; `None` for null.
struct Texts(Option<Vec<String>>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextsVisitor)
    }
}

struct TextsVisitor;

impl<'de> Visitor<'de> for TextsVisitor {
    type Value = Texts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, true, false, or a list of those")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Texts, E> {
        Ok(Texts(Some(vec![value.to_string()])))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Texts, E> {
        Ok(Texts(Some(vec![value.to_string()])))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Texts, E> {
        Ok(Texts(Some(vec![value.to_string()])))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Texts, E> {
        Ok(Texts(Some(vec![value.to_string()])))
    }

    fn visit_str<E>(self, value: &str) -> Result<Texts, E> {
        Ok(Texts(Some(vec![value.to_owned()])))
    }

    fn visit_unit<E>(self) -> Result<Texts, E> {
        Ok(Texts(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Texts, A::Error> {
        let mut texts = Vec::new();
        while let Some(Texts(more)) = list.next_element()? {
            texts.extend(more.unwrap_or_default());
        }
        Ok(Texts(Some(texts)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Texts, A::Error> {
        let mut texts = Vec::new();
        while let Some((key, Texts(value))) = map.next_entry::<String, Texts>()? {
            texts.push(format!("{key}={}", value.unwrap_or_default().join(",")));
        }
        Ok(Texts(Some(texts)))
    }
}
