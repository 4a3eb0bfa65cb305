//! Turns flags, a `--config` file and a kube-apiserver manifest into one checked [`Config`].
//!
//! A value is taken from the first place that has it: command line, `--config` file, `--apiserver-manifest`,
//! default. Mistakes of all places are collected and reported together.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use rustls::CipherSuite;

use crate::limits::TimeLimits;
use crate::steering::{Canary, LanePorts, XdpOptions};

pub use self::ask::{Ask, Output, Question};
pub use self::error::ConfigError;
pub use self::origin::{Flag, Origin, Origins};
pub use self::own::own_credentials;

mod ask;
mod build;
mod checks;
mod command_line;
mod error;
mod file;
mod flags;
mod manifest;
mod nearest;
mod origin;
mod own;
mod sources;
mod tls_values;
mod values;

/// Everything `mvproxy run` needs to know, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Port that kube-apiserver listens on and that is steered (`--secure-port`).
    pub secure_port: u16,
    /// Where the local API server answers (`--local-apiserver`).
    pub local_apiserver: SocketAddr,
    /// Source address that the kernel program never steers (`--local-source-ip`).
    pub local_source_ip: IpAddr,
    /// The proxy's own listener; port 0 picks an ephemeral one (`--listen`).
    pub listen: SocketAddr,
    /// Certificates, keys and CA bundles, as file names.
    pub files: CredentialFiles,
    /// Certificates for clients that ask for certain names (`--tls-sni-cert-key`).
    pub sni_cert_keys: Vec<SniCertKey>,
    /// TLS as clients may speak it (`--tls-min-version`, `--tls-cipher-suites`).
    pub serving_tls: ServingTls,
    /// How front proxies assert identities (`--requestheader-*`).
    pub request_header: RequestHeaderNames,
    /// Own address as peers should dial it (`--peer-advertise-ip`).
    pub peer_advertise_ip: Option<IpAddr>,
    /// Own port as peers should dial it (`--peer-advertise-port`).
    pub peer_advertise_port: Option<u16>,
    /// Static peers, `host:port`; empty means discovered (`--peers`).
    pub peers: Vec<PeerAddress>,
    /// Networks in which a Lease alone may name a peer (`--peer-allowed-cidrs`).
    pub peer_allowed_cidrs: Vec<IpNet>,
    /// Source ports from which peers are dialled, and by which their requests are known (`--peer-lane-ports`); `None` for any.
    pub peer_lane_ports: Option<LanePorts>,
    /// How long what a silent peer served is believed (`--peer-stale-after`).
    pub peer_stale_after: Duration,
    /// Folder for what has to outlive the process; `None` for nowhere (`--state-dir`).
    pub state_dir: Option<PathBuf>,
    /// Own credentials; in-cluster ones when absent (`--kubeconfig`).
    pub kubeconfig: Option<PathBuf>,
    /// When connections are steered (`--steering`).
    pub steering: SteeringMode,
    /// Whose connections are steered (`--steer-sources`, `--steer-percent`).
    pub canary: Canary,
    /// Connections moved each second when steering begins or ends in mode `on-skew` (`--cut-rate`); `None` leaves them where
    /// they are.
    pub cut_rate: Option<NonZeroU32>,
    /// What is counted on the wire (`--xdp-interface`, `--xdp-syn-rate`).
    pub xdp: XdpOptions,
    /// Folder of the pinned kernel objects (`--bpffs-dir`).
    pub bpffs_dir: PathBuf,
    /// cgroup2 folder whose sockets are counted; the proxy's own when absent (`--cgroup`).
    pub cgroup: Option<PathBuf>,
    /// Whether peers answer while the local API server cannot (`--local-failover`).
    pub local_failover: bool,
    /// Whether a watch whose API server died goes on at another (`--watch-continuation`).
    pub watch_continuation: bool,
    /// Address of /metrics, /livez and /readyz (`--admin-address`).
    pub admin_address: SocketAddr,
    /// How often the local server and peers are asked what they serve (`--discovery-interval`).
    pub discovery_interval: Duration,
    /// Networks of proxies whose X-Forwarded-For is believed (`--trusted-proxies`).
    pub trusted_proxies: Vec<IpNet>,
    /// Connections served at once (`--max-connections`).
    pub max_connections: NonZeroU32,
    /// Connections of one source served at once (`--max-connections-per-source`); `None` for any number.
    pub max_connections_per_source: Option<NonZeroU32>,
    /// How long clients may take; no flag, because kube-apiserver has none.
    pub time_limits: TimeLimits,
    /// Threads that serve requests (`--workers`).
    pub workers: NonZeroUsize,
    /// Whether requests are rerouted and discovery is merged
    /// (`--feature-gates=UnknownVersionInteroperabilityProxy=`).
    pub mixed_version: bool,
    /// klog verbosity (`-v`).
    pub verbosity: u8,
    /// Shape of log lines (`--logging-format`).
    pub log_format: LogFormat,
    /// Where each value that is not a default was written, for errors that name it.
    pub origins: Origins,
}

/// The files that [`crate::credentials::Credentials`] is loaded from.
#[derive(Clone, Debug)]
pub struct CredentialFiles {
    /// Serving certificate chain (`--tls-cert-file`).
    pub tls_cert: PathBuf,
    /// Key of the serving certificate (`--tls-private-key-file`).
    pub tls_private_key: PathBuf,
    /// CAs of ordinary client certificates (`--client-ca-file`).
    pub client_ca: PathBuf,
    /// CAs of front proxies' client certificates (`--requestheader-client-ca-file`).
    pub request_header_ca: PathBuf,
    /// Certificate this proxy asserts identities with (`--proxy-client-cert-file`).
    pub proxy_client_cert: PathBuf,
    /// Key of that certificate (`--proxy-client-key-file`).
    pub proxy_client_key: PathBuf,
    /// CAs of API servers' serving certificates (`--peer-ca-file`).
    pub peer_ca: Option<PathBuf>,
}

