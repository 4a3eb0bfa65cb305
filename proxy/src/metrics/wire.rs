//! Adds what is counted on the wire to the metrics, where an interface is given for it.

use std::fmt;

use mvproxy_common::XdpStats;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::causes::chain;
use crate::steering::Xdp;

/// A number of [`XdpStats`]: its part of a metric's name, what it is, and where it stands.
type Number = (&'static str, &'static str, fn(&XdpStats) -> u64);

const NUMBERS: [Number; 4] = [
    ("packets", "TCP segments to the API server on the wire", |stats| stats.packets),
    ("bytes", "Bytes of TCP segments to the API server on the wire", |stats| stats.bytes),
    ("syns", "Attempts to connect to the API server on the wire", |stats| stats.syns),
    ("syns_dropped", "Attempts to connect dropped by --xdp-syn-rate", |stats| stats.dropped),
];

/// Writes all of it; nothing without interfaces.
pub(super) fn encode(xdp: Option<&Xdp>, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let Some(xdp) = xdp else { return Ok(()) };
    let name = "mvproxy_xdp_attached";
    let help = "1 while packets are counted on an interface";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for state in xdp.state() {
        let mode = state.attached.as_ref().map_or("none", |mode| mode.name());
        let labels = [("interface", state.interface.as_str()), ("mode", mode)];
        ConstGauge::new(i64::from(state.attached.is_ok())).encode(family.encode_family(&labels)?)?;
    }
    let counts = match xdp.counts() {
        Ok(counts) => counts,
        Err(error) => {
            tracing::warn!(error = chain(&error), "what is counted on the wire cannot be read");
            return Ok(());
        }
    };
    let classes: Vec<_> = counts.classes.iter().map(|(class, stats)| ((*class).to_owned(), *stats)).collect();
    let peers: Vec<_> = counts.peers.iter().map(|(peer, stats)| (peer.to_string(), *stats)).collect();
    for (part, help, read) in NUMBERS {
        counters(encoder, &format!("mvproxy_xdp_{part}"), help, "source", &classes, read)?;
    }
    // Peers are never dropped.
    for (part, help, read) in &NUMBERS[..3] {
        let help = format!("{help}, of a peer's node");
        counters(encoder, &format!("mvproxy_xdp_peer_{part}"), &help, "peer", &peers, *read)?;
    }
    Ok(())
}

fn counters(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &'static str,
    rows: &[(String, XdpStats)],
    read: fn(&XdpStats) -> u64,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (value, stats) in rows {
        let labels = [(label, value.as_str())];
        ConstCounter::new(read(stats)).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}
