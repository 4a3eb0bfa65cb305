//! Connections: GOAWAY, stream and header limits, faults, stopping.

use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use mvproxy_tests::client::Client;
use mvproxy_tests::standin::{Fault, MAX_STREAMS};
use tokio::time::timeout;

use super::watch::Watch;
use super::{BOB, Rig, create_config_map, eventually, get, request};

const WATCH: &str = "/api/v1/namespaces/default/configmaps?watch=true";

#[tokio::test]
async fn an_unauthenticated_http2_request_ends_the_connection_after_what_runs_on_it() {
    let rig = Rig::start("v1.36").await;
    for (case, headers, status) in
        [("anonymous", vec![], 200), ("bad token", vec![("Authorization", "Bearer wrong")], 401)]
    {
        let mut client = Client::connect(&rig.stranger().with_http2()).await.unwrap();
        let watching = client.send(request("GET", WATCH, &[("Authorization", BOB)])).await.unwrap();
        assert_eq!(watching.status(), 200, "{case}");
        assert!(!client.is_closed());
        assert_eq!(get(&mut client, "/livez", &headers).await.status.as_u16(), status, "{case}");
        let known = || request("GET", "/livez", &[("Authorization", BOB)]);
        eventually("GOAWAY", async || client.fetch(known()).await.is_err()).await;
        // The watch goes on.
        create_config_map(&mut rig.admin().await, &format!("m-{status}")).await;
        let mut body = watching.into_body();
        let frame = timeout(Duration::from_secs(5), body.frame()).await.unwrap().unwrap().unwrap();
        assert!(frame.into_data().unwrap().starts_with(b"{\"object\""), "{case}");
    }
    // A known user's connection stays.
    let mut client = Client::connect(&rig.admin_options().with_http2()).await.unwrap();
    for _ in 0..3 {
        assert_eq!(get(&mut client, "/livez", &[]).await.status, 200);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut client = Client::connect(&rig.stranger()).await.unwrap();
    assert_eq!(get(&mut client, "/livez", &[]).await.header("connection"), "close");
}

#[tokio::test]
async fn an_http2_connection_carries_100_streams() {
    let rig = Rig::start("v1.36").await;
    let mut client = Client::connect(&rig.admin_options().with_http2()).await.unwrap();
    let mut watches = Vec::new();
    for _ in 0..MAX_STREAMS {
        watches.push(client.send(request("GET", WATCH, &[])).await.unwrap());
    }
    let mut shared = client.share().unwrap();
    let mut next = tokio::spawn(async move { shared.send(request("GET", "/livez", &[])).await });
    assert!(timeout(Duration::from_millis(500), &mut next).await.is_err(), "the 101st request must wait");
    watches.pop();
    let answer = timeout(Duration::from_secs(5), next).await.unwrap().unwrap().unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn takes_large_headers() {
    let rig = Rig::start("v1.36").await;
    let large = "x".repeat(300 * 1024);
    for options in [rig.admin_options(), rig.admin_options().with_http2()] {
        let mut client = Client::connect(&options).await.unwrap();
        assert_eq!(
            get(&mut client, "/version", &[("X-Large", &large)]).await.status,
            200,
            "{}",
            options.http2
        );
    }
}

#[tokio::test]
async fn records_requests_as_they_arrived() {
    let rig = Rig::start("v1.36").await;
    let mut client = Client::connect(&rig.admin_options().with_http2()).await.unwrap();
    let target = "/api/v1/namespaces/default/pods/a%2Fb?x=1&y=%20;z";
    get(&mut client, target, &[("x-kubernetes-peer-proxied", "true"), ("X-Remote-User", "eve")]).await;
    let requests = rig.standin.requests();
    let [seen] = &requests[..] else { panic!("{requests:?}") };
    assert_eq!(
        (seen.target.as_str(), seen.method.as_str(), seen.version),
        (target, "GET", http::Version::HTTP_2)
    );
    assert!(seen.peer_proxied && seen.client_certificate);
    assert_eq!(seen.headers["x-remote-user"], "eve");
    assert_eq!(seen.user.as_ref().unwrap().name, "kubernetes-admin");
    rig.standin.clear_requests();
    assert!(rig.standin.requests().is_empty());
}

#[tokio::test]
async fn goes_wrong_on_purpose() {
    let rig = Rig::start("v1.36").await;
    let faults = rig.standin.faults();
    for options in [rig.admin_options(), rig.admin_options().with_http2()] {
        let mut client = Client::connect(&options).await.unwrap();
        faults.inject(Fault::InternalError, "/version", 1);
        assert_eq!(get(&mut client, "/version", &[]).await.status, 500);
        faults.inject(Fault::TooManyRequests { retry_after: 7 }, "", 1);
        let answer = get(&mut client, "/version", &[]).await;
        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (429, "7"));
        faults.inject(Fault::Delay(Duration::from_millis(200)), "", 1);
        let begun = Instant::now();
        assert_eq!(get(&mut client, "/version", &[]).await.status, 200);
        assert!(begun.elapsed() >= Duration::from_millis(200));
        faults.inject(Fault::CutBody { after: 10 }, "", 1);
        let mut body = client.send(request("GET", "/version", &[])).await.unwrap().into_body();
        let mut arrived = 0;
        let error = loop {
            match body.frame().await {
                Some(Ok(frame)) => arrived += frame.into_data().unwrap().len(),
                Some(Err(error)) => break Some(error),
                None => break None,
            }
        };
        assert!(error.is_some(), "the body looked whole");
        assert!(arrived <= 10, "{arrived}");
    }
    faults.inject(Fault::Refuse, "", usize::MAX);
    assert!(Client::connect(&rig.admin_options()).await.is_err());
    faults.clear();
    assert_eq!(rig.admin().await.get("/version").await.unwrap().status, 200);
}

#[tokio::test]
async fn stopping_ends_watches_and_dropping_cuts_them() {
    let rig = Rig::start("v1.36").await;
    let mut watch = Watch::start(&rig, WATCH).await;
    let Rig { standin, .. } = rig;
    let begun = Instant::now();
    standin.stop().await.unwrap();
    assert_eq!(watch.next().await, None, "a proper end");
    assert!(begun.elapsed() < Duration::from_secs(4));

    let rig = Rig::start("v1.36").await;
    let mut client = rig.admin().await;
    let mut body = client.send(request("GET", WATCH, &[])).await.unwrap().into_body();
    let address = rig.standin.addr;
    drop(rig);
    let ended = timeout(Duration::from_secs(5), body.frame()).await.unwrap();
    assert!(matches!(ended, Some(Err(_))), "cut, not ended");
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
