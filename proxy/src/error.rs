//! Maps every error a request can meet to what the client gets, how it is counted, and whose fault it is.

use http::StatusCode;

use crate::forward::ForwardError;
use crate::identity::IdentityError;
use crate::status::Failure;

/// Any error of one request.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The request has no identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// No upstream answered.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// Nobody is known to serve the resource, but not every server has said what it serves.
    #[error("not every API server has said what it serves")]
    Unaccounted,
    /// The request target has no path.
    #[error("the request target has no path")]
    NoPath,
    /// The request asks for a tunnel, which no API server gives, and for which HTTP/2 has no path.
    #[error("CONNECT is not a method of the API")]
    Connect,
}

/// Who caused an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The client.
    Client,
    /// The local API server or a peer.
    Upstream,
}

impl RequestError {
    /// What the client gets.
    pub fn failure(&self) -> Failure {
        let (code, reason, message) = match self {
            RequestError::Identity(
                IdentityError::UnverifiedCertificate | IdentityError::FrontProxyWithoutUser,
            ) => (StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized"),
            RequestError::Unaccounted => {
                unavailable("it is not known yet which API server serves the resource")
            }
            RequestError::NoPath => bad_request("the request target is not valid"),
            RequestError::Connect => (
                StatusCode::METHOD_NOT_ALLOWED,
                "MethodNotAllowed",
                "the server does not allow this method on the requested resource",
            ),
            RequestError::Forward(error) => of_forwarding(error),
        };
        let retry_after = (code == StatusCode::SERVICE_UNAVAILABLE).then_some(1);
        Failure { code, reason, message, retry_after }
    }

    /// The label it counts under.
    pub fn label(&self) -> &'static str {
        match self {
            RequestError::Identity(IdentityError::UnverifiedCertificate) => "unverified_certificate",
            RequestError::Identity(IdentityError::FrontProxyWithoutUser) => "front_proxy_without_user",
            RequestError::Forward(ForwardError::NotReached { .. }) => "proxy_transport",
            RequestError::Forward(ForwardError::Broken { .. }) => "upstream_broke_off",
            RequestError::Forward(ForwardError::Late { .. }) => "timeout",
            RequestError::Forward(ForwardError::NoPeer) => "endpoint_resolution",
            RequestError::Unaccounted => "unaccounted_server",
            RequestError::Forward(ForwardError::Target { .. } | ForwardError::Host { .. })
            | RequestError::NoPath => "bad_target",
            RequestError::Connect => "method_not_allowed",
            RequestError::Forward(ForwardError::TransferCoding) => "transfer_coding",
            RequestError::Forward(ForwardError::TooManyHeaders { .. }) => "too_many_headers",
            RequestError::Forward(ForwardError::ResponseTooLarge { .. }) => "upstream_too_many_headers",
        }
    }

    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            RequestError::Identity(_)
            | RequestError::NoPath
            | RequestError::Connect
            | RequestError::Forward(
                ForwardError::Target { .. }
                | ForwardError::Host { .. }
                | ForwardError::TransferCoding
                | ForwardError::TooManyHeaders { .. },
            ) => Fault::Client,
            RequestError::Unaccounted
            | RequestError::Forward(
                ForwardError::NotReached { .. }
                | ForwardError::Broken { .. }
                | ForwardError::Late { .. }
                | ForwardError::NoPeer
                | ForwardError::ResponseTooLarge { .. },
            ) => Fault::Upstream,
        }
    }
}

/// Status, reason, and text for people.
type Answer = (StatusCode, &'static str, &'static str);

fn of_forwarding(error: &ForwardError) -> Answer {
    match error {
        ForwardError::NotReached { .. } => {
            unavailable("no API server that serves the resource could be reached")
        }
        ForwardError::NoPeer => unavailable("the API server that serves the resource is not known any more"),
        ForwardError::Late { .. } => {
            (StatusCode::GATEWAY_TIMEOUT, "Timeout", "the API server did not answer in time")
        }
        ForwardError::Broken { .. } => {
            bad_gateway("the API server broke off before it answered; the request may have had an effect")
        }
        ForwardError::ResponseTooLarge { .. } => {
            bad_gateway("the answer has too many headers; the request may have had an effect")
        }
        ForwardError::Target { .. } => bad_request("the request target is not valid"),
        ForwardError::Host { .. } => bad_request("the request needs exactly one Host header"),
        ForwardError::TransferCoding => {
            (StatusCode::NOT_IMPLEMENTED, "BadRequest", "the transfer coding of the request is not supported")
        }
        ForwardError::TooManyHeaders { .. } => {
            (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "BadRequest", "the request has too many headers")
        }
    }
}

fn unavailable(message: &'static str) -> Answer {
    (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
}

fn bad_gateway(message: &'static str) -> Answer {
    (StatusCode::BAD_GATEWAY, "InternalError", message)
}

fn bad_request(message: &'static str) -> Answer {
    (StatusCode::BAD_REQUEST, "BadRequest", message)
}
