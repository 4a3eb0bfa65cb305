//! The proxy finds the other API servers by itself, takes each for one, and believes nobody who only says so.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod site_support;
mod support;

use std::time::{Duration, Instant};

use mvproxy_tests::standin::{Documents, Fault};
use mvproxy_tests::store::Key;
use site_support::{Log, Site, Trap, known, knows, lease, questions};
use support::{Http, aggregated, bounded, ensure, eventually, only_new_serves};

const SECOND: Duration = Duration::from_secs(1);

fn load(name: &str) -> Documents {
    Documents::load(name).unwrap()
}

#[test]
fn servers_are_found_by_their_endpoint_slices_and_oneself_is_not_among_them() {
    bounded(async {
        let site = Site::start(load("v1.34")).await;
        let _peers = (site.peer(0, load("v1.36-all")).await, site.peer(1, load("v1.35")).await);
        let proxy = site.proxy(&[]);
        knows(&proxy, &[site.peer_address(0), site.peer_address(1)]).await;
        proxy.ready().await;
        let answer = site.admin().get(proxy.address, Http::Two, &only_new_serves().path()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());

        let third = site.peer(2, load("v1.36")).await;
        let all = [0, 1, 2].map(|number| site.peer_address(number));
        knows(&proxy, &all).await;
        drop(third);
    });
}

#[test]
fn a_server_with_addresses_of_both_kinds_is_asked_as_one() {
    bounded(async {
        let site = Site::start(load("v1.34")).await;
        let peer = site.peer(0, load("v1.36-all")).await;
        let v6 = std::net::SocketAddr::new("::1".parse().unwrap(), site.port);
        let objects = site.objects();
        // The servers' own slice has no names.
        objects.delete(&Key::new("discovery.k8s.io", "endpointslices", "default", "kubernetes")).await;
        let v4 = site.peer_address(0);
        objects
            .put_slice("four", "IPv4", &[(site.local_address(), Some("local")), (v4, Some("peer0"))])
            .await;
        objects.put_slice("six", "IPv6", &[(v6, Some("peer0"))]).await;
        // ::1 would be taken for the proxy's own, if the secure port were its own too.
        let proxy = site.proxy_of(site.local_address(), &[], &["--secure-port=1"]);
        knows(&proxy, &[v4]).await;
        assert_eq!(proxy.metrics().await.values("mvproxy_peer_discovery_stale", "peer").len(), 1);

        // The other address stands in when the first does not answer: here, the other way round.
        objects.put_slice("four", "IPv4", &[(site.local_address(), Some("local"))]).await;
        objects.put_slice("two", "IPv6", &[(v6, Some("peer0"))]).await;
        objects.put_slice("dead", "IPv4", &[("127.0.0.99:1".parse().unwrap(), Some("peer0"))]).await;
        objects.put_slice("alive", "IPv4", &[(v4, Some("peer0"))]).await;
        knows(&proxy, &[v4]).await;
        drop(peer);
    });
}

#[test]
fn a_server_that_only_a_lease_names_is_asked_where_that_is_allowed() {
    bounded(async {
        let site = Site::start(load("v1.34")).await;
        let objects = site.objects();
        // As behind addresses that no slice has.
        let peer = site.peer(0, load("v1.36-all")).await;
        objects.delete(&Key::new("discovery.k8s.io", "endpointslices", "default", "kubernetes")).await;
        objects.put_slice("own", "IPv4", &[(site.local_address(), None)]).await;
        let (allowing, strict) = (site.proxy(&["--peer-allowed-cidrs=127.0.0.2/32"]), site.proxy(&[]));
        knows(&allowing, &[site.peer_address(0)]).await;
        strict.ready().await;
        let answer = site.admin().get(strict.address, Http::Two, &only_new_serves().path()).await;
        assert_eq!(answer.status, 404, "nobody else is accounted for: {}", answer.text());
        assert!(known(&strict).await.is_empty());
        drop(peer);
    });
}

