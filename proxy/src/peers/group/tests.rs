use std::collections::BTreeMap as Map;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::super::follow::Seen;
use super::super::lease::{ADDRESS_ANNOTATION, HOSTNAME_LABEL, LeaseObject};
use super::*;

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// A Lease that was renewed this many seconds ago.
fn lease(name: &str, hostname: &str, said: &str, seconds_ago: i64) -> Lease {
    let renewed = Timestamp::now() - SignedDuration::from_secs(seconds_ago);
    Lease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(Map::from([(HOSTNAME_LABEL.to_owned(), hostname.to_owned())])),
            annotations: Some(Map::from([(ADDRESS_ANNOTATION.to_owned(), said.to_owned())])),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(format!("{name}_1")),
            lease_duration_seconds: Some(3600),
            renew_time: Some(MicroTime(renewed)),
            ..LeaseSpec::default()
        }),
    }
}

/// As it is read.
fn object(lease: &Lease) -> LeaseObject {
    serde_json::to_value(lease).and_then(serde_json::from_value).expect("a Lease")
}

/// One world to tell the servers of.
struct World {
    statics: Vec<BTreeSet<SocketAddr>>,
    endpoints: Vec<Endpoint>,
    identities: Announcements,
    proxies: Announcements,
    allowed: Vec<IpNet>,
}

impl World {
    /// Slices with these addresses; `=name` behind one says whose it is.
    fn of_slices(addresses: &[&str]) -> Self {
        let endpoint = |text: &&str| match text.split_once('=') {
            Some((text, server)) => {
                Endpoint { address: address(text), server: Some(server.into()), is_own_word: false }
            }
            None => Endpoint { address: address(text), server: None, is_own_word: false },
        };
        Self {
            statics: Vec::new(),
            endpoints: addresses.iter().map(endpoint).collect(),
            identities: Announcements::new(),
            proxies: Announcements::new(),
            allowed: Vec::new(),
        }
    }

    fn identity(mut self, name: &str, hostname: &str, said: &str) -> Self {
        let lease = lease(name, hostname, said, 1);
        self.identities.take(Seen::Object(object(&lease)), Instant::now(), Timestamp::now());
        self
    }

    fn proxy(mut self, name: &str, hostname: &str, said: &str) -> Self {
        let lease = lease(name, hostname, said, 1);
        self.proxies.take(Seen::Object(object(&lease)), Instant::now(), Timestamp::now());
        self
    }

    fn allowing(mut self, network: &str) -> Self {
        self.allowed.push(network.parse().expect("a network"));
        self
    }

    fn list(&self) -> PeerList {
        let rules = Rules {
            is_own: |one: &SocketAddr| *one == address("10.0.0.1:6443"),
            hostname: Some("cp-1"),
            allowed: &self.allowed,
            prefers_v4: true,
            now: Instant::now(),
        };
        rules
            .list(&Sources {
                statics: &self.statics,
                endpoints: &self.endpoints,
                identities: &self.identities,
                proxies: &self.proxies,
            })
            .0
    }

    /// Each peer's addresses, those that only a Lease speaks of marked.
    fn peers(&self) -> Vec<String> {
        let show = |peer: &Peer| format!("{peer}{}", if peer.hinted { "?" } else { "" });
        self.list().peers.iter().map(show).collect()
    }
}

#[test]
fn slices_name_the_servers_and_the_own_one_is_left_out() {
    let world = World::of_slices(&["10.0.0.1:6443", "10.0.0.2:6443", "10.0.0.3:6443"]);
    assert_eq!(world.peers(), ["10.0.0.2:6443", "10.0.0.3:6443"]);
}

#[test]
fn a_server_with_addresses_of_both_kinds_is_one_peer() {
    let named =
        World::of_slices(&["10.0.0.1:6443=a", "[fd00::1]:6443=a", "10.0.0.2:6443=b", "[fd00::2]:6443=b"]);
    assert_eq!(named.peers(), ["10.0.0.2:6443|[fd00::2]:6443"], "the slices say whose they are");

    let nameless =
        || World::of_slices(&["10.0.0.1:6443", "[fd00::1]:6443", "10.0.0.2:6443", "[fd00::2]:6443"]);
    let counted = nameless().identity("one", "cp-1", "").identity("two", "cp-2", "");
    assert_eq!(counted.peers(), ["10.0.0.2:6443"], "there are two API servers");
    let all = ["10.0.0.2:6443", "[fd00::1]:6443", "[fd00::2]:6443"];
    assert_eq!(nameless().peers(), all, "nothing says that they are the same");
    let four = counted.identity("three", "cp-3", "").identity("four", "cp-4", "");
    assert_eq!(four.peers(), all, "there are four API servers");

    let mut statics = World::of_slices(&[]);
    statics.statics.push(BTreeSet::from([address("10.0.0.2:443"), address("[fd00::2]:443")]));
    statics.statics.push(BTreeSet::from([address("10.0.0.3:443"), address("10.0.0.4:443")]));
    assert_eq!(statics.peers(), ["10.0.0.2:443|[fd00::2]:443", "10.0.0.3:443", "10.0.0.4:443"]);
}

