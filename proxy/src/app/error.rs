//! Says why the proxy cannot start.

use std::io;
use std::net::SocketAddr;

use crate::accept::AcceptError;
use crate::identity::names::AssertionError;
use crate::own_client::OwnClientError;
use crate::steering::SteeringError;
use crate::tls::TlsError;

/// Why the proxy cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A configured header name is not one.
    #[error("--requestheader-*: a header name is not valid")]
    HeaderName(#[from] http::header::InvalidHeaderName),
    /// The proxy cannot assert its own name.
    #[error("--requestheader-*: the proxy cannot assert its own identity")]
    OwnIdentity(#[from] AssertionError),
    /// The listener cannot be opened.
    #[error(transparent)]
    Accept(#[from] AcceptError),
    /// The admin listener cannot be opened.
    #[error("--admin-address: cannot listen on {address}; choose another address")]
    Admin {
        /// Address.
        address: SocketAddr,
        /// Cause.
        source: io::Error,
    },
    /// Steering was demanded and cannot be had.
    #[error("--steering={mode}: steering is not possible; mend that, or run with --steering=auto or off")]
    Steering {
        /// Mode.
        mode: &'static str,
        /// Cause.
        source: Box<SteeringError>,
    },
    /// The proxy's own credentials are unusable.
    #[error(transparent)]
    OwnClient(#[from] OwnClientError),
    /// A runtime, thread or signal handler cannot be had.
    #[error("the process cannot start its threads")]
    Process(#[from] io::Error),
}
