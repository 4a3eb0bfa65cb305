//! Reads a proxy's admin address, which speaks plain HTTP on its node's loopback.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::place::Place;

/// Longest wait for any part of an answer.
const LIMIT: Duration = Duration::from_secs(2);

/// Status and body of `GET path`.
pub(crate) fn get(place: &Place, address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = place.connect(address, LIMIT).with_context(|| format!("cannot connect to {address}"))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("no answer to GET {address}{path}"))?;
    parse(&answer).with_context(|| format!("GET {address}{path} was not answered in HTTP"))
}

fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// Sum over all labels of one metric in the text format.
pub(crate) fn total(metrics: &str, name: &str) -> f64 {
    let samples = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        // Anything else behind the name makes it the start of a longer one.
        rest.starts_with(['{', ' ']).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
    });
    samples.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn total_adds_the_samples_of_one_metric_only() {
        let text = "# HELP a_total x\na_total{code=\"200\"} 2\na_total{code=\"404\"} 3\na_total_b 9\nb 1\n";
        assert!((total(text, "a_total") - 5.0).abs() < f64::EPSILON);
        assert!(total(text, "c").abs() < f64::EPSILON);
    }

    #[test]
    fn parse_takes_status_and_body() {
        assert_eq!(parse("HTTP/1.0 503 x\r\nA: b\r\n\r\nno"), Some((503, "no".to_owned())));
        assert_eq!(parse("garbage"), None);
    }
}
