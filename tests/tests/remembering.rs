//! A proxy that starts while peers are down still knows what they serve.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod site_support;
mod support;

use std::path::Path;
use std::time::{Duration, SystemTime};

use mvproxy_tests::standin::Documents;
use site_support::{Log, Site, known, knows};
use support::{BOTH, Http, Proxy, aggregated, bounded, ensure, eventually, only_new_serves};
use tokio::time::sleep;

fn load(name: &str) -> Documents {
    Documents::load(name).unwrap()
}

/// Lets a proxy write down what it knows, and ends it.
async fn written_by(site: &Site, state: &str) {
    let mut proxy = site.proxy(&[state]);
    knows(&proxy, &[site.peer_address(0)]).await;
    let path = file(state);
    eventually("what is known is written down", async || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let resource = only_new_serves().resource;
        ensure(text.contains(&resource), || format!("{} bytes", text.len()))
    })
    .await;
    proxy.drain();
    proxy.ended().await.unwrap();
}

fn file(state: &str) -> String {
    format!("{}/peers.json", state.split_once('=').unwrap().1)
}

async fn list(site: &Site, proxy: &Proxy) -> mvproxy_tests::client::Answer {
    site.admin().get(proxy.address, Http::Two, &only_new_serves().path()).await
}

#[test]
fn what_only_a_peer_serves_that_is_down_is_unavailable_and_not_unknown_after_a_restart() {
    bounded(async {
        let site = Site::start(load("v1.34")).await;
        let peer = site.peer(0, load("v1.36-all")).await;
        let state = format!("--state-dir={}", site.folder("state"));
        written_by(&site, &state).await;
        // In order: neither slice nor Lease speaks of it any more.
        peer.stop().await.unwrap();

        let proxy = site.proxy(&[&state]);
        proxy.ready().await;
        let begin = std::time::Instant::now();
        while begin.elapsed() < Duration::from_secs(2) {
            for http in BOTH {
                let answer = site.admin().get(proxy.address, http, &only_new_serves().path()).await;
                assert_eq!(answer.status, 503, "{}", answer.text());
                assert_eq!(answer.header("retry-after"), "1");
            }
            sleep(Duration::from_millis(50)).await;
        }
        let merged = site.admin().ask(proxy.address, Http::Two, aggregated("/apis")).await;
        assert!(merged.text().contains(&only_new_serves().resource), "it is listed too");
        assert_eq!(known(&proxy).await, [site.peer_address(0).to_string()]);

        let _back = site.peer(0, load("v1.36-all")).await;
        eventually("it is back", async || {
            let answer = list(&site, &proxy).await;
            ensure(answer.status == 200, || answer.text())
        })
        .await;
    });
}

#[test]
fn without_memory_a_peer_that_nobody_speaks_of_is_not_known() {
    bounded(async {
        let site = Site::start(load("v1.34")).await;
        let peer = site.peer(0, load("v1.36-all")).await;
        let state = format!("--state-dir={}", site.folder("state"));
        written_by(&site, &state).await;
        peer.stop().await.unwrap();
        let proxy = site.proxy(&["--state-dir="]);
        proxy.ready().await;
        assert_eq!(list(&site, &proxy).await.status, 404);
    });
}

#[test]
fn a_remembered_peer_is_forgotten_when_it_was_silent_for_too_long() {
    bounded(async {
        let site = Site::start(load("v1.34")).await;
        let peer = site.peer(0, load("v1.36-all")).await;
        let state = format!("--state-dir={}", site.folder("state"));
        written_by(&site, &state).await;
        peer.stop().await.unwrap();
        let proxy = site.proxy(&[&state, "--peer-stale-after=4s"]);
        proxy.ready().await;
        assert_eq!(list(&site, &proxy).await.status, 503);
        eventually("it is forgotten", async || {
            let answer = list(&site, &proxy).await;
            ensure(answer.status == 404, || answer.text())
        })
        .await;
    });
}

