//! Puts attackers before proxies, and looks at what API servers got.

use mvproxy_tests::pki::Pki;
use mvproxy_tests::standin::RecordedRequest;

use super::support::{Caller, Cluster, Proxy, ProxyOptions, both_serve, only_new_serves};
use super::wire::{Seen, Wire, WireRequest};

/// A cluster, and a proxy before a server that is strict about HTTP/1.1.
pub struct Site {
    cluster: Cluster,
    wire: Wire,
    wire_proxy: Proxy,
    wire_pki: Pki,
}

/// Which API server a request is meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The local stand-in: HTTP/2, for anonymous clients HTTP/1.1.
    Local,
    /// The peer.
    Rerouted,
    /// A strict server; HTTP/1.1 for everybody.
    Wire,
}

const PLACES: [Place; 3] = [Place::Local, Place::Rerouted, Place::Wire];

/// Who attacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Nobody,
    /// With a token.
    Bob,
    /// With a certificate: her requests go upstream where X-Remote-User is believed.
    Alice,
}

const EVERYBODY: [Who; 3] = [Who::Nobody, Who::Bob, Who::Alice];

/// One request that arrived at whichever server.
#[derive(Debug)]
struct Arrived {
    target: String,
    /// Names in lower case.
    headers: Vec<(String, Vec<u8>)>,
    is_whole: bool,
}

/// What should arrive.
#[derive(Clone, Copy, Debug)]
pub enum Arrives {
    Nothing,
    /// One request, cleaned.
    One,
    /// At most the beginning of one.
    Part,
}

/// Something that was tried once.
pub struct Tried {
    pub what: &'static str,
    pub who: Who,
    pub place: Place,
    /// Part of the target.
    pub mark: String,
    pub arrives: Arrives,
    /// What is wrong with the answer.
    pub wrong: Option<String>,
}

/// Everybody, everywhere.
pub fn ways() -> impl Iterator<Item = (Who, Place)> {
    EVERYBODY.into_iter().flat_map(|who| PLACES.map(|place| (who, place)))
}

/// A query by which a request is told from all others.
pub fn mark(row: usize, who: Who, place: Place) -> String {
    format!("?n={row}{who:?}{place:?}.")
}

impl Site {
    pub async fn start() -> Self {
        let cluster = Cluster::start().await;
        for node in [&cluster.old, &cluster.new] {
            node.standin.clear_requests();
        }
        let wire_pki = Pki::generate().unwrap();
        let serving = wire_pki.serving("wire", [127, 0, 0, 1].into()).unwrap();
        let wire = Wire::start(&serving).await;
        let (pki, local) = (&wire_pki, wire.address);
        let options = ProxyOptions {
            pki,
            serving: &serving,
            local,
            peers: &[],
            flags: &["--watch-continuation=false"],
        };
        let wire_proxy = Proxy::start(&options);
        Self { cluster, wire, wire_proxy, wire_pki }
    }

    pub fn caller(&self, who: Who, place: Place) -> Caller {
        let pki = if place == Place::Wire { &self.wire_pki } else { &self.cluster.pki };
        match who {
            Who::Nobody => Caller::nobody(pki),
            Who::Bob => Caller::bob(pki),
            Who::Alice => Caller::alice(pki),
        }
    }

    pub fn address(&self, place: Place) -> std::net::SocketAddr {
        match place {
            Place::Local | Place::Rerouted => self.cluster.old.proxy.address,
            Place::Wire => self.wire_proxy.address,
        }
    }

    /// A path that leads there.
    pub fn path(place: Place) -> String {
        match place {
            Place::Local => both_serve().path(),
            Place::Rerouted => only_new_serves().path(),
            // Nobody has to be known to serve it.
            Place::Wire => "/version".to_owned(),
        }
    }

