//! Makes a Kubernetes client that talks to the local API server past the steering.

use std::net::IpAddr;

use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::Client;
use kube::client::ConfigExt as _;
use tower::ServiceBuilder;

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
#[error("unusable credentials")]
pub struct OwnClientError(#[from] kube::Error);

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
