//! Asks the API server by which header names it lets front proxies assert identities.
//!
//! kube-apiserver publishes its `--requestheader-*` flags in the `ConfigMap` `extension-apiserver-authentication` of
//! kube-system for whoever stands behind or before it (KEP-4193, k8s.io/apiserver `RequestHeaderAuthRequestController`).

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use tracing::{info, warn};

use crate::causes::chain;
use crate::config::{Config, RequestHeaderNames, own_credentials};
use crate::own_client::{OwnClientError, OwnClients};

const NAMESPACE: &str = "kube-system";
/// Name of the `ConfigMap`.
pub const CONFIG_MAP: &str = "extension-apiserver-authentication";
/// Flags of which one is enough to say that the names are configured here.
const FLAGS: [&str; 5] = [
    "requestheader-allowed-names",
    "requestheader-username-headers",
    "requestheader-group-headers",
    "requestheader-uid-headers",
    "requestheader-extra-headers-prefix",
];
/// Pauses between two attempts: the API server may be starting, or nobody gave the right to read yet.
const PAUSES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(5), Duration::from_secs(15)];

/// Why the names are not known.
#[derive(Debug, thiserror::Error)]
pub enum NamesError {
    /// Own credentials are unusable.
    #[error("own credentials cannot be used")]
    Credentials(#[from] OwnClientError),
    /// The API server did not hand the `ConfigMap` out.
    #[error(
        "ConfigMap {NAMESPACE}/{CONFIG_MAP} cannot be read; bind the own user to the Role \
         extension-apiserver-authentication-reader there, or give --requestheader-username-headers and the others"
    )]
    Unreadable(#[source] Box<kube::Error>),
    /// The API server takes nobody's word.
    #[error(
        "the API server has no request-header authentication: ConfigMap {NAMESPACE}/{CONFIG_MAP} has no {key}; give \
         kube-apiserver its --requestheader-* flags, which the aggregation layer needs too"
    )]
    NotConfigured {
        /// Missing key.
        key: &'static str,
    },
    /// A value is no list.
    #[error("{key} of ConfigMap {NAMESPACE}/{CONFIG_MAP} is not a JSON list of texts")]
    NotAList {
        /// Key.
        key: &'static str,
        /// Cause.
        source: serde_json::Error,
    },
}

/// Takes the names from the cluster where neither flags nor manifest give any and there are credentials to ask with. Waits
/// for as long as the API server does not tell: with wrong names clients would be taken for the proxy itself.
pub async fn complete(mut config: Config) -> Config {
    if is_configured(&config) || !has_credentials(&config) {
        return config;
    }
    let mut pauses = PAUSES.into_iter().chain(std::iter::repeat(PAUSES[PAUSES.len() - 1]));
    loop {
        match with_own_credentials(&config).await {
            Ok(Published { names, .. }) => {
                info!(?names, "--requestheader-*: not given, so the API server's own names are used");
                config.request_header = names;
                return config;
            }
            Err(error) => warn!(error = %chain(&error), "not serving yet: --requestheader-* are not known"),
        }
        tokio::time::sleep(pauses.next().unwrap_or(PAUSES[0])).await;
    }
}

/// Those that cannot be read are none; [`with_own_credentials`] would say why, but whoever starts the proxy was told already.
fn has_credentials(config: &Config) -> bool {
    own_credentials(config).is_ok_and(|credentials| credentials.is_some())
}

/// What the API server says of its request-header authentication.
#[derive(Clone, Debug)]
pub struct Published {
    /// Header names, and who may use them.
    pub names: RequestHeaderNames,
    /// CA bundle (PEM) of front proxies.
    pub ca: Option<String>,
}

/// Whether flags, file or manifest name any header.
pub fn is_configured(config: &Config) -> bool {
    FLAGS.iter().any(|flag| config.origins.of(flag).is_some())
}

async fn with_own_credentials(config: &Config) -> Result<Published, NamesError> {
    published(OwnClients::new(config)?.ok_or(OwnClientError::Gone)?.connect()?).await
}

/// Reads the `ConfigMap`.
///
/// # Errors
/// When it cannot be read, or the API server takes nobody's word.
pub async fn published(client: Client) -> Result<Published, NamesError> {
    let map = Api::<ConfigMap>::namespaced(client, NAMESPACE).get(CONFIG_MAP).await;
    let data = map.map_err(|error| NamesError::Unreadable(Box::new(error)))?.data.unwrap_or_default();
    Ok(Published { names: names_in(&data)?, ca: data.get("requestheader-client-ca-file").cloned() })
}

fn names_in(data: &BTreeMap<String, String>) -> Result<RequestHeaderNames, NamesError> {
    let list = |key: &'static str| match data.get(key).map(|text| text.trim()) {
        None | Some("" | "null") => Ok(Vec::new()),
        Some(text) => {
            serde_json::from_str::<Vec<String>>(text).map_err(|source| NamesError::NotAList { key, source })
        }
    };
    let names = RequestHeaderNames {
        allowed_names: list("requestheader-allowed-names")?,
        username: list("requestheader-username-headers")?,
        group: list("requestheader-group-headers")?,
        uid: list("requestheader-uid-headers")?,
        extra_prefix: list("requestheader-extra-headers-prefix")?,
    };
    if names.username.is_empty() {
        return Err(NamesError::NotConfigured { key: "requestheader-username-headers" });
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn reads_what_kube_apiserver_publishes() {
        let names = names_in(&data(&[
            ("client-ca-file", "-----BEGIN CERTIFICATE-----\n"),
            ("requestheader-allowed-names", r#"["front-proxy-client"]"#),
            ("requestheader-extra-headers-prefix", r#"["X-Remote-Extra-"]"#),
            ("requestheader-group-headers", r#"["X-Remote-Group","X-Group"]"#),
            ("requestheader-username-headers", r#"["X-Remote-User"]"#),
        ]))
        .expect("names");
        assert_eq!(names.allowed_names, ["front-proxy-client"]);
        assert_eq!(names.username, ["X-Remote-User"]);
        assert_eq!(names.group, ["X-Remote-Group", "X-Group"]);
        assert_eq!(names.extra_prefix, ["X-Remote-Extra-"]);
        assert!(names.uid.is_empty(), "before 1.32 there is no such header");
    }

    #[test]
    fn says_what_is_missing_or_wrong() {
        for (pairs, expected) in [
            (&[][..], "no request-header authentication"),
            (&[("requestheader-username-headers", "[]")], "no request-header authentication"),
            (&[("requestheader-username-headers", "X-Remote-User")], "not a JSON list"),
        ] {
            let error = names_in(&data(pairs)).expect_err("no names").to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