#[test]
fn proxies_tell_each_other_where_to_dial() {
    bounded(async {
        let site = Site::start(load("v1.34")).await;
        let peer = site.peer(0, load("v1.35")).await;
        let objects = site.objects();
        // Without an annotation, as before 1.36: only the proxy before it can say where it is.
        objects.delete(&Key::new("discovery.k8s.io", "endpointslices", "default", "kubernetes")).await;
        objects.put_slice("own", "IPv4", &[(site.local_address(), None)]).await;
        let port = site.port;
        let advertised = format!("--peer-advertise-port={port}");
        let flags = ["--peer-allowed-cidrs=127.0.0.0/24", advertised.as_str()];
        let own = [&flags[..], &["--peer-advertise-ip=127.0.0.1"]].concat();
        let others = [&flags[..], &["--peer-advertise-ip=127.0.0.2", "--secure-port=1"]].concat();
        let one = site.proxy(&own);
        let mut two = site.proxy_of(site.peer_address(0), &[], &others);
        knows(&one, &[site.peer_address(0)]).await;
        knows(&two, &[site.local_address()]).await;

        let leases = objects.proxy_leases().await;
        assert_eq!(leases.len(), 2, "{leases:?}");
        for lease in &leases {
            assert_eq!(lease["spec"]["leaseDurationSeconds"], 60);
            let renewed = lease["spec"]["renewTime"].as_str().unwrap();
            assert_eq!(renewed.len(), "2026-01-01T00:00:00.000000Z".len(), "{renewed}");
            assert!(lease["metadata"]["labels"]["kubernetes.io/hostname"].is_string());
        }
        two.drain();
        two.ended().await.unwrap();
        let leases = objects.proxy_leases().await;
        let held = leases.iter().filter(|lease| lease["spec"]["holderIdentity"].is_string());
        let held: Vec<_> = held
            .map(|lease| &lease["metadata"]["annotations"]["kubernetes.io/peer-advertise-address"])
            .collect();
        assert_eq!(held, [&format!("127.0.0.1:{port}")], "who leaves lets go of its Lease");
        drop(peer);
    });
}

#[test]
fn without_the_right_to_read_leases_slices_are_enough() {
    bounded(async {
        let site = Site::start(load("v1.34")).await;
        let _peer = site.peer(0, load("v1.36-all")).await;
        site.local.as_ref().unwrap().faults().inject(Fault::Forbidden, "/leases", usize::MAX);
        let proxy = site.proxy(&["--peer-advertise-ip=192.0.2.1"]);
        knows(&proxy, &[site.peer_address(0)]).await;
        let metrics = proxy.metrics().await;
        let labels = [("type", "lease_list"), ("reason", "forbidden")];
        let denials = metrics.sum("apiserver_peer_discovery_sync_errors_total", &labels);
        assert!((1..=2).contains(&denials), "{denials}: not again and again");
    });
}

#[test]
fn peers_that_are_listed_are_found_although_the_api_server_was_away_at_first() {
    bounded(async {
        let mut site = Site::start(load("v1.34")).await;
        let _peer = site.peer(0, load("v1.36-all")).await;
        let local = site.local.take().unwrap();
        local.faults().inject(Fault::InternalError, "endpointslices", 3);
        let proxy = site.proxy(&[]);
        knows(&proxy, &[site.peer_address(0)]).await;
        drop(local);
    });
}

