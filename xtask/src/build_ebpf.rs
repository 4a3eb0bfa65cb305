//! Builds the kernel programs and puts the object where `proxy/build.rs` embeds it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::toolchain::{Compiler, Toolchain, clean_cargo};

/// The programs; each is an object in [`FOLDER`], with `.o` after its name.
const PROGRAMS: [&str; 2] = ["mvproxy-bpf", "mvproxy-xdp"];

/// Where the objects are inside the workspace's target directory.
const FOLDER: &str = "bpf";

/// BPF bytecode has the byte order of the machine that runs it.
const TARGET: &str = if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };

/// Builds the objects; leaves files alone when nothing changed, so that nothing is built again for it.
pub(crate) fn run() -> Result<()> {
    let target_dir = target_dir()?;
    let toolchain = Toolchain::find_or_install(&target_dir, TARGET)?;
    eprintln!("build-ebpf: compiler {}, linker {}", toolchain.compiler, toolchain.linker.display());

    let build_dir = target_dir.join("bpf-build");
    let mut cargo = cargo_build(&toolchain, &build_dir);
    let status = cargo.status().with_context(|| format!("cannot start {cargo:?}"))?;
    if !status.success() {
        bail!("the BPF build failed ({status}); the compiler's messages are above");
    }

    for program in PROGRAMS {
        let built = build_dir.join(TARGET).join("release").join(program);
        let object = target_dir.join(FOLDER).join(format!("{program}.o"));
        let state = if copy_if_changed(&built, &object)? { "new" } else { "unchanged" };
        eprintln!("build-ebpf: {} ({state}); `cargo build` embeds it", object.display());
    }
    Ok(())
}

/// Cargo's own answer, so that `CARGO_TARGET_DIR` and configuration files count.
fn target_dir() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version=1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .context("cannot start `cargo metadata`")?;
    if !output.status.success() {
        bail!("`cargo metadata` failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("`cargo metadata` did not print JSON")?;
    let dir = metadata["target_directory"].as_str().context("`cargo metadata` names no target directory")?;
    Ok(dir.into())
}

fn cargo_build(toolchain: &Toolchain, build_dir: &Path) -> Command {
    let mut cargo = match &toolchain.compiler {
        Compiler::Prebuilt { rustc } => {
            let mut cargo = clean_cargo();
            cargo.env("RUSTC", rustc);
            cargo
        }
        Compiler::Nightly { name } => {
            let mut rustup = crate::toolchain::clean("rustup");
            rustup.args(["run", name, "cargo"]);
            rustup
        }
    };
    cargo.args(["build", "--locked", "--release", "--package=mvproxy-ebpf", "--target", TARGET]);
    if matches!(toolchain.compiler, Compiler::Nightly { .. }) {
        cargo.args(["-Z", "build-std=core"]);
    }
    // Own directory: the cargo that runs this xtask may hold the lock of the usual one.
    cargo.arg("--target-dir").arg(build_dir);
    // `Prebuilt` compilers are releases, and inline assembly for BPF is not stable.
    cargo.env("RUSTC_BOOTSTRAP", "1");
    cargo.env("CARGO_ENCODED_RUSTFLAGS", rustflags(&toolchain.linker));
    cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    cargo
}

/// Full debug information is what bpf-linker makes BTF from.
fn rustflags(linker: &Path) -> OsString {
    let mut flags = OsString::from("-Cdebuginfo=2\u{1f}-Clink-arg=--btf\u{1f}-Clinker=");
    flags.push(linker);
    flags
}

fn copy_if_changed(from: &Path, to: &Path) -> Result<bool> {
    let new = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(false);
    }
    let dir = to.parent().context("the object has a folder")?;
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    // Renamed into place: a build that runs at the same time sees all of it or nothing.
    let part = to.with_extension("part");
    fs::write(&part, new).with_context(|| format!("cannot write {}", part.display()))?;
    fs::rename(&part, to).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(true)
}
