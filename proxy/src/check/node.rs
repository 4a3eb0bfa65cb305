//! Looks at the node: kernel, capabilities, BPF file system, other programs.

use std::path::Path;

use nix::sys::utsname::uname;

use super::{Finding, Verdict, wire};
use crate::causes::chain;
use crate::config::{Config, SteeringMode};
use crate::cut;
use crate::steering;

/// First release with `sk_lookup` links and everything the programs use.
const OLDEST_KERNEL: (u32, u32) = (5, 10);
/// What the programs take, and their bits of `CapEff` in `/proc/self/status` (linux/capability.h).
pub const CAPABILITIES: [(&str, u32); 2] = [("CAP_NET_ADMIN", 12), ("CAP_BPF", 39)];
/// What the peer lane takes as long as its ports are among those that the kernel keeps for it.
pub const LANE_CAPABILITY: (&str, u32) = ("CAP_NET_BIND_SERVICE", 10);
/// The first port that anybody may bind to.
const FIRST_UNPRIVILEGED_PORT: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
/// What the kernel chooses source ports from, in both IP versions.
const LOCAL_PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// Stands in for both.
const CAP_SYS_ADMIN: u32 = 21;

/// What there is to say about steering on this node.
pub(super) fn findings(config: &Config) -> Vec<Finding> {
    if config.steering == SteeringMode::Off || !config.mixed_version {
        return vec![Finding::skip("kernel", "nothing is steered with this configuration")];
    }
    let mut found = vec![kernel(), capabilities(), programs(config), cgroup(config), others()];
    if !config.canary.is_everyone() {
        found.push(Finding::pass("canary", format!("only {} are steered", config.canary)));
    }
    if config.steering != SteeringMode::Off && config.cut_rate.is_some() {
        found.push(cutting());
    }
    found.extend(lane(config));
    found.extend(wire::findings(config));
    // Without steering --steering=auto runs all the same.
    let softened = |finding: Finding| match finding.verdict {
        Verdict::Fail if config.steering == SteeringMode::Auto => {
            Finding { verdict: Verdict::Warn, ..finding }
        }
        _ => finding,
    };
    found.into_iter().map(softened).collect()
}

fn kernel() -> Finding {
    let Ok(name) = uname() else { return Finding::skip("kernel", "uname(2) says nothing") };
    let release = name.release().to_string_lossy().into_owned();
    match version(&release) {
        Some(version) if version < OLDEST_KERNEL => {
            let (major, minor) = OLDEST_KERNEL;
            Finding::fail(
                "kernel",
                format!("Linux {release} is too old to steer"),
                format!("use Linux {major}.{minor} or newer, or --steering=off"),
            )
        }
        _ => Finding::pass("kernel", format!("Linux {release}")),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn capabilities() -> Finding {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let Some(effective) = effective(&status) else {
        return Finding::skip("capabilities", "/proc/self/status is not readable");
    };
    let has = |bit: u32| effective >> bit & 1 == 1 || effective >> CAP_SYS_ADMIN & 1 == 1;
    let missing: Vec<&str> =
        CAPABILITIES.iter().filter(|(_, bit)| !has(*bit)).map(|(name, _)| *name).collect();
    if missing.is_empty() {
        return Finding::pass("capabilities", "CAP_BPF and CAP_NET_ADMIN");
    }
    let missing = missing.join(" and ");
    Finding::fail("capabilities", format!("{missing} missing"), "run as root, or grant them to the container")
}

fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn programs(config: &Config) -> Finding {
    match steering::probe(&config.bpffs_dir) {
        Ok(()) => {
            let pinned = config.bpffs_dir.join("STEER_MODE").exists();
            let beside =
                if pinned { "; a proxy runs or has run here, and would be taken over from" } else { "" };
            Finding::pass("steering", format!("maps and programs load{beside}"))
        }
        Err(error) => Finding::error("steering", &error),
    }
}

fn cgroup(config: &Config) -> Finding {
    let found = match &config.cgroup {
        Some(folder) if Path::new(folder).is_dir() => Ok(folder.clone()),
        Some(folder) => Err(format!("{} is no folder", folder.display())),
        None => steering::own_cgroup2(),
    };
    match found {
        Ok(folder) => Finding::pass("cgroup", format!("connections are counted in {}", folder.display())),
        Err(reason) => Finding::warn(
            "cgroup",
            format!("connections to peers are not counted by the kernel: {reason}"),
            "mount cgroup2, or give its folder with --cgroup",
        ),
    }
}

fn cutting() -> Finding {
    match cut::probe() {
        Ok(()) => Finding::pass("cut", "connections can be cut when there is something to steer for"),
        Err(error) => Finding::warn("cut", chain(&error), "or accept it, with --cut-rate=0"),
    }
}

/// Clients on peers that the kernel gives such a port would pass by the proxy, and a proxy has to be allowed to use them.
fn lane(config: &Config) -> Option<Finding> {
    let ports = config.peer_lane_ports?;
    let first_free = std::fs::read_to_string(FIRST_UNPRIVILEGED_PORT).ok();
    let first_free = first_free.and_then(|port| port.trim().parse().ok()).unwrap_or(1024_u16);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let (name, bit) = LANE_CAPABILITY;
    if ports.first < first_free && effective(&status).is_some_and(|effective| effective >> bit & 1 == 0) {
        return Some(Finding::warn(
            "lane",
            format!(
                "{name} missing: rerouted requests come from other ports than --peer-lane-ports={ports}, and take the \
                     way through the peer's proxy as well"
            ),
            "grant it to the container, or accept it with --peer-lane-ports=off",
        ));
    }
    let range = std::fs::read_to_string(LOCAL_PORTS).ok()?;
    let (first, last) = local_ports(&range)?;
    (ports.first <= last && first <= ports.last).then(|| {
        Finding::warn(
            "lane",
            format!("--peer-lane-ports={ports} are among the ports {first} to {last} that the kernel gives to any client"),
            "give others that are free on every node, or lower net.ipv4.ip_local_port_range",
        )
    })
}

fn local_ports(range: &str) -> Option<(u16, u16)> {
    let mut numbers = range.split_whitespace().map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn others() -> Finding {
    match steering::foreign_programs() {
        None => Finding::skip("programs", "other sk_lookup programs cannot be listed without CAP_SYS_ADMIN"),
        Some(foreign) if foreign.is_empty() => Finding::pass("programs", "no foreign sk_lookup program"),
        Some(foreign) => Finding::warn(
            "programs",
            format!("other sk_lookup programs are loaded: {}", foreign.join(", ")),
            "see that they leave the API server's port alone: bpftool link show",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_and_capabilities_are_read() {
        for (release, expected) in [
            ("6.18.0", Some((6, 18))),
            ("5.10.0-26-amd64", Some((5, 10))),
            ("4.18-rc1", Some((4, 18))),
            ("six", None),
        ] {
            assert_eq!(version(release), expected, "{release}");
        }
        assert!(version("5.9.1") < Some(OLDEST_KERNEL) && version("5.10.0") >= Some(OLDEST_KERNEL));
        assert_eq!(local_ports("32768\t60999\n"), Some((32_768, 60_999)));
        assert_eq!(effective("Name:\tx\nCapEff:\t0000008000001000\n"), Some(0x80_0000_1000));
        assert_eq!(effective("Name:\tx\n"), None);
    }
}
