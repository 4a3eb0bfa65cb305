//! Writes an error and its causes on one line.

use std::error::Error;

/// The error and each of its causes once: some libraries' texts already contain their cause's. Line breaks become blanks.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        cause = error.source();
    }
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    #[test]
    fn each_cause_stands_once_on_one_line() {
        let layer = |text, source| Layer { text, source };
        let inner = layer("no\nroute", None);
        let middle = layer("connect: no\nroute", Some(Box::new(inner)));
        assert_eq!(chain(&layer("not reached", Some(Box::new(middle)))), "not reached: connect: no route");
    }
}