/// One `--tls-sni-cert-key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SniCertKey {
    /// Certificate chain.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Names and addresses that it is shown for, lower-case; empty for those in the certificate.
    pub names: Vec<String>,
}

/// TLS as clients may speak it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServingTls {
    /// Lowest version (`--tls-min-version`).
    pub min_version: MinTlsVersion,
    /// Suites of TLS 1.2 (`--tls-cipher-suites`); `None` for all that rustls has.
    pub cipher_suites: Option<Vec<CipherSuite>>,
}

/// Lowest version of TLS. There is none below 1.2: rustls has none, and Go's servers default to 1.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinTlsVersion {
    /// TLS 1.2; the default.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// Header names of the request-header authenticator and the certificates that may use them.
#[derive(Clone, Debug)]
pub struct RequestHeaderNames {
    /// Common names that may assert; empty allows any (`--requestheader-allowed-names`).
    pub allowed_names: Vec<String>,
    /// User name headers, first non-empty wins (`--requestheader-username-headers`).
    pub username: Vec<String>,
    /// Group headers, all values count (`--requestheader-group-headers`).
    pub group: Vec<String>,
    /// UID headers (`--requestheader-uid-headers`).
    pub uid: Vec<String>,
    /// Prefixes of extra headers (`--requestheader-extra-headers-prefix`).
    pub extra_prefix: Vec<String>,
}

/// A peer as the operator wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// DNS name or IP address, without brackets.
    pub host: String,
    /// Port of the peer API server.
    pub port: u16,
}

impl Config {
    /// Every file that certificates, keys and CAs are read from.
    pub fn credential_files(&self) -> Vec<&Path> {
        let CredentialFiles {
            tls_cert,
            tls_private_key,
            client_ca,
            request_header_ca,
            proxy_client_cert,
            proxy_client_key,
            peer_ca,
        } = &self.files;
        let always =
            [tls_cert, tls_private_key, client_ca, request_header_ca, proxy_client_cert, proxy_client_key];
        let optional = [peer_ca, &self.kubeconfig].into_iter().flatten();
        let sni = self.sni_cert_keys.iter().flat_map(|pair| [&pair.cert, &pair.key]);
        always.into_iter().chain(optional).chain(sni).map(PathBuf::as_path).collect()
    }
}

/// When the kernel hands new connections on the secure port to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SteeringMode {
    /// As `Always`, but the proxy runs unsteered where BPF cannot be used; the default.
    Auto,
    /// Always; start-up fails without BPF.
    Always,
    /// Only while API servers serve different APIs.
    OnSkew,
    /// Never; clients reach the proxy on its own listener.
    Off,
}

/// Shape of log lines, as kube-apiserver's `--logging-format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text per event; the default.
    #[default]
    Text,
    /// One JSON object per event.
    Json,
}

/// What `mvproxy check` is to look at.
#[derive(Debug)]
pub struct CheckRequest {
    /// The configuration, with defaults in place of what is wrong.
    pub config: Box<Config>,
    /// What is wrong with it.
    pub mistakes: Vec<ConfigError>,
    /// What to print (`-o`).
    pub output: Output,
}

/// What a command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// `mvproxy run`.
    Run(Box<Config>),
    /// `mvproxy check`.
    Check(CheckRequest),
    /// `mvproxy uninstall`, of this folder.
    Uninstall(PathBuf),
    /// `mvproxy skew` or `mvproxy route`.
    Ask(Ask),
    /// Help or version text to print; it knows its own stream and exit code.
    Show(clap::Error),
}

/// Why a command line, with the files it names, is no configuration.
#[derive(Debug)]
pub struct Rejected {
    /// Every mistake found: first of the command line as such, then of the files, then of the values.
    pub mistakes: Vec<ConfigError>,
    /// The configuration with defaults in place of what is wrong and empty file names in place of what is
    /// missing, so that a caller can look for more mistakes in the files that were named.
    pub draft: Option<Box<Config>>,
}

/// Reads a whole command line, program name first, and the files it names.
///
/// # Errors
/// [`Rejected`] lists all mistakes at once.
pub fn parse<I>(args: I) -> Result<Invocation, Rejected>
where
    I: IntoIterator,
    I::Item: Into<OsString>,
{
    let args = args.into_iter().map(Into::into).collect();
    let (on_command_line, mut mistakes) = match command_line::read(args) {
        command_line::Outcome::Run { source, mistakes } => (source, mistakes),
        command_line::Outcome::Check { source, mut mistakes, output } => {
            let sources = sources::gather(source, &mut mistakes);
            let config = Box::new(build::build(&sources, &mut mistakes));
            return Ok(Invocation::Check(CheckRequest { config, mistakes, output }));
        }
        command_line::Outcome::Uninstall(folder) => return Ok(Invocation::Uninstall(folder)),
        command_line::Outcome::Ask(question) => return Ok(Invocation::Ask(question)),
        command_line::Outcome::Show(text) => return Ok(Invocation::Show(text)),
        command_line::Outcome::Unusable(mistakes) => return Err(Rejected { mistakes, draft: None }),
    };
    let sources = sources::gather(on_command_line, &mut mistakes);
    let config = Box::new(build::build(&sources, &mut mistakes));
    if mistakes.is_empty() {
        Ok(Invocation::Run(config))
    } else {
        Err(Rejected { mistakes, draft: Some(config) })
    }
}

#[cfg(test)]
mod tests;
