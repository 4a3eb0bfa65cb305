//! Finds a compiler and a linker for the BPF target, and installs them where it can.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Rust 1.96 with a ready-made `core` for BPF; it lives in /usr/bin and does not disturb rustup.
const COMPILER_PACKAGES: &[&str] = &["rustc-web", "libstd-rust-web-dev-bpf"];
/// What bpf-linker is built from and linked against.
const LINKER_PACKAGES: &[&str] =
    &["llvm-22-dev", "libpolly-22-dev", "libzstd-dev", "zlib1g-dev", "libxml2-dev", "build-essential"];
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
const LINKER_VERSION: &str = "0.13.0";

/// What builds BPF objects.
pub(crate) struct Toolchain {
    pub(crate) compiler: Compiler,
    pub(crate) linker: PathBuf,
}

/// A compiler for the BPF target.
pub(crate) enum Compiler {
    /// One that comes with a compiled `core` for the target.
    Prebuilt { rustc: PathBuf },
    /// A rustup toolchain with rust-src, which compiles `core` itself.
    Nightly { name: String },
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prebuilt { rustc } => write!(f, "{}", rustc.display()),
            Self::Nightly { name } => write!(f, "rustup's {name}"),
        }
    }
}

impl Toolchain {
    /// Takes what is there and installs the rest.
    ///
    /// # Errors
    ///
    /// Fails with the commands to run where nothing can be installed.
    pub(crate) fn find_or_install(target_dir: &Path, target: &str) -> Result<Self> {
        let compiler = match find_compiler(target) {
            Some(compiler) => compiler,
            None => install_compiler(target)?,
        };
        let linker = match find_linker(target_dir) {
            Some(linker) => linker,
            None => install_linker(target_dir)?,
        };
        Ok(Self { compiler, linker })
    }
}

fn find_compiler(target: &str) -> Option<Compiler> {
    let rustc = PathBuf::from(DEBIAN_RUSTC);
    if has_core(&rustc, target) {
        return Some(Compiler::Prebuilt { rustc });
    }
    let toolchains = stdout_of(clean("rustup").args(["toolchain", "list"]))?;
    let mut names = toolchains.lines().filter_map(|line| line.split_whitespace().next());
    let name = names.find(|name| name.starts_with("nightly") && has_rust_src(name))?;
    Some(Compiler::Nightly { name: name.to_owned() })
}

fn has_core(rustc: &Path, target: &str) -> bool {
    let mut command = clean(rustc);
    command.env("RUSTC_BOOTSTRAP", "1").args(["--print=target-libdir", "--target", target]);
    let Some(dir) = stdout_of(&mut command) else { return false };
    let Ok(mut files) = std::fs::read_dir(dir.trim()) else { return false };
    files.any(|file| file.is_ok_and(|file| file.file_name().to_string_lossy().starts_with("libcore-")))
}

fn has_rust_src(toolchain: &str) -> bool {
    stdout_of(clean("rustup").args(["run", toolchain, "rustc", "--print=sysroot"])).is_some_and(|sysroot| {
        Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/Cargo.toml").exists()
    })
}

fn install_compiler(target: &str) -> Result<Compiler> {
    let remedy = format!(
        "no compiler for {target}. Run one of these and try again:\n  \
         sudo apt-get install {}    (Debian 12 and newer)\n  \
         rustup toolchain install nightly --component rust-src",
        COMPILER_PACKAGES.join(" ")
    );
    apt_install(COMPILER_PACKAGES).with_context(|| remedy.clone())?;
    find_compiler(target).with_context(|| remedy)
}

fn find_linker(target_dir: &Path) -> Option<PathBuf> {
    let own = own_linker(target_dir);
    let on_path = std::env::var_os("PATH")
        .into_iter()
        .flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>())
        .map(|dir| dir.join("bpf-linker"));
    // One that was left behind without its shared LLVM does not run: asking for the version tells.
    std::iter::once(own).chain(on_path).find(|linker| stdout_of(clean(linker).arg("--version")).is_some())
}

fn own_linker(target_dir: &Path) -> PathBuf {
    target_dir.join("tools/bin/bpf-linker")
}

fn install_linker(target_dir: &Path) -> Result<PathBuf> {
    let root = target_dir.join("tools");
    let install = [
        "install",
        "bpf-linker",
        "--version",
        LINKER_VERSION,
        "--no-default-features",
        "--features=llvm-22",
        "--locked",
        "--force",
    ];
    let remedy = format!(
        "no bpf-linker. Run these and try again:\n  \
         sudo apt-get install {}    (or another LLVM 22)\n  \
         LLVM_PREFIX={LLVM_PREFIX} cargo {} --root {}",
        LINKER_PACKAGES.join(" "),
        install.join(" "),
        root.display()
    );
    if !Path::new(LLVM_PREFIX).join("bin/llvm-config").exists() {
        apt_install(LINKER_PACKAGES).with_context(|| remedy.clone())?;
    }
    eprintln!("build-ebpf: compiling bpf-linker {LINKER_VERSION}, 1-3 minutes, once");
    let mut cargo = clean_cargo();
    cargo.args(install).arg("--root").arg(&root).env("LLVM_PREFIX", LLVM_PREFIX);
    // The tools get no part in the workspace: neither its toolchain file nor its target directory.
    cargo.current_dir("/").arg("--target-dir").arg(target_dir.join("tools-build"));
    run(&mut cargo).with_context(|| remedy.clone())?;
    let linker = own_linker(target_dir);
    if stdout_of(clean(&linker).arg("--version")).is_none() {
        bail!("{} was built and does not run. {remedy}", linker.display());
    }
    Ok(linker)
}

/// Installs Debian packages; package lists are only fetched when they turn out to be too old.
fn apt_install(packages: &[&str]) -> Result<()> {
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!("there is no apt-get here to install {} with", packages.join(" "));
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("installing {} needs root", packages.join(" "));
    }
    eprintln!("build-ebpf: installing {}", packages.join(" "));
    if run(&mut apt_get_install(packages)).is_ok() {
        return Ok(());
    }
    eprintln!("build-ebpf: that failed, fetching package lists first");
    run(clean("apt-get").arg("update"))?;
    run(&mut apt_get_install(packages))
}

fn apt_get_install(packages: &[&str]) -> Command {
    let mut apt = clean("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive");
    apt.args(["install", "--yes", "--quiet", "--no-install-recommends"]).args(packages);
    apt
}

/// Cargo of the toolchain that runs this xtask, without what that cargo left in the environment.
pub(crate) fn clean_cargo() -> Command {
    clean(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// A command that does not inherit the outer cargo's and rustup's choices.
///
/// Home, registry, proxy and network settings (`CARGO_HOME`, `CARGO_HTTP_*`, …) stay.
pub(crate) fn clean(program: impl AsRef<OsStr>) -> Command {
    const PREFIXES: &[&str] = &[
        "RUSTC",
        "RUSTDOC",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
        "RUST_RECURSION_COUNT",
        "CARGO_BUILD_",
        "CARGO_CFG_",
        "CARGO_ENCODED_",
        "CARGO_FEATURE_",
        "CARGO_INCREMENTAL",
        "CARGO_MANIFEST_",
        "CARGO_PKG_",
        "CARGO_PROFILE_",
        "CARGO_TARGET_",
    ];
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let inherited = name.to_string_lossy();
        if PREFIXES.iter().any(|prefix| inherited.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("{command:?} failed ({status})");
    }
    Ok(())
}

/// What a command printed; none when it does not exist or fails, which both mean "not here".
fn stdout_of(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
