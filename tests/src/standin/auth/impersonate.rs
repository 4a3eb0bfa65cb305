//! Lets members of system:masters act as somebody else.

use std::collections::BTreeMap;

use http::HeaderMap;

use crate::standin::status::{Details, Status};
use crate::standin::user::{ANONYMOUS, AUTHENTICATED, MASTERS, UNAUTHENTICATED, User};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

/// The effective user of a request by `user`.
pub(in crate::standin) fn effective(user: User, headers: &HeaderMap) -> Result<User, Box<Status>> {
    if !headers.keys().any(|name| is_impersonation(name.as_str())) {
        return Ok(user);
    }
    let Some(name) = text(headers, USER).next().filter(|name| !name.is_empty()) else {
        return Err(Status::internal("requested impersonation of attributes without impersonating a user"));
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

fn is_impersonation(name: &str) -> bool {
    matches!(name, USER | GROUP | UID) || name.starts_with(EXTRA)
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
        let decoded = percent_encoding::percent_decode_str(key).decode_utf8_lossy().into_owned();
        extra.insert(decoded, text(headers, &format!("{EXTRA}{key}")).collect());
    }
    User { name, uid: text(headers, UID).next().unwrap_or_default(), groups, extra }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = String> + 'a {
    headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}
