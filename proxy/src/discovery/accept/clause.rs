//! Parses an Accept header as the library does that kube-apiserver uses (munnerz/goautoneg).

use crate::discovery::page::Encoding;

/// One clause.
#[derive(Debug)]
pub(super) struct Clause<'a> {
    pub(super) media_type: (&'a str, &'a str),
    weight: f32,
    /// `g`, `v` and `as`.
    pub(super) kind: [Option<&'a str>; 3],
    pub(super) profile: Option<&'a str>,
    pub(super) is_pretty: bool,
    stream: &'a str,
    server_version: &'a str,
}

/// The clauses of a header, the most wanted first.
pub(super) fn clauses(header: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause<'_>> = header.split(',').filter_map(Clause::parse).collect();
    // The library's order is none in the mathematical sense (a heavier range and a lighter type precede each other), so what
    // its insertion sort makes of it is done step by step.
    for end in 1..clauses.len() {
        let mut place = end;
        while place > 0 && clauses[place].precedes(&clauses[place - 1]) {
            clauses.swap(place, place - 1);
            place -= 1;
        }
    }
    clauses
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';');
        let mut range = parts.next().unwrap_or_default().split('/').map(str::trim);
        let media_type = match (range.next()?, range.next(), range.next()) {
            ("*", None, None) => ("*", "*"),
            (main, Some(sub), None) => (main, sub),
            _ => return None,
        };
        let mut clause = Self {
            media_type,
            weight: 1.0,
            kind: [None; 3],
            profile: None,
            is_pretty: false,
            stream: "",
            server_version: "",
        };
        let parameters = parts.filter_map(|parameter| parameter.split_once('='));
        for (key, value) in parameters.filter(|(_, value)| !value.is_empty() && !value.contains('=')) {
            let trimmed = value.trim();
            match key.trim() {
                // Go parses it untrimmed, and takes what is no number for 0.
                "q" => clause.weight = value.parse().unwrap_or_default(),
                "g" => clause.kind[0] = Some(trimmed),
                "v" => clause.kind[1] = Some(trimmed),
                "as" => clause.kind[2] = Some(trimmed),
                "profile" => clause.profile = Some(trimmed),
                "pretty" => clause.is_pretty = trimmed == "1",
                "stream" => clause.stream = trimmed,
                "sv" => clause.server_version = trimmed,
                _ => {}
            }
        }
        Some(clause)
    }

    fn precedes(&self, other: &Self) -> bool {
        self.weight > other.weight
            || (self.media_type.0 != "*" && other.media_type.0 == "*")
            || (self.media_type.1 != "*" && other.media_type.1 == "*")
    }

    /// Whether the clause can be answered in this encoding.
    pub(super) fn admits(&self, encoding: Encoding) -> bool {
        let subtype = subtype(encoding);
        let names_it = match self.media_type {
            ("*" | "application", "*") => true,
            (main, sub) => main == "application" && sub == subtype,
        };
        // Only JSON and protobuf can be streamed, and only as watches; server versions are never taken.
        let streams = self.stream.is_empty() || (self.stream == "watch" && encoding != Encoding::Yaml);
        names_it && streams && self.server_version.is_empty()
    }
}

fn subtype(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Json | Encoding::PrettyJson => "json",
        Encoding::Yaml => "yaml",
        Encoding::Protobuf => "vnd.kubernetes.protobuf",
    }
}

/// Whether the router before `/api` lets the request through: it knows whole media types and `*/*` only.
pub(super) fn router_produces(header: &str) -> bool {
    let media_types = header.split(',').map(|clause| clause.split(';').next().unwrap_or_default().trim());
    header.is_empty()
        || media_types.into_iter().any(|media_type| {
            matches!(
                media_type,
                "*/*" | "application/json" | "application/yaml" | "application/vnd.kubernetes.protobuf"
            )
        })
}
