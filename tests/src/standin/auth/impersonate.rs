//! Lets members of system:masters act as somebody else.

use std::collections::BTreeMap;

use http::HeaderMap;

use super::request_header::unescaped;
use crate::standin::status::{Details, Status};
use crate::standin::user::{ANONYMOUS, AUTHENTICATED, MASTERS, UNAUTHENTICATED, User};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

/// The effective user of a request by `user`.
pub(in crate::standin) fn effective(user: User, headers: &HeaderMap) -> Result<User, Box<Status>> {
    let Some(name) = text(headers, USER).next().filter(|name| !name.is_empty()) else {
        if has_attributes(headers) {
            let why = "requested impersonation of attributes without impersonating a user";
            return Err(Status::internal(why));
        }
        return Ok(user);
    };
    if !user.is_in(MASTERS) {
        let why = format!(
            "User {:?} cannot impersonate resource \"users\" in API group \"\" at the cluster scope",
            user.name
        );
        return Err(Status::forbidden(Details::of("", "users", &name), &why));
    }
    Ok(impersonated(name, headers))
}

/// Groups, extra keys or a UID; an empty UID is none.
fn has_attributes(headers: &HeaderMap) -> bool {
    headers.contains_key(GROUP)
        || headers.keys().any(|name| name.as_str().starts_with(EXTRA))
        || text(headers, UID).next().is_some_and(|uid| !uid.is_empty())
}

fn impersonated(name: String, headers: &HeaderMap) -> User {
    let mut groups: Vec<String> = text(headers, GROUP).collect();
    if let (true, Some(account)) = (groups.is_empty(), name.strip_prefix("system:serviceaccount:")) {
        let namespace = account.split(':').next().unwrap_or_default();
        groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
    }
    let standing = if name == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
    if !groups.iter().any(|group| group == AUTHENTICATED || group == UNAUTHENTICATED) {
        groups.push(standing.to_owned());
    }
    let mut extra = BTreeMap::new();
    for key in headers.keys().filter_map(|name| name.as_str().strip_prefix(EXTRA)) {
        extra.insert(unescaped(key), text(headers, &format!("{EXTRA}{key}")).collect());
    }
    User { name, uid: text(headers, UID).next().unwrap_or_default(), groups, extra }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = String> + 'a {
    headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}
