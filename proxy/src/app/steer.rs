//! Turns the configuration into steering, and into what cuts connections for it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tracing::warn;

use super::AppError;
use crate::causes::chain;
use crate::config::{Config, SteeringMode};
use crate::cut::{Cutter, Rules};
use crate::peers::PeerList;
use crate::steering::xdp::REFRESH_EVERY;
use crate::steering::{Steering, SteeringOptions};

/// A worker that has not served for this long is passed over by the kernel.
const STALE_AFTER: Duration = Duration::from_secs(1);

/// What moves clients that are connected already, unless nobody is steered or moved.
pub(super) fn cutter(config: &Config) -> Option<Arc<Cutter>> {
    let per_second = config.cut_rate.filter(|_| config.steering != SteeringMode::Off)?;
    let rules = Rules {
        secure_port: config.secure_port,
        own_source: config.local_source_ip,
        canary: config.canary.clone(),
        lane: config.peer_lane_ports,
    };
    Some(Arc::new(Cutter::new(rules, per_second)))
}

/// Loads what the configuration asks for, or does without where it may.
///
/// # Errors
/// When it may not.
pub(super) fn open(config: &Config) -> Result<Steering, AppError> {
    let mode = match config.steering {
        _ if !config.mixed_version => return Ok(Steering::off("switched off by feature gate")),
        SteeringMode::Off => return Ok(Steering::off("--steering=off")),
        SteeringMode::Auto => None,
        SteeringMode::Always => Some("always"),
        SteeringMode::OnSkew => Some("on-skew"),
    };
    let options = SteeringOptions {
        bpffs_dir: config.bpffs_dir.clone(),
        secure_port: config.secure_port,
        local_source_ip: config.local_source_ip,
        cgroup: config.cgroup.clone(),
        stale_after: STALE_AFTER,
        lane: config.peer_lane_ports,
        canary: config.canary.clone(),
        workers: config.workers.get(),
        xdp: config.xdp.clone(),
    };
    match (Steering::open(&options), mode) {
        (Ok(steering), _) => Ok(steering),
        (Err(source), Some(mode)) => Err(AppError::Steering { mode, source: Box::new(source) }),
        (Err(source), None) => {
            let reason = chain(&source);
            warn!(reason, "running unsteered: clients reach the proxy on its own listener only");
            Ok(Steering::off(reason))
        }
    }
}

/// Lets the program on interfaces know who is who, for as long as the proxy lives.
pub(super) async fn follow_wire(steering: Arc<Steering>, mut list: watch::Receiver<Option<PeerList>>) {
    let Some(xdp) = steering.xdp() else { return };
    loop {
        let peers = list.borrow_and_update().as_ref().map(addresses);
        if let Err(error) = xdp.refresh(peers.as_deref()) {
            warn!(error = chain(&error), "the program on interfaces does not learn of changes");
        }
        if let Ok(Err(_)) = timeout(REFRESH_EVERY, list.changed()).await {
            return;
        }
    }
}

/// Every address of every peer. Of some only a Lease speaks: who forges one makes an address free of `--xdp-syn-rate`, no more.
fn addresses(list: &PeerList) -> Vec<IpAddr> {
    list.peers.iter().flat_map(|peer| &peer.addresses).map(SocketAddr::ip).collect()
}
