//! Checks the rules of CONTRIBUTING.md that no compiler checks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::{claims, command};

/// Longest file.
const MAX_LINES: usize = 400;
/// Reason that every ignored test has to give.
const IGNORE_REASON: &str = r#"#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]"#;
/// Where `unsafe` may be: map layouts, kernel programs, and the one file that maps memory.
const UNSAFE_ALLOWED: [&str; 3] = ["proxy-common/", "proxy-ebpf/", "proxy/src/steering/page.rs"];

/// Checks every Rust file that git knows or could know.
///
/// # Errors
/// When a file breaks a rule; all of them are printed.
pub(crate) fn check(root: &Path) -> Result<()> {
    let mut mistakes = Vec::new();
    let files = rust_files(root)?;
    for file in &files {
        let text = fs::read_to_string(root.join(file))?;
        mistakes.extend(mistakes_in(&file.to_string_lossy(), &text));
    }
    mistakes.extend(claims::mistakes(root)?);
    for mistake in &mistakes {
        println!("{mistake}");
    }
    match mistakes.len() {
        0 => println!("{} files follow the conventions", files.len()),
        count => bail!("{count} places break the conventions of CONTRIBUTING.md"),
    }
    Ok(())
}

fn rust_files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard", "*.rs"]).current_dir(root);
    let files = command::quiet(&mut git)?.lines().map(PathBuf::from).collect::<Vec<_>>();
    // Deleted but not yet committed files are still listed.
    Ok(files.into_iter().filter(|file| root.join(file).exists()).collect())
}

fn mistakes_in(file: &str, text: &str) -> Vec<String> {
    let mut mistakes = Vec::new();
    // A module of tests in a file of its own is described where its parent is.
    if !text.starts_with("//! ") && !file.ends_with("/tests.rs") {
        mistakes.push(format!("{file}:1: does not open with a `//!` sentence"));
    }
    let lines = text.lines().count();
    if lines > MAX_LINES {
        mistakes.push(format!("{file}: {lines} lines, at most {MAX_LINES}"));
    }
    let numbered = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    for (number, line) in numbered {
        if line.starts_with("#[ignore") && line != IGNORE_REASON {
            mistakes.push(format!("{file}:{number}: an ignored test says {IGNORE_REASON}"));
        }
        if has_unsafe(line) && !UNSAFE_ALLOWED.iter().any(|allowed| file.starts_with(allowed)) {
            mistakes.push(format!("{file}:{number}: `unsafe` belongs to {}", UNSAFE_ALLOWED.join(", ")));
        }
    }
    mistakes
}

fn has_unsafe(line: &str) -> bool {
    ["unsafe {", "unsafe impl", "unsafe fn", "unsafe extern"].iter().any(|code| line.contains(code))
        && !line.starts_with("//")
        && !line.contains('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_found_where_they_are() {
        let long = format!("//! Is long.\n{}", "x\n".repeat(MAX_LINES));
        for (file, text, expected) in [
            ("a.rs", "//! Does it.\nfn a() {}\n", 0),
            ("a.rs", "fn a() {}\n", 1),
            ("a/tests.rs", "fn a() {}\n", 0),
            ("a.rs", long.as_str(), 1),
            ("a.rs", "//! Tests.\n#[ignore]\nfn a() {}\n", 1),
            ("a.rs", "//! Maps.\nlet a = unsafe { b() };\n", 1),
            ("proxy-common/a.rs", "//! Maps.\nlet a = unsafe { b() };\n", 0),
        ] {
            assert_eq!(mistakes_in(file, text).len(), expected, "{file}: {text}");
        }
    }
}
