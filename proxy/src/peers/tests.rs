use super::*;

#[test]
fn a_recorded_slice_yields_its_ready_https_addresses() {
    let list: serde_json::Value = serde_json::from_str(include_str!(
        "../../../tests/fixtures/kube-apiserver/v1.36-all/kubernetes-endpointslices.json"
    ))
    .expect("the fixture is JSON");
    let mut slice: EndpointSlice =
        serde_json::from_value(list["items"][0].clone()).expect("an EndpointSlice");
    let address: SocketAddr = "10.77.0.12:6443".parse().expect("an address");
    assert_eq!(slice::endpoints(&slice), [Endpoint { address, server: None }]);

    let endpoint = &mut slice.endpoints.as_mut().expect("endpoints")[0];
    endpoint.node_name = Some("node-12".to_owned());
    assert_eq!(slice::endpoints(&slice)[0].server.as_deref(), Some("node-12"));
    let endpoint = &mut slice.endpoints.as_mut().expect("endpoints")[0];
    endpoint.conditions.as_mut().expect("conditions").ready = Some(false);
    assert!(slice::endpoints(&slice).is_empty());
}

#[test]
fn the_own_node_is_recognised_by_interface_and_by_advertised_address() {
    let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
    let addresses = OwnAddresses::new(address("127.0.0.9:7443"), 6443, Some(address("192.0.2.7:443")));
    let own = addresses.now();
    for (text, expected) in [
        ("127.0.0.1:6443", true),
        ("127.0.0.1:443", false),
        ("127.0.0.9:7443", true),
        ("192.0.2.7:443", true),
        ("192.0.2.7:6443", false),
    ] {
        assert_eq!(own(&address(text)), expected, "{text}");
    }
}
