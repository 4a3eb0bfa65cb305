//! Lists every flag of `mvproxy run` once; command line, `--config` file and manifest all read by this table.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::Path;

/// Whether a flag holds one value or a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arity {
    /// The last one given wins.
    One,
    /// Commas separate, repeating adds.
    Many,
    /// Repeating adds; commas are part of the value.
    Each,
}

/// One flag.
#[derive(Debug)]
pub(super) struct FlagSpec {
    /// Name without dashes, kube-apiserver's where it has the flag.
    pub(super) name: &'static str,
    /// Stands for the value in `--help`.
    pub(super) placeholder: &'static str,
    pub(super) arity: Arity,
    /// Heading in `--help`.
    pub(super) heading: &'static str,
    /// Whether `--apiserver-manifest` may provide it.
    pub(super) in_manifest: bool,
    pub(super) help: &'static str,
}

/// The flag called `name`.
pub(super) fn find(name: &str) -> Option<&'static FlagSpec> {
    FLAGS.iter().find(|flag| flag.name == name)
}

/// The one feature gate, as kube-apiserver spells it (KEP-4020).
pub(super) const GATE: &str = "UnknownVersionInteroperabilityProxy";

/// What has to outlive the process, and a reboot: the peers may be down when the node comes back.
pub(super) const STATE_DIR: &str = "/var/lib/mvproxy";

/// The folder that the kernel objects are pinned in, shared with nobody.
pub(super) const BPFFS_DIR: &str = "/sys/fs/bpf/mvproxy";

/// Threads when `--workers` is absent: the cores, but no more than four.
pub(super) fn default_workers() -> NonZeroUsize {
    let most = NonZeroUsize::MIN.saturating_add(3);
    std::thread::available_parallelism().map_or(NonZeroUsize::MIN, |cores| cores.min(most))
}

/// All addresses: a dual-stack listener, or IPv4 where the kernel runs without IPv6.
pub(super) fn default_listen() -> SocketAddr {
    let has_ipv6 = Path::new("/proc/net/if_inet6").exists();
    let all: IpAddr = if has_ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    SocketAddr::new(all, 0)
}

const SOURCES: &str = "Where the configuration comes from";
const LOCAL: &str = "The local API server and its steering";
const SERVING: &str = "What clients see: certificates of the local API server";
const FRONT: &str = "Asserting identities: front-proxy certificate and headers";
const PEERS: &str = "Peers: the other API servers";
const SEEN: &str = "Running and watching";

