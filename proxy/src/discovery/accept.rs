//! Reads which discovery document a request asks for, and in which form, as kube-apiserver does.

use http::header::{ACCEPT, USER_AGENT};
use http::{HeaderMap, Method};

use self::clause::{Clause, clauses};
use super::Document;
use super::document::{ApiVersion, KIND};
use super::page::{Encoding, Form};
use super::view::Name;
use crate::classify::query;

mod clause;

/// A request for a discovery document of the whole cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked<'a> {
    /// Which.
    pub name: Name<'a>,
    /// How; `None` when the client accepts none of the forms there are.
    pub form: Option<Form>,
    /// Whether the path has a tag, also where the client asks for an unaggregated document.
    pub root: Option<Document>,
}

/// The discovery document that a GET of a decoded path asks for.
///
/// None for what the local server answers by itself: other paths and methods, `profile=nopeer`, `/api` unaggregated
/// (which lists the server's own address and, since there are API servers, `v1`), and a root in a form that does not exist.
pub fn asked<'a>(
    method: &Method,
    path: &'a str,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Option<Asked<'a>> {
    if *method != Method::GET {
        return None;
    }
    let path = Path::parse(path)?;
    // As Go reads it: of several headers the first one.
    let accept = headers.get(ACCEPT).map_or(Some(""), |value| value.to_str().ok())?;
    let clauses = clauses(accept);
    let pretty = || is_pretty(query, headers);
    match path {
        Path::Root(document) => {
            if document == Document::Core && !clause::router_produces(accept) {
                return None;
            }
            if let Some(chosen) = negotiate(&clauses, &aggregated_version) {
                let form = chosen.form(pretty);
                return chosen.if_of_the_cluster(Name::Aggregated(document), Some(form), Some(document));
            }
            let chosen = plain(accept, &clauses).filter(|_| document == Document::Groups)?;
            chosen.if_of_the_cluster(Name::GroupList, Some(chosen.form(pretty)), Some(document))
        }
        Path::GroupList => {
            let chosen = plain(accept, &clauses)?;
            chosen.if_of_the_cluster(Name::GroupList, Some(chosen.form(pretty)), None)
        }
        Path::Below(name) => match plain(accept, &clauses) {
            Some(chosen) => chosen.if_of_the_cluster(name, Some(chosen.form(pretty)), None),
            None => Some(Asked { name, form: None, root: None }),
        },
    }
}

/// What the most wanted clause names of all there is; `offered` is given media type and subtype, `*` for any.
pub(super) fn first_of<T>(accept: &str, offered: impl Fn(&str, &str) -> Option<T>) -> Option<T> {
    clauses(accept).iter().find_map(|clause| offered(clause.media_type.0, clause.media_type.1))
}

enum Path<'a> {
    /// `/api` or `/apis`: aggregated where that is asked for.
    Root(Document),
    /// `/apis/`, which is never aggregated.
    GroupList,
    Below(Name<'a>),
}

impl<'a> Path<'a> {
    fn parse(path: &'a str) -> Option<Self> {
        if let Some(document) = Document::ALL.into_iter().find(|document| document.path() == path) {
            return Some(Path::Root(document));
        }
        if path == "/apis/" {
            return Some(Path::GroupList);
        }
        let mut segments = path.strip_suffix('/').unwrap_or(path).strip_prefix('/')?.split('/');
        let name = match (segments.next()?, segments.next()?, segments.next()) {
            ("api", version, None) => Name::Resources { group: "", version },
            ("apis", group, None) => Name::Group(group),
            ("apis", group, Some(version)) if !group.is_empty() => Name::Resources { group, version },
            _ => return None,
        };
        let is_named = !matches!(name, Name::Group("") | Name::Resources { version: "", .. });
        (is_named && segments.next().is_none()).then_some(Path::Below(name))
    }
}

/// A clause that can be answered.
#[derive(Clone, Copy)]
struct Chosen {
    encoding: Encoding,
    version: ApiVersion,
    is_pretty: bool,
    is_local: bool,
}

impl Chosen {
    fn form(self, pretty: impl FnOnce() -> bool) -> Form {
        let encoding = match self.encoding {
            Encoding::Json if self.is_pretty || pretty() => Encoding::PrettyJson,
            encoding => encoding,
        };
        Form { encoding, version: self.version }
    }

    fn if_of_the_cluster(
        self,
        name: Name<'_>,
        form: Option<Form>,
        root: Option<Document>,
    ) -> Option<Asked<'_>> {
        (!self.is_local).then_some(Asked { name, form, root })
    }
}

/// The first clause that names something there is; `kind` says which conversions there are.
///
/// Source: k8s.io/apiserver `endpoints/handlers/negotiation/negotiate.go`.
fn negotiate(clauses: &[Clause<'_>], kind: &dyn Fn(&Clause<'_>) -> Option<ApiVersion>) -> Option<Chosen> {
    clauses.iter().find_map(|clause| {
        let version = kind(clause)?;
        let encoding = OFFERED.into_iter().find(|offered| clause.admits(*offered))?;
        let is_local = clause.profile == Some("nopeer");
        Some(Chosen { encoding, version, is_pretty: clause.is_pretty, is_local })
    })
}

/// In the order in which a range chooses among them.
const OFFERED: [Encoding; 3] = [Encoding::Json, Encoding::Yaml, Encoding::Protobuf];

/// The unaggregated document; without an Accept header JSON.
fn plain(accept: &str, clauses: &[Clause<'_>]) -> Option<Chosen> {
    if accept.is_empty() {
        let Form { encoding, version } = Form::USUAL;
        return Some(Chosen { encoding, version, is_pretty: false, is_local: false });
    }
    negotiate(clauses, &|clause| (clause.kind == [None; 3]).then_some(ApiVersion::V2))
}

fn aggregated_version(clause: &Clause<'_>) -> Option<ApiVersion> {
    match clause.kind {
        [Some("apidiscovery.k8s.io"), Some("v2"), Some(KIND)] => Some(ApiVersion::V2),
        [Some("apidiscovery.k8s.io"), Some("v2beta1"), Some(KIND)] => Some(ApiVersion::V2beta1),
        _ => None,
    }
}

/// Whether JSON is indented: for people, as far as they can be told from programs.
fn is_pretty(query: Option<&str>, headers: &HeaderMap) -> bool {
    let wanted = query.and_then(|query| query::first(query, "pretty")).filter(|value| !value.is_empty());
    if let Some(wanted) = wanted {
        return ["1", "t", "T", "true", "TRUE", "True"].contains(&&*wanted);
    }
    let agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|program| agent.starts_with(program))
}

#[cfg(test)]
mod tests;
