//! Decides who may do what: everybody with an identity everything, the anonymous user health and version only.
//!
//! Two groups have less than other identities, as in a cluster whose administrator narrowed the default bindings.

use super::request_info::RequestInfo;
use super::status::{Details, Status};
use super::user::{AUTHENTICATED, MASTERS, User};

/// Its members are not bound to `system:discovery`; resources they may use.
const NO_DISCOVERY: &str = "no-discovery";
/// Its members may read `/api` and `/apis`, and nothing below them that lists resources.
const ONLY_ROOTS: &str = "only-discovery-roots";

/// Refuses what `user` may not do.
pub(super) fn authorize(user: &User, info: &RequestInfo) -> Result<(), Box<Status>> {
    let is_narrowed = |group| user.is_in(group) && is_discovery(info);
    let is_allowed = user.is_in(MASTERS)
        || is_public(info)
        || is_narrowed(ONLY_ROOTS) && matches!(info.path.as_str(), "/api" | "/apis")
        || user.is_in(AUTHENTICATED) && !is_narrowed(NO_DISCOVERY) && !is_narrowed(ONLY_ROOTS);
    if is_allowed { Ok(()) } else { Err(forbidden(user, info)) }
}

/// What kube-apiserver's `system:discovery` role grants beyond health and version.
fn is_discovery(info: &RequestInfo) -> bool {
    let root = info.path.split('/').nth(1).unwrap_or_default();
    !info.is_resource && info.verb == "get" && ["api", "apis", "openapi"].contains(&root)
}

/// What kube-apiserver's `system:public-info-viewer` role grants.
fn is_public(info: &RequestInfo) -> bool {
    !info.is_resource
        && info.verb == "get"
        && matches!(info.path.as_str(), "/livez" | "/readyz" | "/healthz" | "/version" | "/version/")
}

fn forbidden(user: &User, info: &RequestInfo) -> Box<Status> {
    if !info.is_resource {
        let why = format!("User {:?} cannot {} path {:?}", user.name, info.verb, info.path);
        return Status::forbidden(Details::default(), &why);
    }
    let mut resource = info.resource.clone();
    if !info.subresource.is_empty() {
        resource = format!("{resource}/{}", info.subresource);
    }
    let scope = match info.namespace.as_str() {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    let why = format!(
        "User {:?} cannot {} resource {resource:?} in API group {:?} {scope}",
        user.name, info.verb, info.group
    );
    Status::forbidden(Details::of(&info.group, &info.resource, &info.name), &why)
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::standin::respond::Style;

    #[test]
    fn refuses_anonymous_in_the_recorded_words() {
        let recorded = include_str!("../../fixtures/kube-apiserver/v1.36-all/anonymous-403.json");
        let info = RequestInfo::parse(&Method::GET, "/api/v1/secrets").unwrap();
        let status = authorize(&User::anonymous(), &info).unwrap_err();
        assert_eq!(Style::Pretty.render(&*status), recorded.as_bytes());
        for path in ["/livez", "/readyz?verbose", "/healthz", "/version"] {
            let info = RequestInfo::parse(&Method::GET, path).unwrap();
            assert!(authorize(&User::anonymous(), &info).is_ok(), "{path}");
        }
        for path in ["/readyz/ping", "/apis", "/metrics"] {
            let info = RequestInfo::parse(&Method::GET, path).unwrap();
            assert!(authorize(&User::anonymous(), &info).is_err(), "{path}");
        }
    }
    #[test]
    fn narrowed_groups_read_less_and_use_the_same() {
        let member = |group: &str| User {
            name: "carol".to_owned(),
            groups: vec![group.to_owned(), AUTHENTICATED.to_owned()],
            ..User::default()
        };
        for (path, roots, none) in [
            ("/apis", true, false),
            ("/api", true, false),
            ("/api/v1", false, false),
            ("/apis/apps/v1", false, false),
            ("/openapi/v3", false, false),
            ("/version", true, true),
            ("/apis/apps/v1/deployments", true, true),
        ] {
            let info = RequestInfo::parse(&Method::GET, path).unwrap();
            assert_eq!(authorize(&member(ONLY_ROOTS), &info).is_ok(), roots, "{path}");
            assert_eq!(authorize(&member(NO_DISCOVERY), &info).is_ok(), none, "{path}");
            let master =
                User { groups: vec![MASTERS.to_owned(), NO_DISCOVERY.to_owned()], ..User::default() };
            assert!(authorize(&master, &info).is_ok(), "{path}");
        }
    }
}
