//! Shows mvproxy between an old and a new API server: real TLS, a real kernel, a real kubectl.

mod caller;
mod leftovers;
mod logs;
mod manifest;
mod network;
mod node;
pub(crate) mod place;
pub(crate) mod process;
mod report;
mod scrape;
mod site;
mod steps;
mod workdir;

use std::time::Instant;

use anyhow::{Result, bail};

use crate::interrupt;
use crate::prerequisites::{BPFTOOL, CURL, IP, NSENTER, ensure, is_root};
use crate::workspace::Workspace;
use crate::{build_ebpf, kubectl};

use self::report::Report;
use self::site::Site;

/// How the demo runs.
#[derive(clap::Args)]
pub(crate) struct DemoArgs {
    /// Use loopback and --steering=off even as root
    #[arg(long)]
    unsteered: bool,
    /// Leave the two nodes up at the end, until Ctrl-C
    #[arg(long)]
    hold: bool,
}

impl DemoArgs {
    /// The demo as `cargo xtask test` runs it.
    pub(crate) fn for_test(unsteered: bool) -> Self {
        Self { unsteered, hold: false }
    }
}

/// Plays the demo.
///
/// # Errors
/// When something cannot be set up, and when anything seen differs from what is expected.
pub(crate) fn run(workspace: &Workspace, args: &DemoArgs) -> Result<()> {
    let steered = is_root() && !args.unsteered;
    prepare(workspace, steered)?;
    let kubectl = kubectl::find(workspace)?;
    println!("kubectl: {} ({})", kubectl.path.display(), kubectl.version);
    leftovers::sweep();

    let started = Instant::now();
    let mut site = Site::set_up(workspace, kubectl.path, steered)?;
    println!("{}", site.description());
    let mut report = Report::new(site.logs().to_owned());
    steps::play(&mut site, &mut report)?;
    report.summarize(started.elapsed(), &left_out(steered));
    if args.hold {
        println!("{}", site.invitation());
        interrupt::wait_for_signal();
    }
    drop(site);
    let differing = report.differing();
    if differing > 0 {
        bail!("{differing} of {} steps differ from what is expected", report.steps());
    }
    Ok(())
}

fn prepare(workspace: &Workspace, steered: bool) -> Result<()> {
    if steered {
        ensure(&[IP, NSENTER, BPFTOOL, CURL])?;
        build_ebpf::run()?;
    } else {
        ensure(&[CURL])?;
    }
    workspace.build_programs()
}

/// What a run without the kernel part cannot show.
fn left_out(steered: bool) -> Vec<&'static str> {
    if steered {
        return Vec::new();
    }
    vec![
        "steering of port 6443 in the kernel, and clients that need not know of the proxy",
        "kill -9 and kill -STOP of the proxy: without steering nothing falls back to the API server",
        "per-peer counters in kernel maps, read with bpftool",
    ]
}
