//! Sets up log lines on stderr, as verbose as klog's `-v` asks for.

use std::env::{self, VarError};
use std::io::{self, IsTerminal};

use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{Config, LogFormat};

/// Why there can be no logging.
#[derive(Debug, Error)]
pub enum LoggingError {
    /// The environment's filter cannot be parsed.
    #[error("RUST_LOG: {value:?} is not a log filter; write it like mvproxy=debug,kube=info")]
    Filter {
        /// What `RUST_LOG` has.
        value: String,
        /// Why not.
        source: ParseError,
    },
    /// The environment's filter is not text.
    #[error("RUST_LOG: not UTF-8; write it like mvproxy=debug,kube=info")]
    NotText,
    /// Something in this process has set up logging before.
    #[error("logging is set up twice")]
    Twice {
        /// What tracing says.
        source: TryInitError,
    },
}

/// Starts logging for the whole process.
///
/// # Errors
/// [`LoggingError`] when `RUST_LOG` is no filter, or on a second call.
pub fn init(config: &Config) -> Result<(), LoggingError> {
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter(config.verbosity)?)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    let set_up = match config.log_format {
        LogFormat::Text => lines.finish().try_init(),
        LogFormat::Json => lines.json().finish().try_init(),
    };
    set_up.map_err(|source| LoggingError::Twice { source })
}

fn filter(verbosity: u8) -> Result<EnvFilter, LoggingError> {
    match env::var(EnvFilter::DEFAULT_ENV) {
        Ok(value) if !value.is_empty() => {
            EnvFilter::builder().parse(&value).map_err(|source| LoggingError::Filter { value, source })
        }
        Ok(_) | Err(VarError::NotPresent) => Ok(EnvFilter::new(directives(verbosity))),
        Err(VarError::NotUnicode(_)) => Err(LoggingError::NotText),
    }
}

/// The filter for a klog verbosity.
///
/// Libraries stay at info however high it is: at trace, HTTP libraries print header values, tokens among them.
fn directives(verbosity: u8) -> &'static str {
    match verbosity {
        0..=1 => "warn,mvproxy=info",
        2..=3 => "info",
        4..=5 => "info,mvproxy=debug",
        _ => "info,mvproxy=trace",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbosity_raises_the_own_level_only() {
        for (verbosity, expected) in [
            (0, "mvproxy=info,warn"),
            (2, "info"),
            (4, "mvproxy=debug,info"),
            (6, "mvproxy=trace,info"),
            (255, "mvproxy=trace,info"),
        ] {
            assert_eq!(EnvFilter::new(directives(verbosity)).to_string(), expected, "-v={verbosity}");
        }
    }
}
