//! Lists what the API servers of a snapshot serve differently.

use serde::{Deserialize, Serialize};

use super::{ServerSet, Snapshot};

/// A resource or subresource that not every server serves in the same way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// API group, empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Resource.
    pub resource: String,
    /// Subresource, empty for the resource itself.
    pub subresource: String,
    /// Servers that have it.
    pub served_by: Vec<String>,
    /// Servers that do not. One that never said what it serves is in neither list.
    pub missing_on: Vec<String>,
    /// Verbs that only some of those that have it serve, with the servers that do not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_verbs: Vec<MissingVerb>,
}

/// A verb that some servers of a resource lack.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MissingVerb {
    /// Verb.
    pub verb: String,
    /// Servers without it.
    pub missing_on: Vec<String>,
}

impl Snapshot {
    /// What is not the same on all servers that are known, sorted by group, version, resource and subresource.
    pub fn differences(&self) -> Vec<Difference> {
        let known: ServerSet =
            (0..self.upstreams.len()).filter(|index| !self.unknown.contains(*index)).collect();
        let names = |set: ServerSet| {
            let members = set.iter_from(0).filter_map(|index| self.upstream(index));
            members.map(|upstream| upstream.address.to_string()).collect::<Vec<_>>()
        };
        let mut differences: Vec<Difference> = self
            .index
            .entries()
            .filter_map(|entry| {
                let lacking = |verb: &(&str, ServerSet)| !verb.1.is_empty() && verb.1 != entry.any;
                let missing_verbs: Vec<MissingVerb> = entry
                    .by_verb()
                    .filter(lacking)
                    .map(|(verb, having)| MissingVerb {
                        verb: verb.to_owned(),
                        missing_on: names(entry.any.without(having)),
                    })
                    .collect();
                let missing = known.without(entry.any);
                (!missing.is_empty() || !missing_verbs.is_empty()).then(|| Difference {
                    group: entry.key.group.to_string(),
                    version: entry.key.version.to_string(),
                    resource: entry.key.resource.to_string(),
                    subresource: entry.key.subresource.to_string(),
                    served_by: names(entry.any),
                    missing_on: names(missing),
                    missing_verbs,
                })
            })
            .collect();
        differences.sort();
        differences
    }
}
