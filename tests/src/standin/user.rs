//! Describes who makes a request.

use std::collections::BTreeMap;

use serde::Serialize;

/// The group of everybody who proved an identity.
pub(super) const AUTHENTICATED: &str = "system:authenticated";
/// The group of everybody who did not.
pub(super) const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The group that may do everything, impersonation included.
pub(super) const MASTERS: &str = "system:masters";
/// The user without an identity.
pub(super) const ANONYMOUS: &str = "system:anonymous";

/// An identity in the shape of `authentication.k8s.io/v1` `UserInfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct User {
    /// User name.
    #[serde(rename = "username", skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// User id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Groups, in the order they were asserted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Extra attributes, keys in lower case.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    pub(super) fn anonymous() -> Self {
        Self { name: ANONYMOUS.to_owned(), groups: vec![UNAUTHENTICATED.to_owned()], ..Self::default() }
    }

    /// Whether kube-apiserver treats the user as anonymous, also when a front proxy asserted it.
    pub fn is_anonymous(&self) -> bool {
        self.name == ANONYMOUS || self.is_in(UNAUTHENTICATED)
    }

    pub(super) fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|one| one == group)
    }

    /// Adds `system:authenticated` unless the user is anonymous or in it already.
    pub(super) fn authenticated(mut self) -> Self {
        if !self.is_anonymous() && !self.is_in(AUTHENTICATED) {
            self.groups.push(AUTHENTICATED.to_owned());
        }
        self
    }
}
