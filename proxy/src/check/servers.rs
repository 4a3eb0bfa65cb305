//! Asks every API server who the proxy is to it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, DATE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::ListParams;
use rustls_pki_types::UnixTime;
use serde_json::Value;
use tokio::time::timeout;

use super::Finding;
use crate::asker::{Asker, Unreached};
use crate::causes::chain;
use crate::config::{Config, own_credentials};
use crate::credentials::Credentials;
use crate::forward::{Dialer, Pool};
use crate::identity::IdentityHeaders;
use crate::own_client;
use crate::peers::{OwnAddresses, slice};
use crate::steering::Steering;
use crate::tls::TlsContext;
use crate::upstream::{Role, TrustClass, Upstream};

/// Time for one server.
const PATIENCE: Duration = Duration::from_secs(5);
/// Certificates and Leases suffer from more.
const MOST_SKEW: Duration = Duration::from_secs(10);
/// A review is under a kilobyte.
const REVIEW_LIMIT: usize = 64 * 1024;
/// Who am I (KEP-3325); since 1.28.
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const REVIEW: &[u8] = br#"{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#;

/// What each API server says.
pub(super) async fn findings(config: &Config, credentials: &Credentials) -> Vec<Finding> {
    let (asker, dialer) = match tools(config, credentials) {
        Ok(tools) => tools,
        Err(error) => {
            return vec![Finding { verdict: super::Verdict::Fail, ..Finding::pass("servers", error) }];
        }
    };
    let counters = Steering::off("only checking").counters();
    let upstream = |address, role| Upstream { address, role, slot: counters.slot(address) };
    let local = upstream(config.local_apiserver, Role::Local);
    let mut findings = vec![certificate(&dialer, &local, credentials).await];
    findings.extend(identity(&asker, &local, "local").await);
    match peers(config).await {
        Ok(peers) if peers.is_empty() => findings.push(Finding::warn(
            "peers",
            "no other API server is known: nothing can be rerouted",
            "give --peers, or wait until the other API servers have entered themselves",
        )),
        Ok(peers) => {
            for address in peers {
                findings.extend(identity(&asker, &upstream(address, Role::Peer), "peer").await);
            }
        }
        Err(finding) => findings.push(finding),
    }
    findings
}

fn tools(config: &Config, credentials: &Credentials) -> Result<(Asker, Dialer), String> {
    let tls = TlsContext::new(credentials, &config.serving_tls, UnixTime::now());
    let tls = tls.map_err(|error| chain(&error))?;
    let names = IdentityHeaders::new(&config.request_header).map_err(|error| chain(&error))?;
    let dialer = Dialer::new(Arc::new(ArcSwap::from_pointee(tls)), config.local_source_ip);
    let identity = Asker::own_identity(&names).map_err(|error| chain(&error))?;
    Ok((Asker::new(Pool::new(dialer.clone()), identity), dialer))
}

/// Whether clients are shown the same certificate by both.
async fn certificate(dialer: &Dialer, local: &Upstream, credentials: &Credentials) -> Finding {
    let address = local.address;
    match timeout(PATIENCE, dialer.certificate_of(local, TrustClass::Anonymous)).await {
        Err(_) => {
            Finding::fail("local", format!("{address} does not answer"), "see that kube-apiserver runs")
        }
        Ok(Err(error)) => Finding::fail(
            "local",
            chain(&error),
            "see that kube-apiserver runs, and that --local-apiserver is where it listens",
        ),
        Ok(Ok(shown)) if shown.as_ref() == credentials.serving.cert.first() => {
            Finding::pass("local", format!("{address} shows the certificate of --tls-cert-file"))
        }
        Ok(Ok(_)) => Finding::warn(
            "local",
            format!("{address} shows another certificate than --tls-cert-file has"),
            "give the file that kube-apiserver has; it may not have loaded a renewed one yet",
        ),
    }
}

