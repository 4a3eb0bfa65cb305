//! Checks every picked value and puts the configuration together, noting each mistake on the way.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use mvproxy_common::MAX_STEER_SOURCES;

use super::ask;
use super::checks;
use super::error::ConfigError;
use super::flags;
use super::origin::{Flag, Origins};
use super::own::{self, own_credentials};
use super::sources::{Given, Sources};
use super::tls_values;
use super::values::{self, Reading};
use super::{Config, CredentialFiles, RequestHeaderNames, ServingTls, SteeringMode};
use crate::limits::TimeLimits;
use crate::steering::{Canary, LanePorts, XdpOptions};

/// Builds the configuration; what is wrong gets its default, what is missing an empty file name.
pub(super) fn build(sources: &Sources, mistakes: &mut Vec<ConfigError>) -> Config {
    let mut read = Reader { sources, mistakes };
    let secure_port = read.one("secure-port", values::port).unwrap_or(6443);
    let config = Config {
        secure_port,
        local_apiserver: read
            .one("local-apiserver", values::dialled_address)
            .unwrap_or(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), secure_port)),
        local_source_ip: read.one("local-source-ip", values::source_ip).unwrap_or(LOCAL_SOURCE_IP),
        listen: read.one("listen", values::listen_address).unwrap_or_else(flags::default_listen),
        steering: read.one("steering", values::steering).unwrap_or(SteeringMode::Auto),
        canary: Canary {
            sources: read.many("steer-sources", values::network).unwrap_or_default(),
            percent: read.one("steer-percent", values::percent).unwrap_or(100),
        },
        cut_rate: read.one("cut-rate", values::number).map_or(Some(CUT_RATE), NonZeroU32::new),
        xdp: XdpOptions {
            interfaces: read.many("xdp-interface", values::interface).unwrap_or_default(),
            syn_rate: read.one("xdp-syn-rate", values::number).and_then(NonZeroU32::new),
        },
        bpffs_dir: read.one("bpffs-dir", values::absolute_path).unwrap_or_else(|| flags::BPFFS_DIR.into()),
        cgroup: read.one("cgroup", values::absolute_path),
        files: read.credential_files(),
        sni_cert_keys: read.each("tls-sni-cert-key", tls_values::sni_cert_key),
        serving_tls: read.serving_tls(),
        request_header: read.request_header_names(),
        peers: read.many("peers", values::peer).unwrap_or_default(),
        peer_allowed_cidrs: read.many("peer-allowed-cidrs", values::network).unwrap_or_default(),
        peer_lane_ports: read.one("peer-lane-ports", values::lane_ports).unwrap_or(Some(LanePorts::DEFAULT)),
        peer_stale_after: read.one("peer-stale-after", values::staleness).unwrap_or(PEER_STALE_AFTER),
        state_dir: read.state_dir(),
        peer_advertise_ip: read.one("peer-advertise-ip", values::dialled_ip),
        peer_advertise_port: read.one("peer-advertise-port", values::port),
        kubeconfig: read.file("kubeconfig"),
        discovery_interval: read.one("discovery-interval", values::interval).unwrap_or(DISCOVERY_INTERVAL),
        mixed_version: read.gate().unwrap_or(true),
        local_failover: read.one("local-failover", values::boolean).unwrap_or(true),
        watch_continuation: read.one("watch-continuation", values::boolean).unwrap_or(true),
        admin_address: read.one("admin-address", values::listen_address).unwrap_or(ask::ADMIN_ADDRESS),
        trusted_proxies: read.many("trusted-proxies", values::network).unwrap_or_default(),
        max_connections: read.one("max-connections", values::connections).unwrap_or(MAX_CONNECTIONS),
        max_connections_per_source: read
            .one("max-connections-per-source", values::number)
            .and_then(NonZeroU32::new),
        time_limits: TimeLimits::default(),
        workers: read.one("workers", values::workers).unwrap_or_else(flags::default_workers),
        verbosity: read.one("v", values::verbosity).unwrap_or(0),
        log_format: read.one("logging-format", values::log_format).unwrap_or_default(),
        origins: origins(sources),
    };
    check_source_ip(&config, mistakes);
    check_canary(&config, mistakes);
    checks::xdp(&config, mistakes);
    check_own_credentials(&config, sources.config_read, mistakes);
    config
}

const LOCAL_SOURCE_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 64, 43, 1));
const MAX_CONNECTIONS: NonZeroU32 = NonZeroU32::new(20_000).expect("not zero");
const CUT_RATE: NonZeroU32 = NonZeroU32::new(100).expect("not zero");
const PEER_STALE_AFTER: Duration = Duration::from_mins(10);
const DISCOVERY_INTERVAL: Duration = Duration::from_secs(5);

