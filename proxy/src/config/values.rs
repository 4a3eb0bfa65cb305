//! Reads single values; every reader's error says what it wants, with an example.

use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;
use mvproxy_common::MAX_WORKERS;

use crate::steering::LanePorts;

use super::{LogFormat, PeerAddress, SteeringMode};

/// A value, or what would have been one.
pub(super) type Reading<T> = Result<T, &'static str>;

pub(super) fn port(text: &str) -> Reading<u16> {
    text.parse().ok().filter(|port| *port != 0).ok_or("a port: give a number from 1 to 65535")
}

pub(super) fn ip(text: &str) -> Reading<IpAddr> {
    text.parse().map_err(|_| "an IP address: write it like 10.0.0.7 or fd00::7")
}

/// An address that others can dial: not 0.0.0.0 or ::.
pub(super) fn dialled_ip(text: &str) -> Reading<IpAddr> {
    ip(text).ok().filter(|ip| !ip.is_unspecified()).ok_or("an IP address that peers can dial, like 10.0.0.7")
}

pub(super) fn listen_address(text: &str) -> Reading<SocketAddr> {
    text.parse().map_err(|_| "IP:PORT: write it like 0.0.0.0:8443, [::]:8443 or 127.0.0.1:0")
}

/// An address and port that this process can dial; zone ids are refused because URLs cannot carry them.
pub(super) fn dialled_address(text: &str) -> Reading<SocketAddr> {
    let dialled = |address: &SocketAddr| {
        let zone = matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0);
        address.port() != 0 && !address.ip().is_unspecified() && !zone
    };
    text.parse().ok().filter(dialled).ok_or("IP:PORT of the API server: write it like 127.0.0.1:6443")
}

/// The reserved source: of IPv4, all of 127.0.0.0/8 is there to choose from.
pub(super) fn source_ip(text: &str) -> Reading<IpAddr> {
    ip(text)
        .ok()
        .filter(IpAddr::is_loopback)
        .ok_or("a loopback address: give one that nothing else uses, like 127.64.43.1")
}

pub(super) fn absolute_path(text: &str) -> Reading<PathBuf> {
    Some(PathBuf::from(text)).filter(|path| path.is_absolute()).ok_or("an absolute path: start it with /")
}

/// `host:port`, with brackets around an IPv6 address.
pub(super) fn peer(text: &str) -> Reading<PeerAddress> {
    let wanted = "HOST:PORT: write it like cp-2.example.net:6443, 10.0.0.7:6443 or [fd00::7]:6443";
    let (host, digits) = text.rsplit_once(':').ok_or(wanted)?;
    let port = port(digits).map_err(|_| wanted)?;
    let host = match host.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
        Some(Some(v6)) if v6.parse::<std::net::Ipv6Addr>().is_ok() => v6,
        None if is_host_name(host) => host,
        _ => return Err(wanted),
    };
    Ok(PeerAddress { host: host.to_owned(), port })
}

/// Letters, digits, `-` and `.` in labels of 1 to 63 (RFC 1123 section 2.1); covers IPv4 addresses.
fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    host.len() <= 253 && host.strip_suffix('.').unwrap_or(host).split('.').all(label)
}

/// Accepts what may stand before the colon of an HTTP field; case is kept.
pub(super) fn header_name(text: &str) -> Reading<String> {
    HeaderName::from_bytes(text.as_bytes())
        .map(|_| text.to_owned())
        .map_err(|_| "an HTTP header name: write it like X-Remote-User")
}

pub(super) fn common_name(text: &str) -> Reading<String> {
    let plain = !text.contains(char::is_control);
    plain.then(|| text.to_owned()).ok_or("a common name: write it like front-proxy-client")
}

pub(super) fn steering(text: &str) -> Reading<SteeringMode> {
    match text {
        "auto" => Ok(SteeringMode::Auto),
        "always" => Ok(SteeringMode::Always),
        "on-skew" => Ok(SteeringMode::OnSkew),
        "off" => Ok(SteeringMode::Off),
        _ => Err("a steering mode: give auto, always, on-skew or off"),
    }
}

pub(super) fn log_format(text: &str) -> Reading<LogFormat> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("a log format: give text or json"),
    }
}

pub(super) fn workers(text: &str) -> Reading<NonZeroUsize> {
    text.parse()
        .ok()
        .filter(|workers: &NonZeroUsize| workers.get() <= MAX_WORKERS as usize)
        .ok_or("a number of threads from 1 to 16, what the kernel can steer to")
}

pub(super) fn network(text: &str) -> Reading<IpNet> {
    let network = text
        .parse()
        .or_else(|_| text.parse().map(|address: IpAddr| IpNet::from(address)))
        .map_err(|_| "a network such as 10.0.0.0/8")?;
    match network {
        // No client ever has such an address: all of them are read as IPv4.
        IpNet::V6(v6) if v6.network().to_ipv4_mapped().is_some() => {
            Err("a network such as 10.0.0.0/8; write what is IPv4 as IPv4")
        }
        network => Ok(network),
    }
}