pub(super) static FLAGS: &[FlagSpec] = &[
    FlagSpec {
        help: "YAML file with these flags as keys, without dashes; lists or comma-separated strings",
        ..one("config", "FILE", SOURCES)
    },
    FlagSpec {
        help: "Static-pod manifest of kube-apiserver; provides the flags marked (m) that are given neither \
               here nor in --config",
        ..one("apiserver-manifest", "FILE", SOURCES)
    },
    FlagSpec {
        help: "The API server's port, the one that is steered [default: 6443]",
        ..manifest("secure-port", "PORT", LOCAL)
    },
    FlagSpec {
        help: "Where the API server really answers [default: 127.0.0.1:<secure-port>]",
        ..one("local-apiserver", "IP:PORT", LOCAL)
    },
    FlagSpec {
        help: "Loopback source of connections to it; the kernel never steers this address \
               [default: 127.64.43.1]",
        ..one("local-source-ip", "IP", LOCAL)
    },
    FlagSpec {
        help: "The proxy's own listener; port 0 takes any free one [default: port 0 on all addresses]",
        ..one("listen", "IP:PORT", LOCAL)
    },
    FlagSpec {
        help: "auto: steer, but run unsteered with a warning where BPF cannot be used; always: refuse to run \
               there; on-skew: steer only while API servers differ; off: never, clients dial --listen \
               [default: auto]",
        ..one("steering", "MODE", LOCAL)
    },
    FlagSpec {
        help: "Steer clients in these networks only, and leave the others to the API server [default: all]",
        arity: Arity::Many,
        ..one("steer-sources", "CIDR,...", LOCAL)
    },
    FlagSpec {
        help: "Steer so many in a hundred of the addresses that clients come from; an address is always in or always \
               out, on every node. With --steer-sources: of the addresses in them [default: 100]",
        ..one("steer-percent", "NUMBER", LOCAL)
    },
    FlagSpec {
        help: "Connections moved each second. Those straight to the API server are cut while a peer serves more than it \
               does; with --steering=on-skew, steered ones are told to leave (GOAWAY) when none does any more. 0 leaves \
               them where they are [default: 100]",
        ..one("cut-rate", "NUMBER", LOCAL)
    },
    FlagSpec {
        help: "Ethernet interfaces by which clients and peers come: packets, bytes and connection attempts to the API server \
               are counted on them, per peer and kind of source (XDP, from Linux 5.18 on) [default: none]",
        arity: Arity::Many,
        ..one("xdp-interface", "NAME,...", LOCAL)
    },
    FlagSpec {
        help: "Connection attempts that a source address may make each second on these interfaces; those beyond are dropped, \
               and TCP tries again. Peers and this node may make any number. A load balancer or NAT in front is one source \
               for all behind it. 0 for any number [default: 0]",
        ..one("xdp-syn-rate", "NUMBER", LOCAL)
    },
    FlagSpec {
        help: "Own folder on bpffs for the pinned maps and links [default: /sys/fs/bpf/mvproxy]",
        ..one("bpffs-dir", "DIR", LOCAL)
    },
    FlagSpec {
        help: "cgroup2 folder whose sockets are counted [default: the proxy's own]",
        ..one("cgroup", "DIR", LOCAL)
    },
    FlagSpec {
        help: "Serving certificate chain, PEM (required)",
        ..manifest("tls-cert-file", "FILE", SERVING)
    },
    FlagSpec { help: "Its key, PEM (required)", ..manifest("tls-private-key-file", "FILE", SERVING) },
    FlagSpec {
        help: "Certificate and key for clients that ask for certain names: those in the certificate, or the ones listed; \
               repeat the flag for more [default: none]",
        arity: Arity::Each,
        ..manifest("tls-sni-cert-key", "CERT,KEY[:NAME,...]", SERVING)
    },
    FlagSpec {
        help: "Lowest TLS version for clients: VersionTLS12 or VersionTLS13 (VersionTLS10 and 11 mean VersionTLS12) \
               [default: VersionTLS12]",
        ..manifest("tls-min-version", "VERSION", SERVING)
    },
    FlagSpec {
        help: "TLS 1.2 cipher suites for clients, by their Go names; those that rustls lacks (CBC, RC4, 3DES, RSA key \
               exchange) are left out [default: all ECDHE suites with GCM or ChaCha20]",
        arity: Arity::Many,
        ..manifest("tls-cipher-suites", "SUITE,...", SERVING)
    },
    FlagSpec {
        help: "CAs that client certificates are verified against, PEM (required)",
        ..manifest("client-ca-file", "FILE", SERVING)
    },
    FlagSpec {
        help: "Certificate that client identities are asserted with to API servers, PEM (required)",
        ..manifest("proxy-client-cert-file", "FILE", FRONT)
    },
    FlagSpec { help: "Its key, PEM (required)", ..manifest("proxy-client-key-file", "FILE", FRONT) },
    FlagSpec {
        help: "CAs of front proxies' certificates, PEM (required)",
        ..manifest("requestheader-client-ca-file", "FILE", FRONT)
    },
    FlagSpec {
        help: "Common names that front proxies may have [default: any]",
        ..manifest_list("requestheader-allowed-names", "NAME,...")
    },
    FlagSpec {
        help: "Headers with the user's name [default: X-Remote-User]",
        ..manifest_list("requestheader-username-headers", "HEADER,...")
    },
    FlagSpec {
        help: "Headers with the user's groups [default: X-Remote-Group]",
        ..manifest_list("requestheader-group-headers", "HEADER,...")
    },
    FlagSpec {
        help: "Headers with the user's UID [default: X-Remote-Uid]",
        ..manifest_list("requestheader-uid-headers", "HEADER,...")
    },
    FlagSpec {
        help: "Prefixes of headers with the user's extra fields [default: X-Remote-Extra-]",
        ..manifest_list("requestheader-extra-headers-prefix", "PREFIX,...")
    },
    FlagSpec {
        help: "Static peers; empty means that they are discovered, with --kubeconfig [default: discovered]",
        arity: Arity::Many,
        ..one("peers", "HOST:PORT,...", PEERS)
    },
    FlagSpec {
        help: "Networks in which a Lease in kube-system alone may name a peer; elsewhere --peers or the kubernetes \
               EndpointSlices have to name its IP too [default: none]",
        arity: Arity::Many,
        ..one("peer-allowed-cidrs", "CIDR,...", PEERS)
    },
    FlagSpec {
        help: "CAs of API servers' serving certificates, PEM [default: the CA of --kubeconfig, else \
               --client-ca-file where the own serving certificate is signed by it]",
        ..manifest("peer-ca-file", "FILE", PEERS)
    },
    FlagSpec {
        help: "Own address as peers should dial it, published on a Lease in kube-system; a manifest's \
               advertise-address stands in for it",
        ..manifest("peer-advertise-ip", "IP", PEERS)
    },
    FlagSpec { help: "Own port as peers should dial it", ..manifest("peer-advertise-port", "PORT", PEERS) },
    FlagSpec {
        help: "Own credentials, to find peers and to ask what they serve [default: the pod's service account]",
        ..one("kubeconfig", "FILE", PEERS)
    },
    FlagSpec {
        help: "Pause between two rounds of asking API servers what they serve [default: 5s]",
        ..one("discovery-interval", "DURATION", PEERS)
    },
    FlagSpec {
        help: "Source ports from which peers are dialled; their kernels pass such connections on to their API servers, past \
               the proxy. The same on every node, and such as no client gets: below 1024, which takes CAP_NET_BIND_SERVICE; off for neither \
               [default: 700-955]",
        ..one("peer-lane-ports", "FIRST-LAST", PEERS)
    },
    FlagSpec {
        help: "Time for which what a peer served is believed while it cannot be asked [default: 10m]",
        ..one("peer-stale-after", "DURATION", PEERS)
    },
    FlagSpec {
        help: "Folder for what is known of peers, so that a restart while they are down forgets nothing; empty for \
               nowhere [default: /var/lib/mvproxy]",
        ..one("state-dir", "DIR", PEERS)
    },
    FlagSpec {
        help: "UnknownVersionInteroperabilityProxy=true|false: reroute requests and merge discovery, or only \
               pass through; kube-apiserver's own gate is that of its built-in proxy and says nothing here \
               [default: true]",
        arity: Arity::Many,
        ..one("feature-gates", "GATE=BOOL,...", PEERS)
    },
    FlagSpec {
        help: "true|false: peers answer while the local API server cannot be reached or is not ready; /livez, \
               /readyz and /healthz stay its own [default: true]",
        ..one("local-failover", "BOOL", PEERS)
    },
    FlagSpec {
        help: "true|false: a watch whose API server died goes on at another one, unseen by the client [default: true]",
        ..one("watch-continuation", "BOOL", PEERS)
    },
    FlagSpec {
        help: "Where /metrics, /livez and /readyz are served, plain HTTP [default: 127.0.0.1:9643]",
        ..one("admin-address", "IP:PORT", SEEN)
    },
    FlagSpec {
        help: "Networks of load balancers that end TLS in front and whose X-Forwarded-For is believed; front proxies with a \
               certificate of --requestheader-client-ca-file always are [default: none]",
        arity: Arity::Many,
        ..one("trusted-proxies", "CIDR,...", FRONT)
    },
    FlagSpec {
        help: "Connections served at once; while there are more, new ones are left to the API server [default: 20000]",
        ..one("max-connections", "NUMBER", SEEN)
    },
    FlagSpec {
        help: "Connections of one source address served at once, 0 for any number: a load balancer in front can be \
               the source of all of them; further ones are closed, but none of this node's own [default: 0]",
        ..one("max-connections-per-source", "NUMBER", SEEN)
    },
    FlagSpec {
        help: "Threads that serve requests [default: the cores, at most 4]",
        ..one("workers", "NUMBER", SEEN)
    },
    FlagSpec {
        help: "Verbosity, as klog's: 2 adds the libraries, 4 every rerouted request, 6 everything; the \
               environment's RUST_LOG overrides it [default: 0]",
        ..one("v", "LEVEL", SEEN)
    },
    FlagSpec { help: "text or json, to stderr [default: text]", ..one("logging-format", "FORMAT", SEEN) },
];

const fn one(name: &'static str, placeholder: &'static str, heading: &'static str) -> FlagSpec {
    FlagSpec { name, placeholder, arity: Arity::One, heading, in_manifest: false, help: "" }
}

const fn manifest(name: &'static str, placeholder: &'static str, heading: &'static str) -> FlagSpec {
    FlagSpec { in_manifest: true, ..one(name, placeholder, heading) }
}

const fn manifest_list(name: &'static str, placeholder: &'static str) -> FlagSpec {
    FlagSpec { arity: Arity::Many, ..manifest(name, placeholder, FRONT) }
}
