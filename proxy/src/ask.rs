//! `mvproxy skew` and `mvproxy route`: asks a running proxy what it knows, and prints the answer.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::{Ask, Output, Question};
use crate::explain::{RouteReport, SkewReport};

mod table;

/// Time a proxy on the same machine has to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// A report of a few thousand differences is under a megabyte.
const REPORT_LIMIT: usize = 64 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens there.
    #[error("no proxy answers at {address}; is it running, and is that its --admin-address?")]
    Unreachable {
        /// Admin address.
        address: SocketAddr,
        /// Cause.
        source: io::Error,
    },
    /// Whoever listens there is too slow.
    #[error("{address} did not answer within {} s", PATIENCE.as_secs())]
    TimedOut {
        /// Admin address.
        address: SocketAddr,
    },
    /// The exchange broke.
    #[error("{address} broke off")]
    Http {
        /// Admin address.
        address: SocketAddr,
        /// Cause.
        source: hyper::Error,
    },
    /// The answer is no report.
    #[error("{address} answered {status}: {text}")]
    Refused {
        /// Admin address.
        address: SocketAddr,
        /// Status.
        status: StatusCode,
        /// Beginning of the answer.
        text: String,
    },
    /// The answer cannot be read, most likely because it comes from another program or release.
    #[error("the answer of {address} cannot be read; is it an mvproxy of this release?")]
    Unreadable {
        /// Admin address.
        address: SocketAddr,
        /// Cause.
        source: serde_json::Error,
    },
    /// The report cannot be written as YAML.
    #[error("the report cannot be written as YAML")]
    Yaml(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No runtime can be had.
    #[error("the process cannot start")]
    Process(#[from] io::Error),
}

/// Asks and returns what is to be printed.
///
/// # Errors
/// See [`AskError`]; each names the address.
pub fn ask(ask: &Ask) -> Result<String, AskError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match &ask.question {
        Question::Skew => {
            let report: SkewReport = runtime.block_on(get(ask.admin_address, "/skew"))?;
            print(&report, ask.output, table::skew)
        }
        Question::Route { method, path } => {
            let path = utf8_percent_encode(path, NON_ALPHANUMERIC);
            let target = format!("/route?method={method}&path={path}");
            let report: RouteReport = runtime.block_on(get(ask.admin_address, &target))?;
            print(&report, ask.output, table::route)
        }
    }
}

fn print<T: Serialize, D: Display>(
    report: &T,
    output: Output,
    table: impl Fn(&T) -> D,
) -> Result<String, AskError> {
    match output {
        Output::Table => Ok(table(report).to_string()),
        // Reports have text keys only.
        Output::Json => Ok(serde_json::to_string_pretty(report).unwrap_or_default() + "\n"),
        Output::Yaml => serde_saphyr::to_string(report).map_err(|error| AskError::Yaml(Box::new(error))),
    }
}

async fn get<T: DeserializeOwned>(address: SocketAddr, target: &str) -> Result<T, AskError> {
    let (status, body) =
        timeout(PATIENCE, exchange(address, target)).await.map_err(|_| AskError::TimedOut { address })??;
    if status != StatusCode::OK {
        let text = String::from_utf8_lossy(&body).trim().chars().take(200).collect();
        return Err(AskError::Refused { address, status, text });
    }
    serde_json::from_slice(&body).map_err(|source| AskError::Unreadable { address, source })
}

async fn exchange(address: SocketAddr, target: &str) -> Result<(StatusCode, Bytes), AskError> {
    let broken = |source| AskError::Http { address, source };
    let io = TcpStream::connect(address).await.map_err(|source| AskError::Unreachable { address, source })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(broken)?;
    tokio::spawn(connection);
    let request = Request::get(target).header("host", address.to_string()).body(Empty::<Bytes>::new());
    let request = request.expect("an escaped query and an address are valid");
    let response = sender.send_request(request).await.map_err(broken)?;
    let status = response.status();
    match Limited::new(response.into_body(), REPORT_LIMIT).collect().await {
        Ok(body) => Ok((status, body.to_bytes())),
        Err(error) => match error.downcast::<hyper::Error>() {
            Ok(error) => Err(broken(*error)),
            Err(_) => Err(AskError::Refused { address, status, text: "a report without end".to_owned() }),
        },
    }
}