#[test]
fn a_lease_only_counts_where_something_else_speaks_for_its_address() {
    let world = || World::of_slices(&["10.0.0.1:6443", "10.0.0.2:6443"]);
    let forged = world().identity("x", "h", "10.66.6.6:6443").proxy("y", "i", "[fd66::6]:6443");
    assert_eq!(forged.peers(), ["10.0.0.2:6443"]);
    assert_eq!(forged.allowing("10.66.0.0/16").peers(), ["10.0.0.2:6443", "10.66.6.6:6443?"]);
    let known = world().identity("x", "cp-2", "10.0.0.2:6443");
    assert_eq!(known.peers(), ["10.0.0.2:6443"]);
    let other_port = world().identity("x", "cp-2", "10.0.0.2:7443");
    assert_eq!(other_port.peers(), ["10.0.0.2:6443|10.0.0.2:7443"], "slices have one port for all servers");
    let many = other_port.identity("y", "cp-3", "10.0.0.2:8443");
    assert_eq!(many.peers(), ["10.0.0.2:6443", "10.0.0.2:7443?", "10.0.0.2:8443?"], "behind one address");
}

#[test]
fn leases_of_the_own_node_are_the_own_server() {
    let world = World::of_slices(&["10.0.0.2:6443"]).allowing("0.0.0.0/0");
    let own = world
        .identity("one", "cp-1", "203.0.113.9:6443")
        .proxy("own", "elsewhere", "10.0.0.1:6443")
        .identity("twin of own", "elsewhere", "203.0.113.8:6443");
    assert_eq!(own.peers(), ["10.0.0.2:6443"]);
}

#[test]
fn an_api_server_and_a_proxy_of_one_node_speak_of_one_server() {
    let world = || World::of_slices(&["10.0.0.2:6443"]).allowing("fd00::/8").allowing("192.168.0.0/16");
    let twins = world().proxy("p", "cp-2", "10.0.0.2:6443").identity("i", "cp-2", "[fd00::2]:6443");
    assert_eq!(twins.peers(), ["10.0.0.2:6443|[fd00::2]:6443"]);
    let elsewhere = world().proxy("p", "cp-9", "192.168.0.9:443").identity("i", "cp-9", "[fd00::9]:6443");
    assert_eq!(elsewhere.peers(), ["10.0.0.2:6443", "192.168.0.9:443|[fd00::9]:6443?"]);
    let three = twins.proxy("q", "cp-2", "192.168.0.2:443");
    assert_eq!(three.peers(), ["10.0.0.2:6443", "192.168.0.2:443?", "[fd00::2]:6443?"], "nobody can say");
}

/// Whoever forges Leases may not merge two servers into one, or take one away.
#[test]
fn forged_leases_take_no_server_away() {
    let world = World::of_slices(&["10.0.0.2:6443", "10.0.0.3:6443"]).allowing("0.0.0.0/0");
    let forged = world
        .identity("a", "cp-1", "10.0.0.3:6443")
        .proxy("b", "cp-1", "10.0.0.2:6443")
        .proxy("c", "cp-2", "10.0.0.2:6443")
        .identity("d", "cp-2", "10.0.0.3:6443");
    assert_eq!(forged.peers(), ["10.0.0.2:6443", "10.0.0.3:6443"]);
}

#[test]
fn ten_thousand_forged_leases_make_sixteen_peers_and_no_more() {
    let mut world = World::of_slices(&["10.0.0.2:6443"]).allowing("10.66.0.0/16");
    for number in 0..10_000_u32 {
        let said = format!("10.66.{}.{}:6443", number / 250, number % 250 + 1);
        world = world.identity(&format!("a{number}"), &format!("h{number}"), &said);
        let other_port = format!("10.0.0.2:{}", number + 10_000);
        world = world.proxy(&format!("b{number}"), "cp-2", &other_port);
    }
    let begin = std::time::Instant::now();
    let peers = world.list().peers;
    assert!(begin.elapsed() < std::time::Duration::from_secs(2), "{:?}", begin.elapsed());
    assert_eq!(peers[0].addresses[0], address("10.0.0.2:6443"));
    assert_eq!(peers.iter().filter(|peer| peer.hinted).count(), 16);
    assert_eq!(peers.len(), 17);
    assert!(peers.iter().all(|peer| peer.addresses.len() <= 4));
}

#[test]
fn a_lease_tells_that_its_server_was_started_anew() {
    let mut world = World::of_slices(&["10.0.0.2:6443"]).identity("i", "cp-2", "10.0.0.2:6443");
    let first = world.list();
    let mut renewed = lease("i", "cp-2", "10.0.0.2:6443", 0);
    world.identities.take(Seen::Object(object(&renewed)), Instant::now(), Timestamp::now());
    assert_eq!(world.list(), first, "a renewal is no news");
    renewed.spec.as_mut().expect("a spec").holder_identity = Some("i_2".to_owned());
    world.identities.take(Seen::Object(object(&renewed)), Instant::now(), Timestamp::now());
    let second = world.list();
    assert_ne!(second.peers[0].incarnation, first.peers[0].incarnation);
    assert_eq!(second.others, first.others);

    let unknown = World::of_slices(&["10.0.0.2:6443"]).identity("j", "cp-7", "");
    assert_ne!(unknown.list().others, first.others, "of whom nobody knows who it is");
}
