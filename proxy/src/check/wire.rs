//! Looks at the interfaces on which packets are to be counted.

use super::Finding;
use crate::causes::chain;
use crate::config::Config;
use crate::steering;
use crate::steering::xdp::{Device, programs_on};

/// What there is to say about them; nothing where none is given. The proxy runs without, so nothing fails.
pub(super) fn findings(config: &Config) -> Vec<Finding> {
    if config.xdp.interfaces.is_empty() {
        return Vec::new();
    }
    let mut found = vec![match steering::probe_xdp(&config.bpffs_dir) {
        Ok(()) => Finding::pass("xdp", "maps and program load"),
        Err(error) => Finding::warn("xdp", chain(&error), WITHOUT),
    }];
    found.extend(config.xdp.interfaces.iter().map(|name| interface(config, name)));
    found
}

const WITHOUT: &str = "mend it, or leave --xdp-interface out: the proxy runs without";

fn interface(config: &Config, name: &str) -> Finding {
    let device = match Device::find(name) {
        Ok(device) => device,
        Err(error) => return Finding::warn("xdp", chain(&error), WITHOUT),
    };
    if !device.is_ethernet {
        return Finding::warn("xdp", format!("{name} carries no Ethernet frames"), WITHOUT);
    }
    match programs_on(&config.bpffs_dir, &device) {
        (None, _) => Finding::pass("xdp", format!("{name} is free")),
        (Some(program), own) if own == Some(program) => {
            Finding::pass("xdp", format!("a proxy counts on {name}, and would be taken over from"))
        }
        (Some(program), _) => Finding::warn(
            "xdp",
            format!("another XDP program (id {program}) is on {name}, and only one can be"),
            format!("take it off with its own tool or `ip link set dev {name} xdp off`, or leave {name} out"),
        ),
    }
}
