//! Says how a row of the table is written: who asks, what it sends, who it must be.

use serde_json::{Value, json};

use super::cards::Card;
use super::support::{BOTH, Http};

/// One kind of request, asked on every path.
pub struct Row {
    pub who: &'static Card,
    pub sends: &'static [Field],
    pub is: Is,
    /// Protocol versions in which it can be sent.
    pub over: &'static [Http],
}

/// A header as it is sent; values are bytes.
pub type Field = (&'static str, &'static [u8]);

/// What an API server makes of a request.
#[derive(Clone, Copy)]
pub enum Is {
    /// This user, asked straight and through the proxy.
    User(User),
    /// A user who may not review itself: it is not in `system:authenticated`.
    Forbidden(&'static str),
    /// A failure of this status.
    Failure(u16),
    /// This user straight; headers cannot say so, and through the proxy it is refused with 401 rather than somebody else.
    Unassertable(User),
    /// This user straight; where kube-apiserver is not told the name of a UID header (kubeadm does not), the proxy
    /// cannot tell it the UID.
    LosesUid(User),
}

/// A user as `SelfSubjectReview` describes one.
#[derive(Clone, Copy)]
pub struct User {
    name: &'static str,
    uid: &'static str,
    groups: &'static [&'static str],
    extra: &'static [(&'static str, &'static [&'static str])],
    is_certified: bool,
}

/// The group of everybody who proved an identity.
pub const AUTH: &str = "system:authenticated";

/// Nobody.
pub const ANONYMOUS: Is = Is::Forbidden("system:anonymous");
/// Somebody whose credentials are not believed.
pub const REFUSED: Is = Is::Failure(401);
/// The holder of the token that stand-ins know.
pub const BOB: Is = Is::User(User { uid: "bob-uid", ..named("bob", &["qa", "ops", AUTH]) });

/// A row over both protocol versions.
pub const fn row(who: &'static Card, sends: &'static [Field], is: Is) -> Row {
    Row { who, sends, is, over: &BOTH }
}

/// A row that HTTP/2 has no words for.
pub const fn http1(who: &'static Card, sends: &'static [Field], is: Is) -> Row {
    Row { who, sends, is, over: &[Http::One] }
}

/// A header with a text.
pub const fn h(name: &'static str, value: &'static str) -> Field {
    (name, value.as_bytes())
}

/// A user with this name and exactly these groups.
pub const fn named(name: &'static str, groups: &'static [&'static str]) -> User {
    User { name, uid: "", groups, extra: &[], is_certified: false }
}

/// A user whose certificate names it.
pub const fn certified(name: &'static str, groups: &'static [&'static str]) -> User {
    User { is_certified: true, ..named(name, groups) }
}

impl User {
    pub const fn uid(self, uid: &'static str) -> Self {
        Self { uid, ..self }
    }

    pub const fn extra(self, extra: &'static [(&'static str, &'static [&'static str])]) -> Self {
        Self { extra, ..self }
    }

    /// As `userInfo`; `credential` is that of the certificate shown.
    pub fn info(&self, credential: &str) -> Value {
        let mut info = json!({"username": self.name, "groups": self.groups});
        if !self.uid.is_empty() {
            info["uid"] = self.uid.into();
        }
        for (key, values) in self.extra {
            info["extra"][key] = json!(values);
        }
        if self.is_certified {
            info["extra"]["authentication.kubernetes.io/credential-id"] = json!([credential]);
        }
        info
    }
}

impl Is {
    /// The user and status straight and through the proxy.
    pub fn outcomes(&self) -> [Outcome<'_>; 2] {
        match self {
            Is::User(user) => [Outcome::User(*user); 2],
            Is::Forbidden(name) => [Outcome::Forbidden(name); 2],
            Is::Failure(status) => [Outcome::Failure(*status); 2],
            Is::Unassertable(user) => [Outcome::User(*user), Outcome::Failure(401)],
            Is::LosesUid(user) => [Outcome::User(*user), Outcome::User(user.uid(""))],
        }
    }

    /// Whether the proxy makes no difference.
    pub fn is_same_everywhere(&self) -> bool {
        !matches!(self, Is::Unassertable(_) | Is::LosesUid(_))
    }
}

/// What one answer must say.
#[derive(Clone, Copy)]
pub enum Outcome<'a> {
    User(User),
    Forbidden(&'a str),
    Failure(u16),
}
