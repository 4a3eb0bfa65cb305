//! Reads kube-apiserver's flags from its static-pod manifest.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use serde::Deserialize;

use super::error::ConfigError;
use super::file::from_yaml;
use super::flags;
use super::origin::{Flag, Origin};
use super::sources::Source;

/// Reads `text`: the container named kube-apiserver, its command and args, the flags the proxy shares.
pub(super) fn read(flag: Flag, path: &Path, text: &str) -> Result<Source, ConfigError> {
    let file = path.to_path_buf();
    let pod: Pod = match from_yaml(text) {
        Ok(pod) => pod,
        Err(source) => return Err(ConfigError::Unparsable { flag, file, source }),
    };
    let Some(words) = api_server_words(pod) else {
        let found = "has no container that runs kube-apiserver";
        return Err(ConfigError::NoApiServer { flag, file, found });
    };
    let values = shared_flags(&words);
    if values.is_empty() {
        let found = "runs kube-apiserver without any flag that could be read from its command and args";
        return Err(ConfigError::NoApiServer { flag, file, found });
    }
    Ok(Source { origin: Origin::Manifest(file), values })
}

#[derive(Deserialize)]
struct Pod {
    spec: Option<PodSpec>,
}

#[derive(Deserialize)]
struct PodSpec {
    #[serde(default)]
    containers: Vec<Container>,
}

#[derive(Deserialize)]
struct Container {
    name: Option<String>,
    command: Option<Vec<String>>,
    args: Option<Vec<String>>,
}

impl Container {
    fn runs_api_server(&self) -> bool {
        let program =
            |word: &String| Path::new(word).file_name().is_some_and(|name| name == "kube-apiserver");
        self.name.as_deref() == Some("kube-apiserver")
            || self.command.iter().chain(&self.args).flatten().any(program)
    }
}

fn api_server_words(pod: Pod) -> Option<Vec<String>> {
    let container = pod.spec?.containers.into_iter().find(Container::runs_api_server)?;
    Some(container.command.into_iter().chain(container.args).flatten().collect())
}

/// Collects `--name=value` and `--name value` of the flags that the proxy knows; all others are skipped.
///
/// A word after a skipped flag is skipped too unless it is a flag itself, which is right for boolean flags and
/// for those with a value.
fn shared_flags(words: &[String]) -> BTreeMap<&'static str, Vec<String>> {
    let mut values: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    let mut advertised = None;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some(body) = word.strip_prefix("--") else { continue };
        let (name, inline) = body.split_once('=').map_or((body, None), |(name, value)| (name, Some(value)));
        // kube-apiserver takes `_` for `-` in flag names (component-base's WordSepNormalizeFunc).
        let name = name.replace('_', "-");
        let shared = flags::find(&name).filter(|flag| flag.in_manifest);
        if shared.is_none() && name != "advertise-address" {
            continue;
        }
        let Some(value) = inline.or_else(|| words.next().map(String::as_str)) else { break };
        match shared {
            Some(flag) => values.entry(flag.name).or_default().push(value.to_owned()),
            None => advertised = Some(value.to_owned()),
        }
    }
    if let Some(address) = advertised.filter(|address| is_specific(address)) {
        values.entry("peer-advertise-ip").or_insert_with(|| vec![address]);
    }
    values
}

/// An unspecified advertise-address makes kube-apiserver choose one itself, so it says nothing.
fn is_specific(address: &str) -> bool {
    !address.is_empty() && !address.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(words: &[&str]) -> BTreeMap<&'static str, Vec<String>> {
        shared_flags(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn reads_both_spellings_and_skips_other_flags() {
        let read = flags(&[
            "kube-apiserver",
            "--allow-privileged",
            "--client-ca-file=/pki/ca.crt",
            "--etcd-servers",
            "https://127.0.0.1:2379",
            "--secure-port",
            "7443",
            "--tls_cert_file=/pki/apiserver.crt",
            "--kubeconfig=/not/shared",
            "--v=9",
            "--requestheader-allowed-names=a,b",
            "--requestheader-allowed-names=c",
            // Whoever switches the built-in proxy off may well want this one.
            "--feature-gates=Other=true,UnknownVersionInteroperabilityProxy=false",
            "--peer-ca-file",
        ]);
        let expected: &[(&str, &[&str])] = &[
            ("client-ca-file", &["/pki/ca.crt"]),
            ("requestheader-allowed-names", &["a,b", "c"]),
            ("secure-port", &["7443"]),
            ("tls-cert-file", &["/pki/apiserver.crt"]),
        ];
        assert_eq!(read.len(), expected.len(), "{read:?}");
        for (name, values) in expected {
            assert_eq!(read[name], *values, "{name}");
        }
    }

    #[test]
    fn advertise_address_stands_in_for_peer_advertise_ip() {
        for (words, expected) in [
            (&["--advertise-address=10.0.0.1"][..], Some("10.0.0.1")),
            (&["--advertise-address", "10.0.0.1", "--peer-advertise-ip=10.0.0.2"], Some("10.0.0.2")),
            (&["--peer-advertise-ip=10.0.0.2", "--advertise-address=10.0.0.1"], Some("10.0.0.2")),
            (&["--advertise-address=0.0.0.0"], None),
            (&["--advertise-address="], None),
        ] {
            let read = flags(words);
            let ip = read.get("peer-advertise-ip").and_then(|values| values.last());
            assert_eq!(ip.map(String::as_str), expected, "{words:?}");
        }
    }

    #[test]
    fn finds_the_container_by_name_or_program() {
        for (text, expected) in [
            ("spec: {containers: [{name: kube-apiserver, args: [--secure-port=1]}]}", true),
            (
                "spec: {containers: [{name: api, command: [/usr/local/bin/kube-apiserver, --secure-port=1]}]}",
                true,
            ),
            (
                "spec: {containers: [{name: x, command: [y]}, {name: kube-apiserver, args: [--secure-port=1]}]}",
                true,
            ),
            ("spec: {containers: [{name: kube-controller-manager, args: [--secure-port=1]}]}", false),
            ("spec: {containers: []}", false),
            ("{}", false),
        ] {
            let read = read(Flag::bare("apiserver-manifest"), Path::new("m.yaml"), text);
            assert_eq!(read.is_ok(), expected, "{text}");
        }
    }
}
