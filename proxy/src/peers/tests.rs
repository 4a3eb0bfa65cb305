use super::*;

#[test]
fn a_recorded_slice_yields_its_ready_https_addresses() {
    let list: serde_json::Value = serde_json::from_str(include_str!(
        "../../../tests/fixtures/kube-apiserver/v1.36-all/kubernetes-endpointslices.json"
    ))
    .expect("the fixture is JSON");
    let mut slice: EndpointSlice =
        serde_json::from_value(list["items"][0].clone()).expect("an EndpointSlice");
    let expected: SocketAddr = "10.77.0.12:6443".parse().expect("an address");
    assert_eq!(addresses(&slice), [expected]);

    let endpoint = &mut slice.endpoints.as_mut().expect("endpoints")[0];
    endpoint.conditions.as_mut().expect("conditions").ready = Some(false);
    assert!(addresses(&slice).is_empty());
}

#[test]
fn the_own_node_is_recognised_by_interface_and_by_advertised_address() {
    let advertised = "192.0.2.7".parse().expect("an address");
    let own = OwnAddresses::new(6443, Some(advertised), Some(443));
    for (address, expected) in [
        ("127.0.0.1:6443", true),
        ("127.0.0.1:443", false),
        ("192.0.2.7:443", true),
        ("192.0.2.7:6443", false),
    ] {
        assert_eq!(own.contains(&address.parse().expect("an address")), expected, "{address}");
    }
}
