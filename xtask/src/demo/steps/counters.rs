//! Reads the per-peer counters from the kernel with bpftool.

use std::net::{IpAddr, Ipv6Addr};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::super::place::command_of;
use super::super::report::{Report, Step};
use super::super::scrape;
use super::super::site::Site;
use crate::command;

/// Plays the steps and returns the requests that the old node's proxy sent to the new API server.
pub(crate) fn play(site: &Site, report: &mut Report) -> Result<u64> {
    Report::section("The old node's counters, read from the kernel");
    let title = "requests to the peer, by the proxy";
    let requests = l7(site, report, title, |requests| requests > 0, "at least 1")?;
    metrics(site, report)?;
    if site.old.has_cgroup() {
        l4(site, report)?;
    } else {
        println!("\n     left out: PEER_L4, because no cgroup2 can be written here");
    }
    Ok(requests)
}

/// The counters live in pinned maps, so the ones from before the kill are still in.
pub(crate) fn survive(site: &Site, report: &mut Report, before: u64) -> Result<()> {
    Report::section("The counters after kill -9 and restart");
    let expected = format!("more than the {before} from before");
    l7(site, report, "requests to the peer", |requests| requests > before, &expected)?;
    Ok(())
}

fn l7(
    site: &Site,
    report: &mut Report,
    title: &str,
    right: impl Fn(u64) -> bool,
    expected: &str,
) -> Result<u64> {
    let (command, rows) = peer_rows(site)?;
    let peer = peer_address(site);
    let requests = sum(&rows, "requests");
    let seen = format!(
        "{} requests={requests} rerouted={} responses_2xx={} responses_4xx={} errors={}",
        text(peer),
        sum(&rows, "rerouted"),
        sum(&rows, "responses_2xx"),
        sum(&rows, "responses_4xx"),
        sum(&rows, "errors"),
    );
    let expected = format!("{} requests: {expected}", text(peer));
    report.judge(&Step { title, command: &command, expected: &expected }, &seen, right(requests));
    Ok(requests)
}

/// Prometheus reads the same map; requests of the proxy's own may come in between.
fn metrics(site: &Site, report: &mut Report) -> Result<()> {
    let peer = text(peer_address(site));
    let sample = || -> Result<f64> {
        let text = site.old.metrics()?;
        let ours = text.lines().filter(|line| line.contains(&format!("peer=\"{peer}\"")));
        Ok(scrape::total(&ours.collect::<Vec<_>>().join("\n"), METRIC))
    };
    let before = sample()?;
    let (_, rows) = peer_rows(site)?;
    let requests = sum(&rows, "requests");
    let after = sample()?;
    let step = Step {
        title: "/metrics says the same as the map",
        command: &format!("old$ curl http://{}/metrics", site.old.plan.admin),
        expected: &format!("{METRIC}{{peer=\"{peer}\"}} {requests}"),
    };
    let seen = format!("{METRIC}{{peer=\"{peer}\"}} {after}");
    #[expect(clippy::cast_precision_loss, reason = "a demo sends few requests")]
    let requests = requests as f64;
    report.judge(&step, &seen, requests > 0.0 && before <= requests && requests <= after);
    Ok(())
}

const METRIC: &str = "mvproxy_peer_requests_total";

/// The rows of `PEER_L7` that belong to the new API server, one per worker, and the command that shows them.
fn peer_rows(site: &Site) -> Result<(String, Vec<Value>)> {
    let (command, entries) = dump(site, "PEER_L7")?;
    let peer = peer_address(site);
    let rows = entries.iter().map(|entry| entry["value"].clone()).filter(|row| address(row) == Some(peer));
    Ok((command, rows.collect()))
}

fn sum(rows: &[Value], field: &str) -> u64 {
    rows.iter().filter_map(|row| row[field].as_u64()).sum()
}

fn l4(site: &Site, report: &mut Report) -> Result<()> {
    let (command, entries) = dump(site, "PEER_L4")?;
    let peer = peer_address(site);
    let row = entries.iter().find(|entry| address(&entry["key"]) == Some(peer)).map(|entry| &entry["value"]);
    let count = |field: &str| row.and_then(|row| row[field].as_u64()).unwrap_or(0);
    let seen = format!(
        "{} opened={} bytes_in={} bytes_out={} retransmits={} srtt_us_last={}",
        text(peer),
        count("opened"),
        count("bytes_in"),
        count("bytes_out"),
        count("retransmits"),
        count("srtt_us_last"),
    );
    let step = Step {
        title: "connections and bytes, by the kernel",
        command: &command,
        expected: &format!("{} opened and bytes: at least 1", text(peer)),
    };
    report.judge(&step, &seen, ["opened", "bytes_in", "bytes_out"].iter().all(|field| count(field) > 0));
    Ok(())
}

/// The entries of a map of the old node's, with named fields.
fn dump(site: &Site, map: &str) -> Result<(String, Vec<Value>)> {
    let pins = site.pins(&site.old).context("nothing is pinned without steering")?;
    let pin = pins.join(map).display().to_string();
    let words = ["bpftool", "--json", "map", "dump", "pinned", &pin].map(str::to_owned);
    let output = command::quiet(&mut command_of(&words))?;
    let document: Value = serde_json::from_str(&output).context("bpftool printed no JSON")?;
    let entries = document.as_array().context("bpftool printed no list")?;
    let named = entries.iter().map(|entry| entry["formatted"].clone()).filter(|entry| !entry.is_null());
    Ok((format!("bpftool map dump pinned {pin}"), named.collect()))
}

type Address = (IpAddr, u64);

fn peer_address(site: &Site) -> Address {
    (IpAddr::V4(site.new.plan.ip), site.new.plan.server_port.into())
}

/// Address and port in a key or value of the peer maps.
fn address(row: &Value) -> Option<Address> {
    let bytes = row["addr"].as_array()?.iter().map(|byte| u8::try_from(byte.as_u64()?).ok());
    let bytes: [u8; 16] = bytes.collect::<Option<Vec<_>>>()?.try_into().ok()?;
    Some((Ipv6Addr::from(bytes).to_canonical(), row["port"].as_u64()?))
}

fn text((ip, port): Address) -> String {
    format!("{ip}:{port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_reads_a_v4_mapped_key() {
        let row =
            serde_json::json!({"addr": [0,0,0,0,0,0,0,0,0,0,255,255,10,43,7,12], "port": 6443, "pad": [0]});
        assert_eq!(address(&row), Some(("10.43.7.12".parse().unwrap(), 6443)));
        assert_eq!(address(&serde_json::json!({"addr": [1], "port": 1})), None);
    }
}