#[test]
fn files_that_cannot_be_believed_are_left_out_with_a_warning_and_replaced() {
    bounded(async {
        let (log, _listening) = Log::listen();
        let site = Site::start(load("v1.34")).await;
        let peer = site.peer(0, load("v1.36-all")).await;
        let state = format!("--state-dir={}", site.folder("state"));
        written_by(&site, &state).await;
        let path = file(&state);
        let good = std::fs::read(&path).unwrap();
        peer.stop().await.unwrap();
        for (number, bytes) in [&good[..good.len() / 2], b"{}", b""].into_iter().enumerate() {
            std::fs::write(&path, bytes).unwrap();
            let proxy = site.proxy(&[&state]);
            proxy.ready().await;
            assert_eq!(list(&site, &proxy).await.status, 404, "nothing is known");
            assert_eq!(log.lines(&["--state-dir", "not used"]).len(), number + 1);
        }
        // Another API server's, as when a folder was copied along with a disk.
        std::fs::write(&path, &good).unwrap();
        let other = site.proxy(&[&state, "--peer-advertise-ip=192.0.2.1"]);
        other.ready().await;
        assert_eq!(log.lines(&["--state-dir", "another node"]).len(), 1);

        let _back = site.peer(0, load("v1.36-all")).await;
        std::fs::write(&path, b"rubbish").unwrap();
        let written = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let proxy = site.proxy(&[&state]);
        knows(&proxy, &[site.peer_address(0)]).await;
        eventually("a good one replaces it", async || {
            let text = written(&path);
            ensure(text.contains(&only_new_serves().resource), || format!("{} bytes", text.len()))
        })
        .await;
    });
}

#[test]
fn a_folder_that_cannot_be_written_stops_nothing() {
    bounded(async {
        let (log, _listening) = Log::listen();
        let site = Site::start(load("v1.34")).await;
        let _peer = site.peer(0, load("v1.36-all")).await;
        // A file where a folder should be: root may write into any folder.
        let folder = site.folder("occupied");
        std::fs::write(&folder, "").unwrap();
        let proxy = site.proxy(&[&format!("--state-dir={folder}/state")]);
        knows(&proxy, &[site.peer_address(0)]).await;
        assert_eq!(list(&site, &proxy).await.status, 200);
        eventually("it is said", async || {
            let said = log.lines(&["--state-dir", "cannot be kept"]);
            ensure(said.len() == 1, || format!("{said:?}"))
        })
        .await;
    });
}

/// When peers were heard is written even if nothing else changes, so that a quiet hour does not make a memory too old.
#[test]
fn the_time_at_which_peers_were_heard_is_written() {
    bounded(async {
        let site = Site::start(load("v1.34")).await;
        let _peer = site.peer(0, load("v1.36-all")).await;
        let state = format!("--state-dir={}", site.folder("state"));
        let before = SystemTime::now();
        written_by(&site, &state).await;
        let text = std::fs::read_to_string(file(&state)).unwrap();
        let (_, content) = text.split_once('\n').unwrap();
        let content: serde_json::Value = serde_json::from_str(content).unwrap();
        let heard = content["peers"][0]["heard"].as_u64().unwrap();
        let since = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
        assert!(u128::from(heard) + 1000 >= since(before) && u128::from(heard) <= since(SystemTime::now()));
        assert!(Path::new(&file(&state)).metadata().unwrap().len() < 10_000_000);
    });
}

/// Nobody says who the peers are while the local server is down. What answers all the while is there.
#[test]
fn a_remembered_peer_that_answers_stays_while_nobody_can_say_who_the_peers_are() {
    bounded(async {
        let mut site = Site::start(load("v1.34")).await;
        let peer = site.peer(0, load("v1.36-all")).await;
        let state = format!("--state-dir={}", site.folder("state"));
        written_by(&site, &state).await;
        drop(site.local.take());

        // Longer than it takes a busy machine to get this far: what is older is not even remembered.
        let proxy = site.proxy(&[&state, "--peer-stale-after=5s"]);
        let core = "/api/v1/namespaces/default/configmaps";
        let status = async || site.admin().get(proxy.address, Http::Two, core).await.status.as_u16();
        eventually("the peer stands in", async || {
            let status = status().await;
            ensure(status == 200, || status.to_string())
        })
        .await;
        let begin = std::time::Instant::now();
        while begin.elapsed() < Duration::from_secs(7) {
            assert_eq!(status().await, 200, "after {:?}", begin.elapsed());
            assert_eq!(known(&proxy).await, [site.peer_address(0).to_string()], "{:?}", begin.elapsed());
            sleep(Duration::from_millis(100)).await;
        }
        drop(peer);
    });
}
