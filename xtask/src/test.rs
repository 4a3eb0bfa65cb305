//! Runs everything that has to pass before a change is merged.

use anyhow::Result;

use crate::bench::instructions;
use crate::command::stream;
use crate::demo::DemoArgs;
use crate::lint::HOST_CRATES;
use crate::prerequisites::{can_install, find_program, is_root};
use crate::stages::Stages;
use crate::workspace::Workspace;
use crate::{build_ebpf, demo, e2e, lint, privileged};

/// Runs all stages; the last line printed is `N passed, N failed`.
///
/// # Errors
/// When a stage fails; the later ones do not run then.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mut stages = Stages::new();
    build_kernel_side(&mut stages);
    lint::add(workspace, &mut stages);
    stages.run("unit and in-process tests", || unprivileged(workspace));
    // Not among the host crates: its programs are for another target, and only what they decide is tested here.
    stages.run("unit tests of the kernel side", || {
        stream(&mut workspace.cargo(&["test", "-p", "mvproxy-ebpf", "--lib"]))
    });
    stages.run("documentation tests", || stream(workspace.cargo(&["test", "--doc"]).args(HOST_CRATES)));
    count_instructions(workspace, &mut stages);
    if is_root() {
        stages.run("privileged tests", || privileged::run(workspace));
        stages.run("demo", || demo::run(workspace, &DemoArgs::for_test(false)));
    } else {
        stages.leave_out("the privileged tests: they load programs into the kernel (sudo cargo xtask test)");
        stages.leave_out("the demo with steering (sudo cargo xtask demo)");
    }
    stages.run("demo without steering", || demo::run(workspace, &DemoArgs::for_test(true)));
    stages.leave_out(e2e::why_left_out());
    stages.finish()
}

/// First, because the proxy embeds the object and would be built twice otherwise.
fn build_kernel_side(stages: &mut Stages) {
    if is_root() {
        return stages.run("kernel side", build_ebpf::run);
    }
    if let Err(error) = build_ebpf::run() {
        stages.leave_out(format!("the kernel side: {error:#}"));
    }
}

fn count_instructions(workspace: &Workspace, stages: &mut Stages) {
    let valgrind = instructions::VALGRIND;
    if find_program(valgrind.name).is_some() || can_install() {
        return stages.run("instructions of a request", || instructions::check(workspace));
    }
    stages.leave_out("the instructions of a request: needs valgrind (apt-get install valgrind)");
}

fn unprivileged(workspace: &Workspace) -> Result<()> {
    if find_program("cargo-nextest").is_some() {
        return stream(workspace.cargo(&["nextest", "run"]).args(HOST_CRATES));
    }
    stream(workspace.cargo(&["test", "--all-targets"]).args(HOST_CRATES))
}
