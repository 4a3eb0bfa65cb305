//! The server's connection to itself, and what happens when somebody else answers it.

use mvproxy_tests::client::{Client, ClientOptions, Trust};
use mvproxy_tests::standin::{LOOPBACK_SERVER_NAME, Standin, StandinOptions};
use mvproxy_tests::store::Store;

use super::{Rig, eventually, get};

#[tokio::test]
async fn a_server_reaches_itself_again_and_again() {
    let rig = Rig::start("v1.36").await;
    eventually("a third connection", async || rig.standin.loopback_successes() >= 3).await;
    assert_eq!(rig.standin.loopback_failures(), 0);
    assert!(rig.standin.requests().is_empty(), "its own requests are not recorded");
}

#[tokio::test]
async fn only_the_server_itself_can_show_the_loopback_certificate() {
    let rig = Rig::start("v1.36").await;
    let options = ClientOptions { server_name: LOOPBACK_SERVER_NAME.to_owned(), ..rig.stranger() };
    let error = Client::connect(&options).await.err().expect("the loopback certificate is signed by no CA");
    assert!(format!("{error:#}").contains("UnknownIssuer"), "{error:#}");
}

#[tokio::test]
async fn an_impostor_on_the_port_breaks_the_server() {
    let rig = Rig::start("v1.36-all").await;
    let options = StandinOptions::from_pki(&rig.pki, "node-b", "v1.36-all", &Store::in_memory()).unwrap();
    let broken = StandinOptions { loopback: Some(rig.standin.addr), ..options };
    let broken = Standin::start(broken).await.unwrap();
    assert_eq!(broken.loopback_failures(), 1, "noticed at the start");
    eventually("a second failure", async || broken.loopback_failures() >= 2).await;
    let options = ClientOptions::new(broken.addr, Trust::Ca(rig.pki.ca_pem().to_owned()));
    let mut client = Client::connect(&options).await.unwrap();
    let answer = get(&mut client, "/readyz", &[]).await;
    assert_eq!(answer.status, 500);
    assert!(
        answer.text().contains("[-]loopback failed: reason withheld\nreadyz check failed\n"),
        "{}",
        answer.text()
    );
    let mut client = Client::connect(&options).await.unwrap();
    assert_eq!(get(&mut client, "/livez", &[]).await.status, 200);
}