/// Reads flags one by one and keeps the mistakes.
struct Reader<'a> {
    sources: &'a Sources,
    mistakes: &'a mut Vec<ConfigError>,
}

impl Reader<'_> {
    fn one<T>(&mut self, name: &'static str, parse: fn(&str) -> Reading<T>) -> Option<T> {
        let given = self.sources.pick(name)?;
        let value = given.last()?;
        self.keep(&given.flag, value, parse(value))
    }

    fn file(&self, name: &'static str) -> Option<PathBuf> {
        self.sources.pick(name)?.last().map(PathBuf::from)
    }

    /// Given empty it means nowhere, which is something else than not given.
    fn state_dir(&mut self) -> Option<PathBuf> {
        match self.sources.pick("state-dir") {
            None => Some(flags::STATE_DIR.into()),
            Some(_) => self.one("state-dir", values::absolute_path),
        }
    }

    /// `None` when the flag is given nowhere; an empty list when it is given empty.
    fn many<T>(&mut self, name: &'static str, parse: fn(&str) -> Reading<T>) -> Option<Vec<T>> {
        let given = self.sources.pick(name)?;
        Some(given.all().filter_map(|value| self.keep(&given.flag, value, parse(value))).collect())
    }

    fn each<T>(&mut self, name: &'static str, parse: fn(&str) -> Reading<T>) -> Vec<T> {
        let Some(given) = self.sources.pick(name) else { return Vec::new() };
        given.each().filter_map(|value| self.keep(&given.flag, value, parse(value))).collect()
    }

    fn keep<T>(&mut self, flag: &Flag, value: &str, reading: Reading<T>) -> Option<T> {
        let wrong = |expected| ConfigError::Invalid { flag: flag.clone(), value: value.to_owned(), expected };
        reading.map_err(|expected| self.mistakes.push(wrong(expected))).ok()
    }

    fn required_file(&mut self, name: &'static str) -> PathBuf {
        self.file(name).unwrap_or_else(|| {
            // A file that could not be read may well have the flag.
            if self.sources.config_read && self.sources.manifest_read {
                let remedy = self.remedy();
                self.mistakes.push(ConfigError::Required { flag: Flag::bare(name), remedy });
            }
            PathBuf::new()
        })
    }

    fn remedy(&self) -> String {
        match &self.sources.manifest {
            Some(file) => format!("{} does not have it either, so give it here", file.display()),
            None => "give it, or --apiserver-manifest=/etc/kubernetes/manifests/kube-apiserver.yaml to have \
                     it read from there"
                .to_owned(),
        }
    }

    fn credential_files(&mut self) -> CredentialFiles {
        CredentialFiles {
            tls_cert: self.required_file("tls-cert-file"),
            tls_private_key: self.required_file("tls-private-key-file"),
            client_ca: self.required_file("client-ca-file"),
            proxy_client_cert: self.required_file("proxy-client-cert-file"),
            proxy_client_key: self.required_file("proxy-client-key-file"),
            request_header_ca: self.required_file("requestheader-client-ca-file"),
            peer_ca: self.file("peer-ca-file"),
        }
    }

    fn serving_tls(&mut self) -> ServingTls {
        let suites = self.many("tls-cipher-suites", tls_values::cipher_suite);
        ServingTls {
            min_version: self.one("tls-min-version", tls_values::min_version).unwrap_or_default(),
            // Those that rustls lacks count too: a list of only such leaves TLS 1.3.
            cipher_suites: suites
                .filter(|all| !all.is_empty())
                .map(|all| all.into_iter().flatten().collect()),
        }
    }

    fn request_header_names(&mut self) -> RequestHeaderNames {
        RequestHeaderNames {
            allowed_names: self.many("requestheader-allowed-names", values::common_name).unwrap_or_default(),
            username: self.username_headers(),
            group: self.headers("requestheader-group-headers", "X-Remote-Group"),
            uid: self.headers("requestheader-uid-headers", "X-Remote-Uid"),
            extra_prefix: self.headers("requestheader-extra-headers-prefix", "X-Remote-Extra-"),
        }
    }

    fn headers(&mut self, name: &'static str, default: &str) -> Vec<String> {
        self.many(name, values::header_name).unwrap_or_else(|| vec![default.to_owned()])
    }

    /// Without a user name header nobody could be asserted, so an empty list means the default.
    fn username_headers(&mut self) -> Vec<String> {
        let default = "X-Remote-User";
        let names = self.headers("requestheader-username-headers", default);
        if names.is_empty() { vec![default.to_owned()] } else { names }
    }

    /// The last setting of the one gate wins, as in kube-apiserver.
    fn gate(&mut self) -> Option<bool> {
        let given = self.sources.pick("feature-gates")?;
        let mut enabled = None;
        for pair in given.all() {
            let (gate, value) = pair.split_once('=').map_or((pair, ""), |(gate, value)| (gate.trim(), value));
            if gate == flags::GATE {
                enabled = self.keep(&given.flag, pair, gate_value(value)).or(enabled);
            } else {
                self.mistakes.push(unknown_gate(&given, gate));
            }
        }
        enabled
    }
}

