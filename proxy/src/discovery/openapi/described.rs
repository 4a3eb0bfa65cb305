//! Tells which API a path of an `OpenAPI` document is about.

use crate::discovery::Snapshot;
use crate::discovery::view::Name;

/// What a path is about: a resource, or with empty names a whole group version or group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Api {
    group: Box<str>,
    version: Box<str>,
    resource: Box<str>,
}

impl Api {
    /// `None` for what is of no group, such as `/version/`.
    pub(super) fn of_path(path: &str) -> Option<Self> {
        let (group, rest) = match (path.strip_prefix("/apis/"), path.strip_prefix("/api/")) {
            (Some(rest), _) => rest.split_once('/').unwrap_or((rest, "")),
            (None, Some(rest)) => ("", rest),
            (None, None) => return None,
        };
        let mut segments = rest.split('/').filter(|segment| !segment.is_empty());
        let version = segments.next().unwrap_or_default();
        let mut rest = segments.skip_while(|segment| *segment == "watch");
        let resource = match (rest.next(), rest.next(), rest.next()) {
            // `{name}` is that of a namespace itself.
            (Some("namespaces"), Some("{namespace}"), Some(resource)) => resource,
            (first, ..) => first.unwrap_or_default(),
        };
        let is_of_none = group.is_empty() && version.is_empty();
        let api = || Self { group: group.into(), version: version.into(), resource: resource.into() };
        (!is_of_none).then(api)
    }

    /// Whether some server is known to serve it.
    pub(super) fn is_served(&self, snapshot: &Snapshot) -> bool {
        let Self { group, version, resource } = self;
        match (version.is_empty(), resource.is_empty()) {
            (true, _) => snapshot.view().is_listed(Name::Group(group)),
            (false, true) => !snapshot.view().servers_of(group, version).is_empty(),
            (false, false) => snapshot.has(group, version, resource),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_what_it_is_about() {
        for (path, expected) in [
            ("/apis/batch/v1/namespaces/{namespace}/jobs/{name}/status", Some(["batch", "v1", "jobs"])),
            ("/apis/batch/v1/watch/namespaces/{namespace}/jobs/{name}", Some(["batch", "v1", "jobs"])),
            ("/apis/batch/v1/jobs", Some(["batch", "v1", "jobs"])),
            ("/apis/batch/v1/", Some(["batch", "v1", ""])),
            ("/apis/batch/", Some(["batch", "", ""])),
            ("/api/v1/namespaces/{namespace}/pods/{name}/log", Some(["", "v1", "pods"])),
            ("/api/v1/namespaces/{name}/finalize", Some(["", "v1", "namespaces"])),
            ("/api/v1/namespaces", Some(["", "v1", "namespaces"])),
            ("/api/v1/watch/nodes/{name}", Some(["", "v1", "nodes"])),
            ("/api/v1/", Some(["", "v1", ""])),
            ("/api/", None),
            ("/apis/", None),
            ("/version/", None),
            ("/.well-known/openid-configuration/", None),
            ("", None),
        ] {
            let expected = expected
                .map(|[group, version, resource]| [group, version, resource].map(Box::<str>::from))
                .map(|[group, version, resource]| Api { group, version, resource });
            assert_eq!(Api::of_path(path), expected, "{path}");
        }
    }
}
