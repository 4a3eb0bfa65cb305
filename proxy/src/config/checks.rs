//! Checks flags about the wire against each other.

use std::collections::HashSet;

use super::build::mode_name;
use super::error::ConfigError;
use super::{Config, SteeringMode};

/// The program on interfaces comes with the kernel side, and a budget with that program.
pub(super) fn xdp(config: &Config, mistakes: &mut Vec<ConfigError>) {
    let interfaces = &config.xdp.interfaces;
    let flag = |name| config.origins.flag(name);
    if config.steering == SteeringMode::Off && !interfaces.is_empty() {
        mistakes.push(ConfigError::Conflict {
            flag: flag("xdp-interface"),
            value: interfaces.join(","),
            other: "steering",
            other_value: mode_name(config.steering).to_owned(),
            reason: "nothing is loaded into the kernel then; give another mode, or leave this flag out",
        });
    }
    if let (Some(rate), true) = (config.xdp.syn_rate, interfaces.is_empty()) {
        mistakes.push(ConfigError::Conflict {
            flag: flag("xdp-syn-rate"),
            value: rate.to_string(),
            other: "xdp-interface",
            other_value: String::new(),
            reason: "the budget is kept on interfaces; name those by which clients come",
        });
    }
    let mut seen = HashSet::new();
    if let Some(twice) = interfaces.iter().find(|name| !seen.insert(*name)) {
        mistakes.push(ConfigError::Invalid {
            flag: flag("xdp-interface"),
            value: twice.clone(),
            expected: "named once: take the second one out",
        });
    }
}