fn gate_value(text: &str) -> Reading<bool> {
    values::boolean(text.trim()).map_err(|_| "GATE=true or GATE=false")
}

fn unknown_gate(given: &Given<'_>, gate: &str) -> ConfigError {
    ConfigError::UnknownGate { flag: given.flag.clone(), gate: gate.to_owned(), known: flags::GATE }
}

fn origins(sources: &Sources) -> Origins {
    let mut origins = Origins::default();
    for flag in flags::FLAGS {
        if let Some(given) = sources.pick(flag.name) {
            origins.record(flag.name, given.origin.clone());
        }
    }
    origins
}

/// The source address is what the kernel program exempts, and what upstream sockets bind to.
fn check_source_ip(config: &Config, mistakes: &mut Vec<ConfigError>) {
    let source = config.local_source_ip;
    if source.is_ipv4() != config.local_apiserver.is_ipv4() {
        let reason = "a connection cannot go from one IP version to the other; give both in the same one";
        mistakes.push(source_conflict(config, "local-apiserver", config.local_apiserver, reason));
    }
    if source == IpAddr::V4(Ipv4Addr::LOCALHOST) && config.steering != SteeringMode::Off {
        let reason = "every client on this node has that address and none would be steered; give one of its own, \
                      like 127.64.43.1";
        mistakes.push(source_conflict(config, "steering", mode_name(config.steering), reason));
    }
}

/// Where nothing is steered, nobody is chosen.
fn check_canary(config: &Config, mistakes: &mut Vec<ConfigError>) {
    let Canary { sources, percent } = &config.canary;
    let mut conflict = |flag, value: String| {
        mistakes.push(ConfigError::Conflict {
            flag: config.origins.flag(flag),
            value,
            other: "steering",
            other_value: mode_name(config.steering).to_owned(),
            reason: "nobody is steered then; give another mode, or leave this flag out",
        });
    };
    if config.steering == SteeringMode::Off {
        if !sources.is_empty() {
            let listed: Vec<_> = sources.iter().map(ToString::to_string).collect();
            conflict("steer-sources", listed.join(","));
        }
        if *percent != 100 {
            conflict("steer-percent", percent.to_string());
        }
    }
    let most = usize::try_from(MAX_STEER_SOURCES / 2 - 1).unwrap_or(usize::MAX);
    if sources.len() > most {
        mistakes.push(ConfigError::Invalid {
            flag: config.origins.flag("steer-sources"),
            value: format!("{} networks", sources.len()),
            expected: "what the kernel has room for: give at most 1023",
        });
    }
}

fn source_conflict(
    config: &Config,
    other: &'static str,
    other_value: impl Display,
    reason: &'static str,
) -> ConfigError {
    ConfigError::Conflict {
        flag: config.origins.flag("local-source-ip"),
        value: config.local_source_ip.to_string(),
        other,
        other_value: other_value.to_string(),
        reason,
    }
}

pub(super) fn mode_name(mode: SteeringMode) -> &'static str {
    match mode {
        SteeringMode::Auto => "auto",
        SteeringMode::Always => "always",
        SteeringMode::OnSkew => "on-skew",
        SteeringMode::Off => "off",
    }
}

/// Static peers need no credentials; discovered ones do, and given ones must be usable either way.
fn check_own_credentials(config: &Config, config_read: bool, mistakes: &mut Vec<ConfigError>) {
    match own_credentials(config) {
        Ok(None) if config.peers.is_empty() && config_read && !wrong_peers(mistakes) => {
            mistakes.push(ConfigError::NoOwnCredentials { folder: own::IN_CLUSTER });
        }
        Ok(_) => {}
        Err(error) => mistakes.push(error),
    }
}

/// Whether peers were meant to be static, but none of them could be read.
fn wrong_peers(mistakes: &[ConfigError]) -> bool {
    mistakes
        .iter()
        .any(|mistake| matches!(mistake, ConfigError::Invalid { flag, .. } if flag.name == "peers"))
}