#[test]
fn ten_thousand_forged_leases_cause_no_connection_and_no_storm() {
    bounded(async {
        let site = Site::start(load("v1.34")).await;
        let peer = site.peer(0, load("v1.36-all")).await;
        let (trap, beside) = (Trap::at("127.0.0.77:0").await, Trap::at("127.0.0.2:0").await);
        let proxy = site.proxy(&["--discovery-interval=1s"]);
        knows(&proxy, &[site.peer_address(0)]).await;
        let objects = site.objects();
        let (before, begin) = (questions(&peer), Instant::now());
        for number in 0..10_000 {
            let (name, host) = (format!("forged{number}"), format!("host{number}"));
            // Elsewhere; beside a real server; a real server's own; nowhere; in a namespace where anybody may write.
            let (namespace, address) = match number % 5 {
                0 => ("kube-system", trap.address.to_string()),
                1 => ("kube-system", beside.address.to_string()),
                2 => ("kube-system", site.peer_address(0).to_string()),
                3 => ("kube-system", String::new()),
                _ => ("default", trap.address.to_string()),
            };
            objects.put_lease(namespace, lease(&name, &host, &address, Duration::ZERO)).await;
            if number % 500 == 0 {
                tokio::task::yield_now().await;
            }
        }
        let flooded = begin.elapsed();
        // Until all of them have been seen, and longer.
        let answer = site.admin().get(proxy.address, Http::Two, &only_new_serves().path()).await;
        assert_eq!(answer.status, 200, "requests are served all the while: {}", answer.text());
        tokio::time::sleep(3 * SECOND).await;
        assert_eq!(trap.visits(), 0, "connections to where nobody but a Lease points");
        assert!(beside.visits() <= 3, "{} connections beside a real server", beside.visits());
        let asked = questions(&peer) - before;
        let seconds = usize::try_from(begin.elapsed().as_secs()).unwrap() + 1;
        // Two questions a round: one round each second, and at most one more each second, after a first few.
        assert!(asked <= 2 * (2 * seconds + 9), "{asked} questions in {seconds} s, flooded for {flooded:?}");
        assert_eq!(known(&proxy).await, [site.peer_address(0).to_string()]);
    });
}

#[test]
fn forged_leases_in_an_allowed_network_are_tried_a_few_at_a_time_and_held_against_nobody() {
    bounded(async {
        let site = Site::start(load("v1.34")).await;
        let peer = site.peer(0, load("v1.36-all")).await;
        let trap = Trap::at("0.0.0.0:0").await;
        let objects = site.objects();
        for number in 0..1000 {
            let address = format!("127.0.{}.{}:{}", 80 + number / 250, number % 250 + 1, trap.address.port());
            let lease = lease(&format!("forged{number}"), &format!("host{number}"), &address, Duration::ZERO);
            objects.put_lease("kube-system", lease).await;
        }
        let proxy = site.proxy(&["--peer-allowed-cidrs=127.0.80.0/20", "--discovery-interval=1s"]);
        knows(&proxy, &[site.peer_address(0)]).await;
        eventually("some are tried", async || ensure(trap.visits() > 0, || "none is".to_owned())).await;
        proxy.ready().await;
        let answer = site.admin().get(proxy.address, Http::Two, "/apis/no.such/v1/things").await;
        assert_eq!(answer.status, 404, "their silence makes nothing uncertain: {}", answer.text());
        tokio::time::sleep(2 * SECOND).await;
        assert!(trap.visits() <= 48, "{} connections", trap.visits());
        assert_eq!(proxy.metrics().await.values("mvproxy_peer_discovery_stale", "peer").len(), 1);
        drop(peer);
    });
}

/// A Lease that was not renewed for its time names nobody.
#[test]
fn a_lease_that_ran_out_names_nobody() {
    bounded(async {
        let site = Site::start(load("v1.34")).await;
        let peer = site.peer(0, load("v1.36-all")).await;
        let (live, dead) = (Trap::at("127.0.0.78:0").await, Trap::at("127.0.0.79:0").await);
        let objects = site.objects();
        for (trap, ago) in [(&live, 0), (&dead, 3700)] {
            let address = trap.address.to_string();
            let ago = Duration::from_secs(ago);
            objects
                .put_lease("kube-system", lease(&format!("at{}", trap.address.port()), "h", &address, ago))
                .await;
        }
        let proxy = site.proxy(&["--peer-allowed-cidrs=127.0.0.78/31"]);
        knows(&proxy, &[site.peer_address(0)]).await;
        eventually("the other one is tried", async || ensure(live.visits() > 0, || "not yet".to_owned()))
            .await;
        assert_eq!(dead.visits(), 0);
        drop(peer);
    });
}

