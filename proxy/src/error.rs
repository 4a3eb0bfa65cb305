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
    /// The request target has no path, as in CONNECT.
    #[error("the request target has no path")]
    NoPath,
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
        match self {
            RequestError::Identity(
                IdentityError::UnverifiedCertificate | IdentityError::FrontProxyWithoutUser,
            ) => Failure {
                code: StatusCode::UNAUTHORIZED,
                reason: "Unauthorized",
                message: "Unauthorized",
                retry_after: None,
            },
            RequestError::Forward(ForwardError::NotReached { .. }) => Failure {
                code: StatusCode::SERVICE_UNAVAILABLE,
                reason: "ServiceUnavailable",
                message: "no API server that serves the resource could be reached",
                retry_after: Some(1),
            },
            RequestError::Forward(ForwardError::Late { .. }) => Failure {
                code: StatusCode::GATEWAY_TIMEOUT,
                reason: "Timeout",
                message: "the API server did not answer in time",
                retry_after: None,
            },
            RequestError::Forward(ForwardError::NoPeer) => Failure {
                code: StatusCode::SERVICE_UNAVAILABLE,
                reason: "ServiceUnavailable",
                message: "the API server that serves the resource is not known any more",
                retry_after: Some(1),
            },
            RequestError::Unaccounted => Failure {
                code: StatusCode::SERVICE_UNAVAILABLE,
                reason: "ServiceUnavailable",
                message: "it is not known yet which API server serves the resource",
                retry_after: Some(1),
            },
            RequestError::Forward(ForwardError::Broken { .. }) => Failure {
                code: StatusCode::BAD_GATEWAY,
                reason: "InternalError",
                message: "the API server broke off before it answered; the request may have had an effect",
                retry_after: None,
            },
            RequestError::Forward(ForwardError::ResponseTooLarge { .. }) => Failure {
                code: StatusCode::BAD_GATEWAY,
                reason: "InternalError",
                message: "the answer has too many headers; the request may have had an effect",
                retry_after: None,
            },
            RequestError::Forward(ForwardError::Target { .. }) | RequestError::NoPath => Failure {
                code: StatusCode::BAD_REQUEST,
                reason: "BadRequest",
                message: "the request target is not valid",
                retry_after: None,
            },
            RequestError::Forward(ForwardError::TooManyHeaders { .. }) => Failure {
                code: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                reason: "BadRequest",
                message: "the request has too many headers",
                retry_after: None,
            },
        }
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
            RequestError::Forward(ForwardError::Target { .. }) | RequestError::NoPath => "bad_target",
            RequestError::Forward(ForwardError::TooManyHeaders { .. }) => "too_many_headers",
            RequestError::Forward(ForwardError::ResponseTooLarge { .. }) => "upstream_too_many_headers",
        }
    }

    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            RequestError::Identity(_)
            | RequestError::NoPath
            | RequestError::Forward(ForwardError::Target { .. } | ForwardError::TooManyHeaders { .. }) => {
                Fault::Client
            }
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
