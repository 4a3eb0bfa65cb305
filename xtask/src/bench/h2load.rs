//! Runs h2load and reads what it says.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::cases::Requests;
use super::place::Folder;
use super::statistics::{float, ratio};
use crate::command::capture;

/// Longest run.
const LIMIT: Duration = Duration::from_mins(2);
/// Share of requests that has to succeed: a proxy that fails is fast.
const SUCCESS: f64 = 0.99;

/// What a run was like.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Requests that were answered with 2xx.
    pub(crate) answered: u64,
    /// Of them in a second.
    pub(crate) per_second: f64,
}

/// Sends the requests.
///
/// # Errors
/// When more than one in a hundred is not answered with 2xx.
pub(crate) fn run(folder: &Folder, address: SocketAddr, path: &str, requests: Requests) -> Result<Outcome> {
    let (clients, streams) = requests.clients;
    let mut h2load = Command::new("h2load");
    h2load.args(["--threads=1", "--tls13-ciphers=TLS_AES_128_GCM_SHA256"]);
    h2load.arg(format!("--requests={}", requests.count));
    h2load.arg(format!("--clients={clients}")).arg(format!("--max-concurrent-streams={streams}"));
    h2load.arg("--header=authorization: Bearer bob-token");
    if requests.http1 {
        h2load.arg("--h1");
    }
    if let Some(bytes) = requests.upload {
        let file = folder.file("upload");
        fs::write(&file, vec![b'a'; bytes])?;
        h2load.arg(format!("--data={}", file.display())).arg("--header=content-type: application/json");
    }
    h2load.arg(format!("https://{address}{path}"));
    let said = capture(&mut h2load, LIMIT)?.success("h2load")?;
    let (answered, seconds) = understood(&said).with_context(|| format!("h2load said: {said}"))?;
    let wanted = u64::try_from(requests.count)?;
    ensure!(
        ratio(answered, wanted) >= SUCCESS,
        "only {answered} of {wanted} requests were answered with 2xx"
    );
    Ok(Outcome { answered, per_second: float(answered) / seconds })
}

/// Answers with 2xx, and how long all took.
fn understood(said: &str) -> Option<(u64, f64)> {
    let line = |start: &str| said.lines().find_map(|line| line.strip_prefix(start));
    let answered = line("status codes: ")?.split_once(" 2xx")?.0.parse().ok()?;
    Some((answered, seconds(line("finished in ")?.split_once(',')?.0)?))
}

fn seconds(text: &str) -> Option<f64> {
    for (unit, factor) in [("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0)] {
        if let Some(number) = text.strip_suffix(unit) {
            return number.parse::<f64>().ok().map(|number| number * factor);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_understood() {
        let said = "finished in 701.53ms, 2850.91 req/s, 2.89MB/s\n\
                    requests: 2000 total, 2000 started, 2000 done, 1999 succeeded, 1 failed, 0 errored, 0 timeout\n\
                    status codes: 1999 2xx, 0 3xx, 1 4xx, 0 5xx\n";
        let (answered, seconds) = understood(said).unwrap();
        assert_eq!(answered, 1999);
        assert!((seconds - 0.70153).abs() < 1e-9, "{seconds}");
        assert!(understood("nothing").is_none());
    }
}
