//! Decides who may do what: everybody with an identity everything, the anonymous user health and version only.

use super::request_info::RequestInfo;
use super::status::{Details, Status};
use super::user::{AUTHENTICATED, MASTERS, User};

/// Refuses what `user` may not do.
pub(super) fn authorize(user: &User, info: &RequestInfo) -> Result<(), Box<Status>> {
    if user.is_in(AUTHENTICATED) || user.is_in(MASTERS) || is_public(info) {
        return Ok(());
    }
    Err(forbidden(user, info))
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
}
