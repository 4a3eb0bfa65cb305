//! Starts the proxies that are compared.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::cases::{Case, Field, REROUTED_PATH};
use super::site::{Site, free_address};
use super::{BenchArgs, configs, usage};
use crate::command::capture;
use crate::demo::process::Process;
use crate::prerequisites::find_program;

/// Time for a proxy to answer its first request.
const START: Duration = Duration::from_secs(20);

/// One row of a table.
#[derive(Clone, Debug)]
pub(crate) struct Contestant {
    /// Its name there.
    pub(crate) name: String,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Mvproxy(PathBuf),
    Haproxy {
        http2_upstream: bool,
    },
    Nginx,
    /// mvproxy in front of an old server, with the new one, or another mvproxy in front of that, as its peer.
    Rerouting {
        program: PathBuf,
        proxies: usize,
    },
}

/// A proxy that runs until this is dropped.
pub(crate) struct Running {
    /// Where clients go.
    pub(crate) address: SocketAddr,
    /// Asked for instead of a case's own path.
    pub(crate) path: Option<&'static str>,
    processes: Vec<Process>,
}

/// `NAME=PATH` of another mvproxy.
pub(crate) fn parse_other(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("NAME=PATH is wanted")?;
    if Path::new(path).is_file() {
        Ok((name.to_owned(), path.into()))
    } else {
        Err(format!("no file {path}"))
    }
}

impl Contestant {
    /// Who takes part in a case; the baseline is always among them.
    pub(crate) fn chosen(case: &Case, site: &Site, args: &BenchArgs) -> Vec<Self> {
        let named = |name: &str, kind| Self { name: name.to_owned(), kind };
        let program = || site.mvproxy.clone();
        let rerouting = |proxies| Kind::Rerouting { program: program(), proxies };
        let mut all = match case.field {
            Field::Proxies => vec![
                named("haproxy-h2", Kind::Haproxy { http2_upstream: true }),
                named("haproxy-h1", Kind::Haproxy { http2_upstream: false }),
                named("nginx", Kind::Nginx),
                named("mvproxy", Kind::Mvproxy(program())),
                // The control: whatever is between these two is noise.
                named("mvproxy-again", Kind::Mvproxy(program())),
            ],
            Field::Hops => vec![
                named("local", Kind::Mvproxy(program())),
                named("past-peer-proxy", rerouting(1)),
                named("through-peer-proxy", rerouting(2)),
            ],
        };
        if case.field == Field::Proxies {
            all.extend(args.compare.iter().map(|(name, path)| named(name, Kind::Mvproxy(path.clone()))));
        }
        let baseline = all[0].name.clone();
        let is_wanted = |name: &str| args.only.iter().any(|start| name.starts_with(start.as_str()));
        all.retain(|one| {
            one.name == baseline || args.only.is_empty() || case.field == Field::Hops || is_wanted(&one.name)
        });
        all
    }

    /// Starts it and waits for its first answer.
    pub(crate) fn start(&self, site: &Site) -> Result<Running> {
        let address = free_address()?;
        let backend = site.older.address;
        let running = match &self.kind {
            Kind::Mvproxy(program) => {
                // Nobody listens on tcpmux: a peer that is away.
                let process =
                    mvproxy(site, &self.name, program, address, [backend, ([127, 0, 0, 1], 1).into()])?;
                Running { address, path: None, processes: vec![process] }
            }
            Kind::Haproxy { http2_upstream } => {
                let text = configs::haproxy(&site.folder, address, backend, *http2_upstream);
                let process = configured(site, &self.name, "haproxy", &["-db", "-f"], &text)?;
                Running { address, path: None, processes: vec![process] }
            }
            Kind::Nginx => {
                let text = configs::nginx(&site.folder, address, backend);
                let process = configured(site, &self.name, "nginx", &["-c"], &text)?;
                Running { address, path: None, processes: vec![process] }
            }
            Kind::Rerouting { program, proxies } => rerouting(site, program, *proxies, address)?,
        };
        running.wait_for_first_answer(site).with_context(|| format!("{} gave no answer", self.name))
    }
}

fn mvproxy(
    site: &Site,
    name: &str,
    program: &Path,
    listen: SocketAddr,
    [local, peer]: [SocketAddr; 2],
) -> Result<Process> {
    let state = site.folder.file(&format!("{name}-state"));
    // What an earlier round learned is not this one's.
    let _ = fs::remove_dir_all(&state);
    let mut arguments: Vec<String> =
        ["run", "--steering=off", "--admin-address=127.0.0.1:0", "--workers=1"].map(str::to_owned).to_vec();
    arguments.push(format!("--listen={listen}"));
    arguments.push(format!("--local-apiserver={local}"));
    arguments.push(format!("--peers={peer}"));
    arguments.push(format!("--state-dir={}", state.display()));
    let (pki, node) = (site.folder.pki(), site.folder.node());
    for (flag, file) in [
        ("tls-cert-file", node.join("apiserver.crt")),
        ("tls-private-key-file", node.join("apiserver.key")),
        ("client-ca-file", pki.join("ca.crt")),
        ("peer-ca-file", pki.join("ca.crt")),
        ("requestheader-client-ca-file", pki.join("front-proxy-ca.crt")),
        ("proxy-client-cert-file", pki.join("front-proxy-client.crt")),
        ("proxy-client-key-file", pki.join("front-proxy-client.key")),
    ] {
        arguments.push(format!("--{flag}={}", file.display()));
    }
    arguments.push("--requestheader-allowed-names=front-proxy-client".to_owned());
    site.launch(name, program, arguments)
}

fn rerouting(site: &Site, program: &Path, proxies: usize, address: SocketAddr) -> Result<Running> {
    let (older, newer) = (site.older.address, site.newer.address);
    let mut processes = Vec::new();
    let peer = if proxies == 1 {
        newer
    } else {
        let second = free_address()?;
        processes.push(mvproxy(site, "peer-proxy", program, second, [newer, older])?);
        second
    };
    processes.push(mvproxy(site, "first-proxy", program, address, [older, peer])?);
    Ok(Running { address, path: Some(REROUTED_PATH), processes })
}

fn configured(site: &Site, name: &str, program: &str, flags: &[&str], text: &str) -> Result<Process> {
    let file = site.folder.file(&format!("{name}.conf"));
    fs::write(&file, text)?;
    let program = find_program(program).with_context(|| format!("{program} is gone"))?;
    let arguments = flags.iter().map(|flag| (*flag).to_owned()).chain([file.display().to_string()]);
    site.launch(name, &program, arguments.collect())
}

impl Running {
    /// Every process of it.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.processes.iter().flat_map(|process| usage::family(process.pid())).collect()
    }

    fn wait_for_first_answer(mut self, site: &Site) -> Result<Self> {
        let (address, path) = (self.address, self.path.unwrap_or("/api/v1/namespaces/default/configmaps/10"));
        let last = self.processes.last_mut().context("a proxy has a process")?;
        last.wait_until("answering", START, |_| {
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--fail", "--http2", "--max-time", "2", "--output", "/dev/null"]);
            curl.arg("--cacert").arg(site.folder.ca());
            curl.args(["--header", "Authorization: Bearer bob-token"]);
            curl.arg(format!("https://localhost:{}{path}", address.port()));
            curl.args(["--resolve", &format!("localhost:{}:127.0.0.1", address.port())]);
            Ok(capture(&mut curl, Duration::from_secs(5))?.status.success())
        })?;
        Ok(self)
    }
}
