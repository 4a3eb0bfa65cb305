//! Answers /livez, /readyz and /healthz in kube-apiserver's form.

use http::StatusCode;

use super::query::Query;
use super::respond::{self, Body};

/// What can be wrong with a stand-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Health {
    /// The last connection to its own port failed.
    pub(super) loopback_failed: bool,
    /// It is stopping.
    pub(super) stopping: bool,
}

/// Answers `path` if it is a health path; `recorded` is a recorded `/readyz?verbose`.
pub(super) fn serve(
    health: Health,
    recorded: &str,
    path: &str,
    query: &Query,
) -> Option<http::Response<Body>> {
    let mut segments = path.split('/').skip(1);
    let endpoint = segments.next().filter(|name| matches!(*name, "livez" | "readyz" | "healthz"))?;
    let single = segments.collect::<Vec<_>>().join("/");
    let excluded: Vec<&str> = query.all("exclude").collect();
    let checks = checks(health, recorded, endpoint);
    if !single.is_empty() {
        return Some(match checks.iter().find(|(name, _)| *name == single) {
            Some((_, true)) => respond::text(StatusCode::OK, "ok"),
            Some((name, false)) => {
                let text = format!("internal server error: {name} check failed\n");
                respond::text(StatusCode::INTERNAL_SERVER_ERROR, text)
            }
            None => respond::page_not_found(),
        });
    }
    let mut failed = false;
    let mut lines = String::new();
    for (name, ok) in checks {
        let line = match (excluded.contains(&name), ok) {
            (true, _) => format!("[+]{name} excluded: ok\n"),
            (false, true) => format!("[+]{name} ok\n"),
            (false, false) => format!("[-]{name} failed: reason withheld\n"),
        };
        failed |= line.starts_with("[-]");
        lines.push_str(&line);
    }
    Some(match (failed, query.get("verbose").is_some()) {
        (true, _) => {
            respond::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{lines}{endpoint} check failed\n"))
        }
        (false, true) => respond::text(StatusCode::OK, format!("{lines}{endpoint} check passed\n")),
        (false, false) => respond::text(StatusCode::OK, "ok"),
    })
}

/// The recorded checks, with what is wrong with this stand-in put in; only /readyz knows `informer-sync` and `shutdown`.
fn checks<'a>(health: Health, recorded: &'a str, endpoint: &str) -> Vec<(&'a str, bool)> {
    let ready = endpoint == "readyz";
    let mut checks: Vec<(&str, bool)> = recorded
        .lines()
        .filter_map(|line| line.strip_prefix("[+]")?.strip_suffix(" ok"))
        .filter(|name| ready || !matches!(*name, "informer-sync" | "shutdown"))
        .map(|name| (name, !(name == "shutdown" && health.stopping)))
        .collect();
    if ready && health.loopback_failed {
        checks.push(("loopback", false));
    }
    checks
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    const RECORDED: &str = include_str!("../../fixtures/kube-apiserver/v1.36-all/readyz-verbose.txt");

    async fn text(health: Health, path: &str, query: &str) -> (StatusCode, String) {
        let response = serve(health, RECORDED, path, &Query::parse(query)).unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn answers_in_the_recorded_form() {
        let well = Health { loopback_failed: false, stopping: false };
        let (ok, error) = (StatusCode::OK, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(text(well, "/readyz", "").await, (ok, "ok".to_owned()));
        assert_eq!(text(well, "/readyz", "verbose").await, (ok, RECORDED.to_owned()));
        assert_eq!(text(well, "/readyz/ping", "").await, (ok, "ok".to_owned()));
        let excluded = text(well, "/readyz", "verbose&exclude=ping").await.1;
        assert!(excluded.starts_with("[+]ping excluded: ok\n"), "{excluded}");
        let broken = Health { loopback_failed: true, stopping: true };
        let (status, lines) = text(broken, "/readyz", "").await;
        assert_eq!(status, error);
        let end =
            "[-]shutdown failed: reason withheld\n[-]loopback failed: reason withheld\nreadyz check failed\n";
        assert!(lines.ends_with(end), "{lines}");
        assert_eq!(text(broken, "/livez", "").await, (ok, "ok".to_owned()));
    }
}
