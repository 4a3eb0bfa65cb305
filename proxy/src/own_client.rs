//! Makes Kubernetes clients that talk to the local API server past the steering.

use std::net::IpAddr;
use std::sync::Arc;

use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::Client;
use kube::client::ConfigExt as _;
use tower::ServiceBuilder;

use crate::config::{Config, ConfigError, own_credentials};

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
pub enum OwnClientError {
    /// The files cannot be read.
    #[error(transparent)]
    Credentials(#[from] ConfigError),
    /// What is in them cannot be used.
    #[error("--kubeconfig: no client can be made of the credentials")]
    Unusable(#[from] kube::Error),
    /// The pod's service account was there and is gone.
    #[error("the service account's files are gone")]
    Gone,
}

/// Makes every client of the proxy's own, each from the credentials as they are on disk at that moment: whoever gets an
/// error asks for another client, and so takes up renewed ones.
#[derive(Clone, Debug)]
pub struct OwnClients {
    config: Arc<Config>,
}

impl OwnClients {
    /// `None` when the proxy has no credentials.
    ///
    /// # Errors
    /// When there are some that cannot be used.
    pub fn new(config: &Config) -> Result<Option<Self>, OwnClientError> {
        let clients = Self { config: Arc::new(config.clone()) };
        match clients.connect() {
            Ok(_) => Ok(Some(clients)),
            Err(OwnClientError::Gone) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A client with the present credentials. Nothing is dialled before its first request.
    ///
    /// # Errors
    /// When they cannot be used.
    pub fn connect(&self) -> Result<Client, OwnClientError> {
        let credentials = own_credentials(&self.config)?.ok_or(OwnClientError::Gone)?;
        client(credentials, self.config.local_source_ip)
    }
}

/// A client whose connections come from `source`, the address the kernel program never steers: the proxy does not
/// depend on itself.
///
/// # Errors
/// When the credentials' keys or certificates cannot be used.
pub fn client(config: kube::Config, source: IpAddr) -> Result<Client, OwnClientError> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_local_address(Some(source));
    connector.set_connect_timeout(config.connect_timeout);
    let https = config.rustls_https_connector_with_connector(connector)?;
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .map_err(tower::BoxError::from)
        .service(HyperClient::builder(TokioExecutor::new()).build(https));
    Ok(Client::new(service, config.default_namespace))
}
