//! Turns `--kubeconfig` or the pod's service account into credentials for the proxy's own requests.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;

use http::Uri;
use kube::config::{InClusterError, Kubeconfig, KubeconfigError};

use super::Config;
use super::error::ConfigError;
use super::origin::Flag;

/// Where kube looks for the service account that a pod runs as.
pub(super) const IN_CLUSTER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Name that every API server's serving certificate has, whatever address it is dialled at.
const SERVER_NAME: &str = "kubernetes.default.svc";

/// The proxy's own credentials, pointed at `--local-apiserver` under the name `kubernetes.default.svc`.
///
/// `--kubeconfig` where it is given, else the pod's service account, else `None`. The files are read anew on
/// every call. A connection made with the result is steered like any other unless its socket is bound to
/// `--local-source-ip` first.
///
/// # Errors
/// Names `--kubeconfig` and the file when that is given but cannot be used, or says that the service
/// account's files are there but broken.
pub fn own_credentials(config: &Config) -> Result<Option<kube::Config>, ConfigError> {
    let found = match &config.kubeconfig {
        Some(file) => Some(from_kubeconfig(config.origins.flag("kubeconfig"), file)?),
        None => in_cluster()?,
    };
    Ok(found.map(|credentials| pointed_at(config.local_apiserver, credentials)))
}

fn pointed_at(server: SocketAddr, mut credentials: kube::Config) -> kube::Config {
    credentials.cluster_url = url_of(server);
    credentials.tls_server_name = Some(SERVER_NAME.to_owned());
    // kube takes HTTPS_PROXY from the environment; the local API server is never behind one.
    credentials.proxy_url = None;
    credentials
}

fn url_of(server: SocketAddr) -> Uri {
    // A rebuilt address has no IPv6 zone, which is the one thing that its text could have and a URL not.
    let authority = SocketAddr::new(server.ip(), server.port());
    Uri::try_from(format!("https://{authority}")).expect("an address and port are a URL's authority")
}

fn from_kubeconfig(flag: Flag, file: &Path) -> Result<kube::Config, ConfigError> {
    Kubeconfig::read_from(file)
        .and_then(kube::Config::try_from)
        .map_err(|error| kubeconfig_error(flag, file, error))
}

fn kubeconfig_error(flag: Flag, file: &Path, error: KubeconfigError) -> ConfigError {
    let file = file.to_path_buf();
    match error {
        KubeconfigError::ReadConfig(source, _) => ConfigError::Unreadable { flag, file, source },
        KubeconfigError::Parse(source) => {
            let (line, column) = source.location().map_or((1, 1), |at| (at.line(), at.column()));
            ConfigError::KubeconfigUnparsable { flag, file, line, column }
        }
        other => ConfigError::KubeconfigUnusable { flag, file, source: Box::new(other) },
    }
}

fn in_cluster() -> Result<Option<kube::Config>, ConfigError> {
    // By its DNS name, because the address is replaced anyway and this needs no environment.
    match kube::Config::incluster_dns() {
        Ok(credentials) => Ok(Some(credentials)),
        Err(InClusterError::ReadDefaultNamespace(error) | InClusterError::ReadCertificateBundle(error))
            if error.kind() == ErrorKind::NotFound =>
        {
            Ok(None)
        }
        Err(source) => Err(ConfigError::InClusterUnusable { source: Box::new(source) }),
    }
}
