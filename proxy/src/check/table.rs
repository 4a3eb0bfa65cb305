//! Lays findings out for people.

use std::fmt::Write as _;

use super::Finding;

/// One finding, its remedy on a line below.
pub fn table(finding: &Finding) -> String {
    let Finding { check, verdict, found, remedy } = finding;
    let mut text = format!("{verdict:4}  {check:14}  {found}\n");
    if let Some(remedy) = remedy {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{:22}-> {remedy}", "");
    }
    text
}