    /// Checks all that arrived against all that was tried.
    #[track_caller]
    pub fn judge(&self, tried: &[Tried]) {
        let arrived = self.arrived();
        let mut wrong = Vec::new();
        for Tried { what, who, place, mark, arrives, wrong: answer } in tried {
            let what = format!("{what} as {who:?} to {place:?}");
            let mine: Vec<_> = arrived.iter().filter(|request| request.target.contains(mark)).collect();
            for request in &mine {
                request.assert_clean(*who, &what);
            }
            let whole = mine.iter().filter(|request| request.is_whole).count();
            let is_right = match arrives {
                Arrives::Nothing => mine.is_empty(),
                Arrives::One => mine.len() == 1 && whole == 1,
                // A stand-in records requests when they begin.
                Arrives::Part => mine.len() <= 1 && (*place != Place::Wire || whole == 0),
            };
            wrong.extend(answer.iter().map(|answer| format!("{what}: {answer}")));
            if !is_right {
                wrong.push(format!("{what}: {arrives:?} should arrive, not {mine:?}"));
            }
        }
        let known = |target: &str| tried.iter().any(|one| target.contains(&one.mark));
        let strays = arrived.iter().filter(|request| !known(&request.target));
        wrong.extend(strays.map(|stray| format!("nobody may ask for this: {stray:?}")));
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    /// What arrived anywhere, without what the proxies ask for themselves.
    #[track_caller]
    fn arrived(&self) -> Vec<Arrived> {
        let nodes = [&self.cluster.old, &self.cluster.new].into_iter();
        let requests = nodes.flat_map(|node| node.standin.requests());
        let mut all: Vec<Arrived> = requests.filter(|one| !is_the_proxys_own(one)).map(recorded).collect();
        for seen in self.wire.take() {
            match seen {
                Seen::Request(request) => all.push(on_the_wire(request)),
                Seen::Ambiguous(why, bytes) => panic!("{why}: {bytes:?}"),
            }
        }
        all
    }
}

fn is_the_proxys_own(request: &RecordedRequest) -> bool {
    request.headers.get("user-agent").is_some_and(|agent| agent.as_bytes().starts_with(b"mvproxy/"))
}

fn recorded(request: RecordedRequest) -> Arrived {
    let headers = request.headers.iter();
    let headers =
        headers.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect();
    Arrived { target: request.target, headers, is_whole: true }
}

fn on_the_wire(request: WireRequest) -> Arrived {
    assert_eq!(request.values("host").len(), 1, "{request:?}");
    let headers = request.headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value));
    Arrived { target: request.target, headers: headers.collect(), is_whole: request.is_whole }
}

impl Arrived {
    /// Nothing in the headers that the proxy did not earn for this client, or that belongs to another connection.
    #[track_caller]
    fn assert_clean(&self, who: Who, what: &str) {
        for (name, value) in &self.headers {
            let value = String::from_utf8_lossy(value);
            let is_own = matches!(
                (who, name.as_str(), &*value),
                (Who::Alice, "x-remote-user", "alice") | (Who::Alice, "x-remote-group", "dev" | "ops")
            ) || (who == Who::Alice
                && name == "x-remote-extra-authentication.kubernetes.io%2fcredential-id"
                && value.starts_with("X509SHA256="));
            let folded = name.replace('_', "-");
            assert!(is_own || !folded.starts_with("x-remote-"), "{what}: {self:?}");
            assert!(name != "upgrade" || value == "spdy/3.1", "{what}: {self:?}");
            let ends_here = ["keep-alive", "proxy-connection", "http2-settings", "trailer", "expect"];
            assert!(!ends_here.contains(&&*folded), "{what}: {self:?}");
        }
        let count = |name: &str| self.headers.iter().filter(|(found, _)| found == name).count();
        assert_eq!(count("x-remote-user"), usize::from(who == Who::Alice), "{what}: {self:?}");
        assert_eq!(count("authorization"), usize::from(who == Who::Bob), "{what}: {self:?}");
        assert!(count("content-length") <= 1 && count("cookie") <= 1, "{what}: {self:?}");
    }
}
