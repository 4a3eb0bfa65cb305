//! Reads from a request line which resource and verb a request is about, with kube-apiserver's rules.

use http::Method;

use super::query::Query;
use super::selector::FieldSelector;

/// What a request line asks for; empty strings where kube-apiserver leaves a field empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// False for discovery, health, version and everything else that is no resource.
    pub is_resource: bool,
    /// The percent-decoded path.
    pub path: String,
    /// get, list, watch, create, …; the lower-cased method for non-resource requests.
    pub verb: String,
    /// API group, empty for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// Resource, plural and lower case.
    pub resource: String,
    /// Subresource.
    pub subresource: String,
    /// Namespace.
    pub namespace: String,
    /// Object name.
    pub name: String,
    /// Resource, name and what follows.
    pub parts: Vec<String>,
}

/// A path that names a legacy verb and nothing to apply it to; kube-apiserver answers it with 500.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unable to determine kind and namespace from url, {url}")]
pub struct UnreadableUrl {
    /// Path and query.
    pub url: String,
}

impl RequestInfo {
    /// Reads `method` and `target` (path and query, as sent).
    ///
    /// # Errors
    /// [`UnreadableUrl`] for `/api/VERSION/watch` and `/api/VERSION/proxy` without more.
    pub fn parse(method: &Method, target: &str) -> Result<Self, UnreadableUrl> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned();
        let mut info = Self { verb: method.as_str().to_ascii_lowercase(), path, ..Self::default() };
        let segments: Vec<String> = info.path.trim_matches('/').split('/').map(str::to_owned).collect();
        let Some(rest) = info.read_group_version(&segments) else {
            return Ok(info);
        };
        let rest = info.read_verb(method, rest).ok_or_else(|| UnreadableUrl { url: target.to_owned() })?;
        info.read_object(rest);
        info.refine_verb(&Query::parse(query));
        Ok(info)
    }

    /// Whether the request outlives ordinary time limits: watches and streaming subresources.
    pub fn is_long_running(&self) -> bool {
        matches!(self.verb.as_str(), "watch" | "proxy")
            || matches!(self.subresource.as_str(), "attach" | "exec" | "proxy" | "log" | "portforward")
    }

    /// Takes group and version off the front; `None` when this is no resource request.
    fn read_group_version<'a>(&mut self, segments: &'a [String]) -> Option<&'a [String]> {
        let rest = match segments {
            [prefix, rest @ ..] if prefix == "api" && rest.len() >= 2 => rest,
            [prefix, group, rest @ ..] if prefix == "apis" && rest.len() >= 2 => {
                self.group.clone_from(group);
                rest
            }
            _ => return None,
        };
        self.is_resource = true;
        self.version.clone_from(&rest[0]);
        Some(&rest[1..])
    }

    /// Sets the verb from the path's legacy verb or from the method; `None` when nothing follows a legacy verb.
    fn read_verb<'a>(&mut self, method: &Method, rest: &'a [String]) -> Option<&'a [String]> {
        if matches!(rest[0].as_str(), "watch" | "proxy") {
            self.verb.clone_from(&rest[0]);
            return (rest.len() >= 2).then(|| &rest[1..]);
        }
        match method.as_str() {
            "POST" => "create",
            "GET" | "HEAD" => "get",
            "PUT" => "update",
            "PATCH" => "patch",
            "DELETE" => "delete",
            _ => "",
        }
        .clone_into(&mut self.verb);
        Some(rest)
    }

    fn read_object(&mut self, mut rest: &[String]) {
        if rest[0] == "namespaces" && rest.len() > 1 {
            self.namespace.clone_from(&rest[1]);
            if rest.len() > 2 && !matches!(rest[2].as_str(), "status" | "finalize") {
                rest = &rest[2..];
            }
        }
        self.parts = rest.to_vec();
        self.resource.clone_from(&rest[0]);
        if let Some(name) = rest.get(1) {
            self.name.clone_from(name);
        }
        if let Some(subresource) = rest.get(2).filter(|_| self.verb != "proxy") {
            self.subresource.clone_from(subresource);
        }
    }

    /// Tells get from list and watch, and delete from deletecollection.
    fn refine_verb(&mut self, query: &Query) {
        if !self.name.is_empty() {
            return;
        }
        match self.verb.as_str() {
            "get" => {
                let verb = if query.is_set("watch") { "watch" } else { "list" };
                verb.clone_into(&mut self.verb);
                if list_options_are_valid(query) {
                    self.name = required_name(query).unwrap_or_default();
                }
            }
            "delete" => "deletecollection".clone_into(&mut self.verb),
            _ => {}
        }
    }
}

fn list_options_are_valid(query: &Query) -> bool {
    ["limit", "timeoutSeconds"]
        .iter()
        .all(|key| query.get(key).is_none_or(|value| value.parse::<i64>().is_ok()))
}

fn required_name(query: &Query) -> Option<String> {
    let selector = FieldSelector::parse(query.get("fieldSelector")?).ok()?;
    let name = selector.required("metadata.name")?;
    (name != "." && name != ".." && !name.contains(['/', '%'])).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_recorded_vectors_as_the_real_parser_did() {
        let vectors = include_str!("../../fixtures/requestinfo-vectors.tsv");
        let mut seen = 0;
        for line in vectors.lines() {
            let columns: Vec<&str> = line.split('\t').collect();
            let [
                method,
                target,
                is_resource,
                verb,
                group,
                version,
                resource,
                subresource,
                namespace,
                name,
                parts,
                rest,
            ] = columns[..]
            else {
                panic!("not twelve columns: {line}");
            };
            let found = RequestInfo::parse(&Method::from_bytes(method.as_bytes()).unwrap(), target);
            seen += 1;
            if rest.contains("ERR") {
                assert!(found.is_err(), "{line}");
                continue;
            }
            let found = found.unwrap();
            let got = [
                found.is_resource.to_string(),
                found.verb,
                found.group,
                found.version,
                found.resource,
                found.subresource,
                found.namespace,
                found.name,
                format!("[{}]", found.parts.join(" ")),
            ];
            assert_eq!(
                got,
                [is_resource, verb, group, version, resource, subresource, namespace, name, parts],
                "{line}"
            );
        }
        assert_eq!(seen, 122);
    }
}