/// A name as the kernel allows it (`dev_valid_name`).
pub(super) fn interface(text: &str) -> Reading<String> {
    let is_name = (1..16).contains(&text.len())
        && text != "."
        && text != ".."
        && !text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control());
    is_name.then(|| text.to_owned()).ok_or("the name of a network interface: write it like eth0")
}

/// A part of something that must not be nothing.
pub(super) fn percent(text: &str) -> Reading<u8> {
    text.parse()
        .ok()
        .filter(|percent| (1..=100).contains(percent))
        .ok_or("a percentage: give a number from 1 to 100")
}

/// A range of source ports; `off` for none.
pub(super) fn lane_ports(text: &str) -> Reading<Option<LanePorts>> {
    let wanted = "a range of ports from 1 to 65535: write it like 700-955, the same on every node, or off";
    if text == "off" {
        return Ok(None);
    }
    let (first, last) = text.split_once('-').ok_or(wanted)?;
    let ports = LanePorts { first: port(first).map_err(|_| wanted)?, last: port(last).map_err(|_| wanted)? };
    if ports.first == 0 || ports.first > ports.last {
        return Err(wanted);
    }
    Ok(Some(ports))
}

pub(super) fn connections(text: &str) -> Reading<NonZeroU32> {
    text.parse().map_err(|_| "a number of connections, at least 1")
}

pub(super) fn number(text: &str) -> Reading<u32> {
    text.parse().map_err(|_| "a number")
}

pub(super) fn verbosity(text: &str) -> Reading<u8> {
    text.parse()
        .map_err(|_| "a verbosity: give a number from 0 to 255; 2 is usual, 4 shows rerouted requests")
}

pub(super) fn boolean(text: &str) -> Reading<bool> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("true or false"),
    }
}

/// How long a peer may be silent.
pub(super) fn staleness(text: &str) -> Reading<Duration> {
    let sane = Duration::from_secs(1)..=Duration::from_hours(24);
    duration(text)
        .filter(|it| sane.contains(it))
        .ok_or("a duration from 1s to 24h: write it like 10m, 90s or 1h30m")
}

/// A pause between two rounds of discovery.
pub(super) fn interval(text: &str) -> Reading<Duration> {
    let sane = Duration::from_millis(10)..=Duration::from_hours(1);
    duration(text)
        .filter(|it| sane.contains(it))
        .ok_or("a duration from 10ms to 1h: write it like 5s, 500ms or 1m30s")
}

/// Go's duration notation (`time.ParseDuration`), without signs: numbers with units, largest first by custom.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        seconds += number.parse::<f64>().ok()? * unit_seconds(unit)?;
        rest = tail;
    }
    Duration::try_from_secs_f64(seconds).ok()
}

fn unit_seconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations_as_go_writes_them() {
        for (text, expected) in [
            ("5s", Some(Duration::from_secs(5))),
            ("1m30s", Some(Duration::from_secs(90))),
            ("1.5s", Some(Duration::from_millis(1500))),
            ("250ms", Some(Duration::from_millis(250))),
            ("1h", Some(Duration::from_hours(1))),
            ("5", None),
            ("s", None),
            ("", None),
            ("0s", None),
            ("2h", None),
            ("-5s", None),
            ("5 s", None),
            ("5days", None),
            ("1..5s", None),
        ] {
            assert_eq!(interval(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn reads_peers_with_ports_only() {
        for (text, expected) in [
            ("10.0.0.7:6443", Some(("10.0.0.7", 6443))),
            ("cp-2.example.net:443", Some(("cp-2.example.net", 443))),
            ("[fd00::7]:6443", Some(("fd00::7", 6443))),
            ("fd00::7:6443", None),
            ("[10.0.0.7]:6443", None),
            ("[fd00::7:6443", None),
            ("cp-2", None),
            ("cp-2:", None),
            ("cp-2:0", None),
            ("cp-2:65536", None),
            (":6443", None),
            ("https://cp-2:6443", None),
            ("-x:6443", None),
            ("user@cp-2:6443", None),
        ] {
            let read = peer(text).ok();
            let expected = expected.map(|(host, port)| PeerAddress { host: host.to_owned(), port });
            assert_eq!(read, expected, "{text}");
        }
    }

    #[test]
    fn refuses_addresses_that_cannot_work() {
        assert!(source_ip("127.64.43.1").is_ok() && source_ip("10.0.0.7").is_err());
        assert!(
            dialled_ip("10.0.0.7").is_ok() && dialled_ip("0.0.0.0").is_err() && dialled_ip("::").is_err()
        );
        for bad in ["127.0.0.1", "localhost:6443", "0.0.0.0:6443", "127.0.0.1:0", "[fe80::1%3]:6443"] {
            assert!(dialled_address(bad).is_err(), "{bad}");
        }
        assert!(dialled_address("[::1]:6443").is_ok());
        assert!(port("0").is_err() && port("65536").is_err() && port("6443").is_ok());
        assert!(header_name("X-Remote-Extra-").is_ok() && header_name("X Remote").is_err());
        assert!(workers("0").is_err() && workers("17").is_err() && workers("4").is_ok());
        assert!(absolute_path("bpf").is_err() && absolute_path("/sys/fs/bpf").is_ok());
    }
}
