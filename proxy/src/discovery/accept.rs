//! Reads Accept headers as kube-apiserver's discovery endpoints do.

use http::header::ACCEPT;
use http::{HeaderMap, Method};

use super::Document;

/// The merged document a request is to be answered with, if it is one for aggregated v2 discovery in JSON.
///
/// Any clause that names v2 aggregated discovery wins over plain ones, whatever its weight; among several the heaviest,
/// then the first. `profile=nopeer`, exactly so, asks for the local server's own view.
/// Source: k8s.io/apiserver `endpoints/discovery/aggregated/negotiation.go`.
pub fn merged_document(method: &Method, path: &str, headers: &HeaderMap) -> Option<Document> {
    if *method != Method::GET {
        return None;
    }
    let document = Document::ALL.into_iter().find(|document| document.path() == path)?;
    let accept: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let mut best: Option<Clause<'_>> = None;
    for clause in
        accept.iter().flat_map(|value| value.split(',')).map(Clause::parse).filter(Clause::is_aggregated_v2)
    {
        if best.as_ref().is_none_or(|best| clause.weight > best.weight) {
            best = Some(clause);
        }
    }
    best.filter(|clause| clause.is_json() && clause.profile != Some("nopeer")).map(|_| document)
}

#[derive(Debug)]
struct Clause<'a> {
    media_type: &'a str,
    group: Option<&'a str>,
    version: Option<&'a str>,
    kind: Option<&'a str>,
    profile: Option<&'a str>,
    /// Thousandths.
    weight: u16,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        let mut clause =
            Self { media_type, group: None, version: None, kind: None, profile: None, weight: 1000 };
        for (key, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
            match key.trim() {
                "g" => clause.group = Some(value.trim()),
                "v" => clause.version = Some(value.trim()),
                "as" => clause.kind = Some(value.trim()),
                "profile" => clause.profile = Some(value.trim()),
                "q" => clause.weight = weight(value.trim()),
                _ => {}
            }
        }
        clause
    }

    fn is_aggregated_v2(&self) -> bool {
        self.group == Some("apidiscovery.k8s.io")
            && self.version == Some("v2")
            && self.kind == Some("APIGroupDiscoveryList")
    }

    fn is_json(&self) -> bool {
        matches!(self.media_type, "application/json" | "application/*" | "*/*")
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=1000 before")]
fn weight(text: &str) -> u16 {
    text.parse::<f32>().map_or(1000, |weight| (weight.clamp(0.0, 1.0) * 1000.0) as u16)
}

#[cfg(test)]
mod tests;
