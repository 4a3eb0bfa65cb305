//! Authenticates requests in kube-apiserver's order: request headers, client certificate, bearer token, anonymous.

use http::HeaderMap;
use rustls_pki_types::CertificateDer;

use self::certificate::{CertificateError, ClientCertificates};
use self::request_header::FrontProxies;
use self::token::{TokenError, Tokens};
use super::user::User;

mod certificate;
mod chain;
pub(super) mod impersonate;
mod request_header;
mod text;
mod token;

pub use request_header::RequestHeader;
pub use token::{BadTokenFile, StaticToken, parse_token_file};

/// Who may be believed, and by what.
pub(super) struct Authenticator {
    front_proxies: Option<FrontProxies>,
    clients: Option<ClientCertificates>,
    tokens: Tokens,
}

/// The certificate of a connection's client, checked once.
pub(super) struct Presented {
    front_proxy: Option<Result<(), CertificateError>>,
    client: Option<Result<Option<User>, CertificateError>>,
}

/// Why a request is answered 401.
#[derive(Debug, thiserror::Error)]
pub(super) enum AuthError {
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl Authenticator {
    /// Reads the CA bundles.
    pub(super) fn new(
        client_ca: Option<&str>,
        request_header: Option<RequestHeader>,
        tokens: Vec<StaticToken>,
        loopback_token: String,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            front_proxies: request_header.map(FrontProxies::new).transpose()?,
            clients: client_ca.map(ClientCertificates::new).transpose()?,
            tokens: Tokens::new(tokens, loopback_token),
        })
    }

    /// The subjects of both CA bundles, which the TLS handshake offers to clients.
    pub(super) fn ca_subjects(&self) -> Vec<rustls::DistinguishedName> {
        let front = self.front_proxies.iter().flat_map(FrontProxies::ca_subjects);
        self.clients.iter().flat_map(ClientCertificates::ca_subjects).chain(front).collect()
    }

    /// Checks a client's chain against both CA bundles; the results count per request.
    pub(super) fn examine(&self, chain: &[CertificateDer<'_>]) -> Option<Presented> {
        let (leaf, intermediates) = chain.split_first()?;
        Some(Presented {
            front_proxy: self.front_proxies.as_ref().map(|one| one.verify(leaf, intermediates)),
            client: self.clients.as_ref().map(|one| one.user(leaf, intermediates)),
        })
    }

    /// Who makes the request; anonymous only when nothing was presented that could be wrong.
    ///
    /// An error of one method does not stop the next, but when none succeeds the first error decides
    /// (`authentication/request/union` in kube-apiserver).
    pub(super) fn authenticate(
        &self,
        presented: Option<&Presented>,
        headers: &HeaderMap,
    ) -> Result<User, AuthError> {
        let methods: [&dyn Fn() -> Result<Option<User>, AuthError>; 4] = [
            &|| self.by_request_header(presented, headers),
            &|| Self::by_certificate(presented),
            &|| Ok(self.tokens.by_bearer(headers)?),
            &|| Ok(self.tokens.by_websocket(headers)?),
        ];
        let mut first_error = None;
        for method in methods {
            match method() {
                Ok(Some(user)) => return Ok(user.authenticated()),
                Ok(None) => {}
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        first_error.map_or_else(|| Ok(User::anonymous()), Err)
    }

    fn by_request_header(
        &self,
        presented: Option<&Presented>,
        headers: &HeaderMap,
    ) -> Result<Option<User>, AuthError> {
        let (Some(front_proxies), Some(Some(verdict))) =
            (&self.front_proxies, presented.map(|presented| &presented.front_proxy))
        else {
            return Ok(None);
        };
        verdict.clone()?;
        Ok(front_proxies.asserted(headers))
    }

    fn by_certificate(presented: Option<&Presented>) -> Result<Option<User>, AuthError> {
        match presented.and_then(|presented| presented.client.clone()) {
            Some(verdict) => Ok(verdict?),
            None => Ok(None),
        }
    }
}
