//! Decides from an Accept header which form of a discovery document a client gets.

use crate::standin::documents::Aggregation;

/// The media types named in a 406.
pub(in crate::standin) const OFFERED: &str =
    "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// One of the forms a discovery root has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::standin) enum Form {
    /// Aggregated, JSON.
    Json,
    /// Aggregated v2beta1, JSON.
    JsonBeta,
    /// Aggregated, YAML.
    Yaml,
    /// Aggregated, protobuf.
    Protobuf,
    /// Unaggregated JSON.
    Legacy,
    /// 406.
    Refused,
}

/// One clause of an Accept header.
#[derive(Debug)]
pub(in crate::standin) struct Clause<'a> {
    pub(in crate::standin) media_type: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        let parameters = parts.filter_map(|part| part.split_once('=')).collect();
        Self { media_type, parameters }
    }

    pub(in crate::standin) fn parameter(&self, name: &str) -> Option<&'a str> {
        self.parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }

    fn quality(&self) -> f32 {
        self.parameter("q").and_then(|q| q.parse().ok()).unwrap_or(1.0)
    }

    /// Asks for another kind than the plain one.
    fn converts(&self) -> bool {
        ["as", "g", "v"].iter().any(|name| self.parameter(name).is_some())
    }

    fn is_aggregated(&self, version: &str) -> bool {
        self.parameter("g") == Some("apidiscovery.k8s.io")
            && self.parameter("v") == Some(version)
            && self.parameter("as") == Some("APIGroupDiscoveryList")
    }
}

/// The clauses of `accept`, by quality and then in their order.
pub(in crate::standin) fn clauses(accept: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<_> =
        accept.split(',').map(str::trim).filter(|text| !text.is_empty()).map(Clause::parse).collect();
    clauses.sort_by(|a, b| b.quality().total_cmp(&a.quality()));
    clauses
}

/// The form for `accept`: any aggregated clause wins over every plain one, whatever their qualities (kube-apiserver's
/// `discovery/aggregated/wrapper.go`).
pub(in crate::standin) fn choose(accept: &str) -> Form {
    let clauses = clauses(accept);
    let aggregated =
        clauses.iter().filter(|clause| clause.is_aggregated("v2")).find_map(|clause| {
            match clause.media_type {
                "application/json" | "application/*" | "*/*" => Some(Form::Json),
                "application/yaml" => Some(Form::Yaml),
                "application/vnd.kubernetes.protobuf" => Some(Form::Protobuf),
                _ => None,
            }
        });
    aggregated.unwrap_or(if accepts_json(accept) { Form::Legacy } else { Form::Refused })
}

/// The same of a server that has another form of aggregated discovery.
pub(in crate::standin) fn choose_of(aggregation: Aggregation, accept: &str) -> Form {
    let plain = if accepts_json(accept) { Form::Legacy } else { Form::Refused };
    match aggregation {
        Aggregation::V2 => choose(accept),
        Aggregation::Absent => plain,
        Aggregation::V2Beta1 => {
            let clauses = clauses(accept);
            let is_asked_for = clauses.iter().any(|clause| {
                clause.is_aggregated("v2beta1")
                    && matches!(clause.media_type, "application/json" | "application/*" | "*/*")
            });
            if is_asked_for { Form::JsonBeta } else { plain }
        }
    }
}

/// Whether plain JSON is among what `accept` allows.
pub(in crate::standin) fn accepts_json(accept: &str) -> bool {
    let clauses = clauses(accept);
    clauses.is_empty()
        || clauses.iter().any(|clause| {
            !clause.converts() && matches!(clause.media_type, "application/json" | "application/*" | "*/*")
        })
}

/// The check that the router of `/api` makes before the handler: it knows whole media types and `*/*` only.
pub(in crate::standin) fn router_produces(accept: &str) -> bool {
    let clauses = clauses(accept);
    clauses.is_empty()
        || clauses.iter().any(|clause| {
            matches!(
                clause.media_type,
                "application/json" | "application/yaml" | "application/vnd.kubernetes.protobuf" | "*/*"
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

    #[test]
    fn chooses_the_recorded_form() {
        let beta = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
        for (accept, form) in [
            (format!("application/json;{V2}"), Form::Json),
            (format!("application/json;{V2};profile=nopeer"), Form::Json),
            (format!("application/json;{V2};profile=other"), Form::Json),
            (
                "application/json; as=APIGroupDiscoveryList; v=v2; g=apidiscovery.k8s.io; x=y".to_owned(),
                Form::Json,
            ),
            (format!("application/vnd.kubernetes.protobuf;{V2}"), Form::Protobuf),
            (format!("application/yaml;{V2}"), Form::Yaml),
            (format!("*/*;{V2}"), Form::Json),
            (format!("application/*;{V2}"), Form::Json),
            (format!("application/cbor;{V2}"), Form::Refused),
            (format!("application/json;{V2},{beta},application/json"), Form::Json),
            (format!("application/json, application/json;{V2}"), Form::Json),
            (format!("application/json;q=1,application/json;{V2};q=0.1"), Form::Json),
            (
                format!("application/json;{V2};q=0.1,application/vnd.kubernetes.protobuf;{V2};q=0.2"),
                Form::Protobuf,
            ),
            ("application/json".to_owned(), Form::Legacy),
            ("*/*".to_owned(), Form::Legacy),
            (String::new(), Form::Legacy),
            (beta.to_owned(), Form::Refused),
            (format!("{beta},application/json"), Form::Legacy),
            (
                "application/json;g=apidiscovery.k8s.io;v=v3;as=APIGroupDiscoveryList".to_owned(),
                Form::Refused,
            ),
            ("application/json;v=v2;as=APIGroupDiscoveryList".to_owned(), Form::Refused),
            ("application/json;g=apidiscovery.k8s.io;as=APIGroupDiscoveryList".to_owned(), Form::Refused),
            ("text/html".to_owned(), Form::Refused),
        ] {
            assert_eq!(choose(&accept), form, "{accept}");
        }
    }
}
