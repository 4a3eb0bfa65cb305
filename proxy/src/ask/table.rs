//! Lays reports out for people.

use std::fmt::Write as _;

use crate::discovery::Difference;
use crate::explain::{RouteReport, SkewReport};

/// Servers, then what they serve differently.
pub(super) fn skew(report: &SkewReport) -> String {
    let servers = report.servers.iter().map(|server| {
        let state = if server.healthy { "healthy" } else { "not healthy" };
        let version = server.version.as_deref().unwrap_or("not known yet");
        [server.address.clone(), server.role.clone(), version.to_owned(), state.to_owned()]
    });
    let mut text = columns(["SERVER", "ROLE", "VERSION", "STATE"], servers.collect());
    text.push('\n');
    if report.differences.is_empty() {
        let _ = writeln!(text, "All of them serve the same {} resources.", report.resources);
        return text;
    }
    let rows = report.differences.iter().map(|difference| {
        [api(difference), resource(difference), difference.served_by.join(","), missing(difference)]
    });
    text.push_str(&columns(["GROUP/VERSION", "RESOURCE", "SERVED BY", "MISSING ON"], rows.collect()));
    text
}

/// What the request asks for, where it goes, and why.
pub(super) fn route(report: &RouteReport) -> String {
    let mut text = format!("{} {}\n", report.method, report.path);
    if let Some(request) = report.request.as_ref().filter(|request| !request.resource.is_empty()) {
        let slash = if request.subresource.is_empty() { "" } else { "/" };
        let group = if request.group.is_empty() { String::new() } else { format!(".{}", request.group) };
        let _ = write!(text, "asks for  {} {}{slash}{}", request.verb, request.resource, request.subresource);
        let _ = writeln!(text, " ({}{group})", request.version);
    }
    let order = report.servers.join(", then ");
    let _ = writeln!(text, "goes to   {}", if order.is_empty() { "nobody" } else { &order });
    let _ = writeln!(text, "because   {}", report.reason);
    text
}

fn api(difference: &Difference) -> String {
    match difference.group.as_str() {
        "" => difference.version.clone(),
        group => format!("{group}/{}", difference.version),
    }
}

fn resource(difference: &Difference) -> String {
    match difference.subresource.as_str() {
        "" => difference.resource.clone(),
        subresource => format!("{}/{subresource}", difference.resource),
    }
}

fn missing(difference: &Difference) -> String {
    let verbs =
        difference.missing_verbs.iter().map(|it| format!("{} on {}", it.verb, it.missing_on.join(",")));
    let servers = (!difference.missing_on.is_empty()).then(|| difference.missing_on.join(","));
    servers.into_iter().chain(verbs).collect::<Vec<_>>().join("; ")
}

/// Columns as kubectl prints them, three blanks apart.
fn columns<const N: usize>(header: [&str; N], rows: Vec<[String; N]>) -> String {
    let header = header.map(str::to_owned);
    let all: Vec<[String; N]> = std::iter::once(header).chain(rows).collect();
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in &all {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("   ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::MissingVerb;
    use crate::explain::{RequestReport, ServerReport};

    fn server(address: &str, version: Option<&str>) -> ServerReport {
        let version = version.map(str::to_owned);
        ServerReport { address: address.to_owned(), role: "peer".to_owned(), version, healthy: true }
    }

    #[test]
    fn differences_are_laid_out_in_columns() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let difference = |group: &str, subresource: &str, missing_on: &[&str]| Difference {
            group: group.to_owned(),
            version: "v1".to_owned(),
            resource: "pods".to_owned(),
            subresource: subresource.to_owned(),
            served_by: list(&["b:1"]),
            missing_on: list(missing_on),
            missing_verbs: Vec::new(),
        };
        let verbs = vec![MissingVerb { verb: "patch".to_owned(), missing_on: list(&["b:1"]) }];
        let report = SkewReport {
            servers: vec![server("a:1", Some("v1.34.0")), server("b:1", None)],
            resources: 3,
            differences: vec![
                difference("", "resize", &["a:1"]),
                Difference { missing_verbs: verbs, ..difference("apps.example.net", "", &[]) },
            ],
        };
        let expected = "\
SERVER   ROLE   VERSION         STATE
a:1      peer   v1.34.0         healthy
b:1      peer   not known yet   healthy

GROUP/VERSION         RESOURCE      SERVED BY   MISSING ON
v1                    pods/resize   b:1         a:1
apps.example.net/v1   pods          b:1         patch on b:1
";
        assert_eq!(skew(&report), expected);
        let same = SkewReport { differences: Vec::new(), ..report };
        assert!(skew(&same).ends_with("All of them serve the same 3 resources.\n"));
    }

    #[test]
    fn a_route_is_four_lines() {
        let request = RequestReport {
            verb: "list".to_owned(),
            group: "resource.k8s.io".to_owned(),
            version: "v1".to_owned(),
            resource: "deviceclasses".to_owned(),
            subresource: String::new(),
            namespace: String::new(),
            name: String::new(),
        };
        let report = RouteReport {
            method: "GET".to_owned(),
            path: "/apis/resource.k8s.io/v1/deviceclasses".to_owned(),
            request: Some(request),
            outcome: "peer".to_owned(),
            reason: "the local API server does not serve it; 2 of 2 peers can".to_owned(),
            servers: vec!["10.0.0.8:6443".to_owned(), "10.0.0.9:6443".to_owned()],
        };
        let expected = "\
GET /apis/resource.k8s.io/v1/deviceclasses
asks for  list deviceclasses (v1.resource.k8s.io)
goes to   10.0.0.8:6443, then 10.0.0.9:6443
because   the local API server does not serve it; 2 of 2 peers can
";
        assert_eq!(route(&report), expected);
    }
}