/// Who the proxy is to a server, how soon it says so, and what time it is there.
async fn identity(asker: &Asker, upstream: &Upstream, role: &str) -> Vec<Finding> {
    let address = upstream.address;
    let begun = tokio::time::Instant::now();
    let answer = match timeout(PATIENCE, review(asker, upstream)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            let remedy = "see that it runs, that nothing between drops the port, and that --peer-ca-file signed its certificate";
            return vec![Finding::fail(role, format!("{address}: {}", chain(&*error)), remedy)];
        }
        Err(_) => {
            return vec![Finding::fail(
                role,
                format!("{address} does not answer"),
                "see that it runs and is reachable",
            )];
        }
    };
    let took = begun.elapsed().as_millis();
    let mut findings = vec![recognised(&answer, role, address, took)];
    findings.extend(clock(&answer.headers, role, address));
    findings
}

/// A whole answer.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

async fn review(asker: &Asker, upstream: &Upstream) -> Result<Answer, Unreached> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let response = asker.send(upstream, Method::POST, REVIEWS, headers, Bytes::from_static(REVIEW)).await?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, REVIEW_LIMIT).collect().await?.to_bytes();
    Ok(Answer { status: head.status, headers: head.headers, body })
}

fn recognised(answer: &Answer, role: &str, address: SocketAddr, took: u128) -> Finding {
    let user = serde_json::from_slice::<Value>(&answer.body).ok();
    let user = user.as_ref().and_then(|review| review["status"]["userInfo"]["username"].as_str());
    match (answer.status, user) {
        (StatusCode::CREATED, Some(Asker::NAME)) => {
            Finding::pass(role, format!("{address} takes the proxy's word for who a client is ({took} ms)"))
        }
        (StatusCode::CREATED, Some(other)) => Finding::fail(
            role,
            format!("{address} takes every client for {other}"),
            "its --requestheader-client-ca-file has to hold the CA of --proxy-client-cert-file, and its \
             --requestheader-allowed-names the certificate's common name",
        ),
        (StatusCode::UNAUTHORIZED, _) => Finding::fail(
            role,
            format!("{address} does not accept the front-proxy certificate"),
            "give --proxy-client-cert-file a certificate of its --requestheader-client-ca-file",
        ),
        // Before 1.28 there is no such review.
        (StatusCode::NOT_FOUND, _) => {
            Finding::skip(role, format!("{address} is too old to say who the proxy is to it"))
        }
        (status, _) => Finding::warn(role, format!("{address} answers {status}"), "see its log"),
    }
}

fn clock(headers: &HeaderMap, role: &str, address: SocketAddr) -> Option<Finding> {
    let date = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    let now = SystemTime::now();
    let apart = now.duration_since(date).or_else(|_| date.duration_since(now)).ok()?;
    (apart > MOST_SKEW).then(|| {
        let found = format!("the clock of {address} is {} s away from this node's", apart.as_secs());
        Finding::warn(role, found, "synchronise both with NTP: certificates and Leases depend on time")
    })
}

/// Addresses of the other API servers, as the proxy would find them.
async fn peers(config: &Config) -> Result<Vec<SocketAddr>, Finding> {
    if !config.peers.is_empty() {
        return resolved(config).await;
    }
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Finding::fail("peers", chain(error), "mend --kubeconfig or give --peers")
    };
    let Some(own) = own_credentials(config).map_err(|error| failed(&error))? else { return Ok(Vec::new()) };
    let client = own_client::client(own, config.local_source_ip).map_err(|error| failed(&error))?;
    let wanted = ListParams::default().labels(slice::SELECTOR);
    let slices = Api::<EndpointSlice>::namespaced(client, slice::NAMESPACE).list(&wanted).await;
    let slices = slices.map_err(|error| failed(&error))?;
    let own = OwnAddresses::of(config);
    let is_own = own.now();
    let all = slices.iter().flat_map(slice::endpoints).map(|endpoint| endpoint.address);
    Ok(all.filter(|address| !is_own(address)).collect())
}

async fn resolved(config: &Config) -> Result<Vec<SocketAddr>, Finding> {
    let mut all = Vec::new();
    for peer in &config.peers {
        if let Ok(ip) = peer.host.parse::<IpAddr>() {
            all.push(SocketAddr::new(ip, peer.port));
            continue;
        }
        match tokio::net::lookup_host((peer.host.as_str(), peer.port)).await {
            Ok(found) => all.extend(found),
            Err(error) => {
                let found = format!("--peers: {} cannot be resolved: {error}", peer.host);
                return Err(Finding::fail("peers", found, "mend the name, or give its address"));
            }
        }
    }
    Ok(all)
}