/// Whom only a Lease names is asked less and less often while it is silent. That ends when a slice names it too.
#[test]
fn a_server_that_a_lease_named_while_it_was_down_is_asked_at_once_when_a_slice_names_it() {
    bounded(async {
        let site = Site::start(load("v1.34")).await;
        let address = site.peer_address(0).to_string();
        site.objects().put_lease("kube-system", lease("apiserver-x", "x", &address, Duration::ZERO)).await;
        let proxy = site.proxy(&["--peer-allowed-cidrs=127.0.0.2/32", "--discovery-interval=500ms"]);
        proxy.ready().await;
        let labels = [("type", "fetch_discovery"), ("reason", "not_reached")];
        eventually("it was asked in vain a few times", async || {
            let failures = proxy.metrics().await.sum("apiserver_peer_discovery_sync_errors_total", &labels);
            ensure(failures >= 4, || failures.to_string())
        })
        .await;
        // The next time would be four seconds later.
        let _peer = site.peer(0, load("v1.36-all")).await;
        let begin = Instant::now();
        knows(&proxy, &[site.peer_address(0)]).await;
        assert!(begin.elapsed() < 2 * SECOND, "{:?}", begin.elapsed());
    });
}

/// What one of them said before it was killed is not forgotten.
#[test]
fn two_that_leases_named_and_that_a_slice_calls_one_server_have_what_either_served() {
    bounded(async {
        let (log, _listening) = Log::listen();
        let site = Site::start(load("v1.34")).await;
        let peer = site.peer(0, load("v1.36-all")).await;
        let (alive, dead) = (site.peer_address(0), site.peer_address(7));
        let objects = site.objects();
        objects.delete(&Key::new("discovery.k8s.io", "endpointslices", "default", "kubernetes")).await;
        objects.put_slice("own", "IPv4", &[(site.local_address(), None)]).await;
        for (name, address) in [("a", dead), ("b", alive)] {
            let lease = lease(name, &format!("host-{name}"), &address.to_string(), Duration::ZERO);
            objects.put_lease("kube-system", lease).await;
        }
        let proxy = site.proxy(&["--peer-allowed-cidrs=127.0.0.0/24"]);
        knows(&proxy, &[alive]).await;
        drop(peer);
        objects.put_slice("one", "IPv4", &[(dead, Some("one")), (alive, Some("one"))]).await;
        eventually("both are listed", async || {
            let said = log.lines(&["peer list", &alive.ip().to_string()]);
            ensure(!said.is_empty(), || "not yet".to_owned())
        })
        .await;
        knows(&proxy, &[alive]).await;
        let merged = site.admin().ask(proxy.address, Http::Two, aggregated("/apis")).await;
        assert!(merged.text().contains(&only_new_serves().resource));
    });
}

/// Its author wants all others not to be read.
#[test]
fn a_lease_that_cannot_be_read_hides_no_other() {
    bounded(async {
        let (log, _listening) = Log::listen();
        let site = Site::start(load("v1.34")).await;
        let trap = Trap::at("127.0.0.78:0").await;
        let (mut bad, address) = (lease("bad", "h", "", Duration::ZERO), trap.address.to_string());
        bad["spec"]["renewTime"] = "9999-12-31T23:59:59.000000Z".into();
        site.objects().put_lease("kube-system", bad).await;
        site.objects().put_lease("kube-system", lease("good", "i", &address, Duration::ZERO)).await;
        let _proxy = site.proxy(&["--peer-allowed-cidrs=127.0.0.78/32"]);
        eventually("the other is read", async || ensure(trap.visits() > 0, || "not yet".to_owned())).await;
        assert_eq!(log.lines(&["Leases", "not readable"]), Vec::<String>::new());
    });
}

#[test]
fn a_slice_with_thousands_of_addresses_is_told_of_and_hides_no_server() {
    bounded(async {
        let (log, _listening) = Log::listen();
        let site = Site::start(load("v1.34")).await;
        // Addresses of all others are smaller.
        let _peer = site.peer(250, load("v1.36-all")).await;
        for slice in 0..20_u16 {
            let address = |host| std::net::SocketAddr::from(([127, 0, 0, host], 1 + slice));
            let many = (2..252).map(|host| (address(host), None));
            site.objects().put_slice(&format!("a{slice}"), "IPv4", &many.collect::<Vec<_>>()).await;
        }
        let proxy = site.proxy(&[]);
        eventually("it is told of", async || {
            let told = log.lines(&["more API servers", "left_out"]);
            ensure(told.len() == 1, || format!("{told:?}"))
        })
        .await;
        eventually("the peer is known", async || {
            let status = site.admin().get(proxy.address, Http::Two, &only_new_serves().path()).await.status;
            ensure(status == 200, || status.to_string())
        })
        .await;
    });
}
