//! Checks that documents name tests that exist.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

/// Documents whose claims name the tests that show them.
const DOCUMENTS: [&str; 1] = ["docs/threat-model.md"];

/// What is wrong with the references `file.rs::test` in the documents.
///
/// # Errors
/// When a document cannot be read.
pub(crate) fn mistakes(root: &Path) -> Result<Vec<String>> {
    let mut mistakes = Vec::new();
    for document in DOCUMENTS {
        let text =
            fs::read_to_string(root.join(document)).with_context(|| format!("cannot read {document}"))?;
        let named: Vec<(&str, &str)> = references(&text).collect();
        if named.is_empty() {
            mistakes.push(format!("{document}: names no test"));
        }
        for (file, test) in named {
            let source = fs::read_to_string(root.join(file)).unwrap_or_default();
            if !has_test(&source, test) {
                mistakes.push(format!("{document}: there is no test `{test}` in {file}"));
            }
        }
    }
    Ok(mistakes)
}

/// File and name of every test that stands between backticks.
fn references(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let code = text.split('`').skip(1).step_by(2);
    code.filter_map(|code| code.split_once("::")).filter(|(file, _)| file.contains(".rs"))
}

/// Also true of a scenario, which becomes a test on loopback and one in namespaces.
fn has_test(source: &str, name: &str) -> bool {
    let mut after_attribute = false;
    source.lines().map(str::trim).any(|line| {
        let scenario = format!("pub async fn {name}(");
        if line == scenario || line.starts_with(&format!("{scenario}world: World)")) {
            return true;
        }
        if line.starts_with("#[test]") {
            after_attribute = true;
        } else if line.starts_with("fn ") {
            return std::mem::take(&mut after_attribute) && line.starts_with(&format!("fn {name}("));
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_found_and_checked() {
        let text = "Shown by `tests/a.rs::one`, `tests/a.rs::two` and `proxy/src/b.rs`; `x::y` is none.";
        let found: Vec<_> = references(text).collect();
        assert_eq!(found, [("tests/a.rs", "one"), ("tests/a.rs", "two")]);
        let source = "#[test]\nfn one() {}\nfn two() {}\n#[test]\n#[ignore]\nfn three() {}\n\
                      pub async fn four(world: World) {}\npub async fn five() {}\n";
        let tests = ["one", "two", "three", "thre", "four", "five"].map(|name| has_test(source, name));
        assert_eq!(tests, [true, false, true, false, true, false]);
    }
}
