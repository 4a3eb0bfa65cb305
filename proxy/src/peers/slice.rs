//! Reads the `kubernetes` `EndpointSlices` in `default`, where every API server enters itself.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::discovery::v1::EndpointSlice;

/// Where the slices are.
pub(crate) const NAMESPACE: &str = "default";
/// Selects them.
pub(crate) const SELECTOR: &str = "kubernetes.io/service-name=kubernetes";

/// The slice that API servers write themselves; a controller makes others of the `Endpoints` that somebody else writes.
pub(crate) const OWN_NAME: &str = "kubernetes";
/// Addresses that are looked at, in one slice and in all: four times what the servers of a snapshot can have.
pub(crate) const MOST_ENDPOINTS: usize = 1000;

/// One address of an API server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Endpoint {
    /// Where it is dialled.
    pub(crate) address: SocketAddr,
    /// What tells its server from others, where the slice says so: addresses of one server in both IP versions share it.
    pub(super) server: Option<Box<str>>,
    /// Whether the slice is the one that API servers write themselves.
    pub(super) is_own_word: bool,
}

/// Every ready address with the slice's HTTPS port, up to one more than there may be.
pub(crate) fn endpoints(slice: &EndpointSlice) -> Vec<Endpoint> {
    let ports = slice.ports.iter().flatten().filter(|port| port.name.as_deref() == Some("https"));
    let ports: Vec<u16> =
        ports.filter_map(|port| port.port).filter_map(|port| u16::try_from(port).ok()).collect();
    let ready = slice.endpoints.iter().flatten().filter(|endpoint| {
        endpoint.conditions.as_ref().is_none_or(|conditions| conditions.ready != Some(false))
    });
    let is_own_word = slice.metadata.name.as_deref() == Some(OWN_NAME);
    ready
        .flat_map(|endpoint| {
            let target = endpoint.target_ref.as_ref().and_then(|target| target.uid.as_deref());
            let server = target.or(endpoint.node_name.as_deref()).or(endpoint.hostname.as_deref());
            endpoint.addresses.iter().map(move |address| (address, server))
        })
        .filter_map(|(address, server)| Some((address.parse::<IpAddr>().ok()?, server)))
        .flat_map(|(ip, server)| ports.iter().map(move |port| (SocketAddr::new(ip, *port), server)))
        .map(|(address, server)| Endpoint { address, server: server.map(Into::into), is_own_word })
        .take(MOST_ENDPOINTS + 1)
        .collect()
}

/// The addresses of all slices, in order, and how many more there are. What API servers wrote themselves comes before what
/// anybody else did.
pub(super) fn all<'a>(slices: impl Iterator<Item = &'a Vec<Endpoint>>) -> (Vec<Endpoint>, usize) {
    let mut all: Vec<&Endpoint> = slices.flatten().collect();
    all.sort_unstable_by_key(|endpoint| (!endpoint.is_own_word, *endpoint));
    let left_out = all.len().saturating_sub(MOST_ENDPOINTS);
    let mut endpoints: Vec<Endpoint> = all.into_iter().take(MOST_ENDPOINTS).cloned().collect();
    endpoints.sort_unstable();
    (endpoints, left_out)
}
