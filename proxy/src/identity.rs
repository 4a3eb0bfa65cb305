//! Decides who a request speaks for, exactly as kube-apiserver's authenticator union would on a direct connection.
//!
//! Order: request-header, client certificate, bearer token, anonymous. An authenticator that fails does not stop the
//! ones behind it, but when none succeeds and one failed the answer is 401 and never anonymous.
//! Source: k8s.io/apiserver `authentication/request/{headerrequest,x509,union}`.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::tls::ClientVerifiers;
use crate::upstream::TrustClass;

pub mod judged;
pub mod names;
mod text;
mod token;
pub mod x509;

pub use judged::Judged;
pub use names::IdentityHeaders;

/// What the client's certificate proves at one moment.
#[derive(Clone, Debug)]
pub enum ClientCertificate {
    /// No certificate that any authenticator has an opinion on.
    Absent,
    /// An ordinary client: its user, as the headers that assert it.
    User(Assertion),
    /// A front proxy that may assert users; `own` is the user the same certificate names as an ordinary client.
    FrontProxy {
        /// Set when the certificate is also valid as an ordinary client certificate.
        own: Option<Assertion>,
    },
    /// A certificate that neither CA vouches for.
    Unverified,
}

/// Headers that assert a user to an API server over the front-proxy certificate.
pub type Assertion = Arc<[(HeaderName, HeaderValue)]>;

/// Who a request speaks for and how the upstream learns it.
#[derive(Clone, Debug)]
pub enum Identity {
    /// A user asserted over the front-proxy certificate.
    Asserted(Assertion),
    /// A token that the upstream itself authenticates.
    Bearer,
    /// Nobody.
    Anonymous,
}

/// Why a request has no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The certificate did not verify and nothing else authenticates the request.
    #[error("the client certificate is not valid for this cluster and no bearer token was sent")]
    UnverifiedCertificate,
    /// A front proxy's certificate came without a user.
    #[error("a front-proxy certificate came without a user header and no bearer token was sent")]
    FrontProxyWithoutUser,
}

impl Identity {
    /// The class of upstream connection this identity may use.
    pub fn trust_class(&self) -> TrustClass {
        match self {
            Identity::Asserted(_) => TrustClass::Asserted,
            Identity::Bearer => TrustClass::Bearer,
            Identity::Anonymous => TrustClass::Anonymous,
        }
    }
}

impl ClientCertificate {
    /// Whether the client may speak for others, and so may be believed about whom it forwards for.
    pub fn is_front_proxy(&self) -> bool {
        matches!(self, ClientCertificate::FrontProxy { .. })
    }
}

/// Establishes what a connection's certificate proves at a moment.
pub fn of_certificate(
    certificates: &[CertificateDer<'_>],
    verifiers: &ClientVerifiers,
    names: &IdentityHeaders,
    now: UnixTime,
) -> ClientCertificate {
    let [leaf, intermediates @ ..] = certificates else { return ClientCertificate::Absent };
    let own = verifiers.is_client(leaf, intermediates, now).then(|| x509::user_of(leaf));
    let may_assert = verifiers.is_front_proxy(leaf, intermediates, now)
        && x509::common_name(leaf).is_ok_and(|name| names.may_assert(&name));

    match (may_assert, own) {
        (true, Some(Ok(Some(user)))) => ClientCertificate::FrontProxy { own: names.assertion_of(&user).ok() },
        (true, _) => ClientCertificate::FrontProxy { own: None },
        (false, Some(Ok(Some(user)))) => {
            names.assertion_of(&user).map_or(ClientCertificate::Unverified, ClientCertificate::User)
        }
        // Without a common name the x509 authenticator has no opinion, but the request-header one has failed.
        (false, Some(_) | None) => ClientCertificate::Unverified,
    }
}

/// Decides who one request speaks for.
///
/// # Errors
/// When kube-apiserver would answer 401 without looking at a token.
pub fn identify(
    certificate: &ClientCertificate,
    headers: &HeaderMap,
    names: &IdentityHeaders,
) -> Result<Identity, IdentityError> {
    let otherwise =
        |error: IdentityError| if token::is_in(headers) { Ok(Identity::Bearer) } else { Err(error) };
    match certificate {
        ClientCertificate::User(user) => Ok(Identity::Asserted(Arc::clone(user))),
        ClientCertificate::FrontProxy { own } => {
            match names.asserted_in(headers).or_else(|| own.as_ref().map(Arc::clone)) {
                Some(assertion) => Ok(Identity::Asserted(assertion)),
                None => otherwise(IdentityError::FrontProxyWithoutUser),
            }
        }
        ClientCertificate::Unverified => otherwise(IdentityError::UnverifiedCertificate),
        ClientCertificate::Absent if token::is_in(headers) => Ok(Identity::Bearer),
        ClientCertificate::Absent => Ok(Identity::Anonymous),
    }
}

#[cfg(test)]
mod tests;
