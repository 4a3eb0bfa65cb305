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
    assert_eq!(slice::endpoints(&slice), [Endpoint { address, server: None, is_own_word: true }]);

    let endpoint = &mut slice.endpoints.as_mut().expect("endpoints")[0];
    endpoint.node_name = Some("node-12".to_owned());
    assert_eq!(slice::endpoints(&slice)[0].server.as_deref(), Some("node-12"));
    let endpoint = &mut slice.endpoints.as_mut().expect("endpoints")[0];
    endpoint.conditions.as_mut().expect("conditions").ready = Some(false);
    assert!(slice::endpoints(&slice).is_empty());
}

/// Whoever may write slices can write a million addresses. The API servers' own come before those.
#[test]
fn more_addresses_than_there_can_be_are_left_out() {
    let endpoint = |number: u16, is_own_word| {
        let address = SocketAddr::from(([127, 0, 0, 1], 1 + number));
        Endpoint { address, server: None, is_own_word }
    };
    let own = vec![endpoint(60_000, true)];
    let others: Vec<Endpoint> = (0..900).map(|number| endpoint(number, false)).collect();
    let (all, left_out) = slice::all([&others, &own].into_iter());
    assert_eq!((all.len(), left_out), (901, 0));
    let (all, left_out) = slice::all([&others, &others, &own].into_iter());
    assert_eq!((all.len(), left_out), (slice::MOST_ENDPOINTS, 801));
    assert!(all.contains(&own[0]) && all.is_sorted());

    let addresses: Vec<String> = (0..30_000).map(|n| format!("10.0.{}.{}", n / 250, n % 250)).collect();
    let slice: EndpointSlice = serde_json::from_value(serde_json::json!({
        "addressType": "IPv4", "metadata": {}, "endpoints": [{"addresses": addresses}],
        "ports": [{"name": "https", "port": 1}, {"name": "https", "port": 2}],
    }))
    .expect("an EndpointSlice");
    assert_eq!(
        slice::endpoints(&slice).len(),
        slice::MOST_ENDPOINTS + 1,
        "enough to tell that there are more"
    );
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
