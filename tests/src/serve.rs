//! Reads the command line, in kube-apiserver's spelling.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use mvproxy_tests::pki::Identity;
use mvproxy_tests::standin::{Documents, RequestHeader, StandinOptions, parse_token_file};
use mvproxy_tests::store::Store;

#[derive(Args)]
pub(crate) struct PkiArgs {
    /// Folder to write to.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// A node and its address; repeatable.
    #[arg(long, value_name = "NAME=IP", value_parser = node)]
    pub(crate) node: Vec<(String, IpAddr)>,
}

#[derive(Args)]
pub(crate) struct StoreArgs {
    /// Unix socket to listen on.
    #[arg(long)]
    pub(crate) listen: PathBuf,
}

#[derive(Args)]
pub(crate) struct ServeArgs {
    /// Recorded documents to serve: v1.33, v1.34, v1.35, v1.36 or v1.36-all.
    #[arg(long)]
    documents: String,
    /// Socket of the shared store; without it the store is this process's own.
    #[arg(long)]
    store: Option<PathBuf>,
    #[arg(long, default_value = "0.0.0.0")]
    bind_address: IpAddr,
    /// 0 picks a port.
    #[arg(long, default_value_t = 6443)]
    secure_port: u16,
    #[arg(long)]
    advertise_address: Option<IpAddr>,
    /// Name the server ID is derived from.
    #[arg(long)]
    hostname: String,
    #[arg(long)]
    tls_cert_file: PathBuf,
    #[arg(long)]
    tls_private_key_file: PathBuf,
    #[arg(long)]
    client_ca_file: Option<PathBuf>,
    #[arg(long)]
    requestheader_client_ca_file: Option<PathBuf>,
    #[arg(long, value_delimiter = ',')]
    requestheader_allowed_names: Vec<String>,
    #[arg(long, value_delimiter = ',')]
    requestheader_username_headers: Vec<String>,
    #[arg(long, value_delimiter = ',')]
    requestheader_group_headers: Vec<String>,
    #[arg(long, value_delimiter = ',')]
    requestheader_uid_headers: Vec<String>,
    #[arg(long, value_delimiter = ',')]
    requestheader_extra_headers_prefix: Vec<String>,
    #[arg(long)]
    token_auth_file: Option<PathBuf>,
    /// Seconds between bookmarks of a watch.
    #[arg(long, default_value_t = 60)]
    bookmark_interval: u64,
    /// Milliseconds between what a write does and its answer.
    #[arg(long, default_value_t = 0)]
    answer_delay: u64,
}

impl ServeArgs {
    /// Reads every file and connects to the store.
    pub(crate) async fn options(&self) -> Result<StandinOptions> {
        let store = match &self.store {
            Some(path) => Store::connect(path).await?,
            None => Store::in_memory(),
        };
        let tokens = match &self.token_auth_file {
            Some(path) => parse_token_file(&read("--token-auth-file", path)?)?,
            None => Vec::new(),
        };
        Ok(StandinOptions {
            documents: Documents::load(&self.documents)?,
            store,
            bind: SocketAddr::new(self.bind_address, self.secure_port),
            loopback: None,
            advertise: self.advertise_address,
            hostname: self.hostname.clone(),
            serving: Identity {
                cert_pem: read("--tls-cert-file", &self.tls_cert_file)?,
                key_pem: read("--tls-private-key-file", &self.tls_private_key_file)?,
            },
            client_ca: optional("--client-ca-file", self.client_ca_file.as_deref())?,
            request_header: self.request_header()?,
            tokens,
            bookmark_interval: Duration::from_secs(self.bookmark_interval.max(1)),
            answer_delay: Duration::from_millis(self.answer_delay),
            close_unauthenticated_http1: true,
        })
    }

    fn request_header(&self) -> Result<Option<RequestHeader>> {
        let ca = optional("--requestheader-client-ca-file", self.requestheader_client_ca_file.as_deref())?;
        Ok(ca.map(|client_ca| RequestHeader {
            client_ca,
            allowed_names: self.requestheader_allowed_names.clone(),
            username_headers: self.requestheader_username_headers.clone(),
            group_headers: self.requestheader_group_headers.clone(),
            uid_headers: self.requestheader_uid_headers.clone(),
            extra_headers_prefixes: self.requestheader_extra_headers_prefix.clone(),
        }))
    }
}

fn optional(flag: &str, path: Option<&Path>) -> Result<Option<String>> {
    path.map(|path| read(flag, path)).transpose()
}

fn read(flag: &str, path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{flag}: cannot read {}", path.display()))
}

fn node(text: &str) -> Result<(String, IpAddr)> {
    let Some((name, ip)) = text.split_once('=') else {
        bail!("not NAME=IP");
    };
    Ok((name.to_owned(), ip.parse()?))
}
