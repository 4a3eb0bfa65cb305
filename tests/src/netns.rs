//! Gives tests network namespaces and a BPF file system of their own, all gone on drop.
//!
//! A namespace belongs to a thread, so everything that must happen inside one runs in [`Netns::run`], and
//! threads and processes started there stay there. `ip netns exec` is not used: it hides mounts below /sys.

use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use tempfile::TempDir;

/// A network namespace named after this process, with loopback up.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Creates a namespace; `label` tells those of one test apart.
    ///
    /// # Errors
    ///
    /// Fails without `CAP_SYS_ADMIN` and `CAP_NET_ADMIN`, or without the `ip` command.
    pub fn new(label: &str) -> Result<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("mvp-{}-{}-{label}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        command("ip", &["netns", "add", &name])?;
        let netns = Self { name };
        netns.ip(&["link", "set", "lo", "up"])?;
        Ok(netns)
    }

    /// Name as `ip netns` lists it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` with these arguments on this namespace.
    pub fn ip(&self, args: &[&str]) -> Result<()> {
        let mut all = vec!["-n", self.name.as_str()];
        all.extend(args);
        command("ip", &all)
    }

    /// Connects two namespaces by a pair of virtual interfaces, `name` on both sides, each with its address.
    pub fn connect(&self, address: IpAddr, other: &Self, other_address: IpAddr, name: &str) -> Result<()> {
        let peer = ["peer", "name", name, "netns", other.name.as_str()];
        let mut add = vec!["link", "add", name, "type", "veth"];
        add.extend(peer);
        self.ip(&add)?;
        for (netns, address) in [(self, address), (other, other_address)] {
            let prefix = if address.is_ipv4() { 24 } else { 64 };
            // nodad: an address that is still being probed for duplicates cannot be bound or dialled.
            let mut assign = vec!["address".to_owned(), "add".into(), format!("{address}/{prefix}")];
            assign.extend(["dev".into(), name.into()]);
            if address.is_ipv6() {
                assign.push("nodad".into());
            }
            netns.ip(&assign.iter().map(String::as_str).collect::<Vec<_>>())?;
            netns.ip(&["link", "set", name, "up"])?;
        }
        Ok(())
    }

    /// Runs `work` inside, on a thread of its own with private mounts, and returns what it returns.
    ///
    /// # Panics
    ///
    /// Panics when `work` does, with its message, or when the namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let door = self.door();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter(&door).expect("a namespace that exists can be entered by root");
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Like [`Netns::run`], but does not wait. The namespace outlives its name until the thread has ended.
    ///
    /// # Panics
    ///
    /// Panics when the namespace cannot be opened; the thread does so when `work` does.
    pub fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let door = self.door();
        std::thread::spawn(move || {
            enter(&door).expect("a namespace that exists can be entered by root");
            work()
        })
    }

    /// Like [`Netns::run`], for a future, on a current-thread runtime.
    pub fn block_on<T: Send, F: Future<Output = T>>(&self, work: impl FnOnce() -> F + Send) -> T {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be built").block_on(work())
        })
    }

    fn door(&self) -> File {
        let path = Path::new("/run/netns").join(&self.name);
        File::open(&path).unwrap_or_else(|error| panic!("cannot open {}: {error}", path.display()))
    }
}

/// Moves the calling thread into a namespace, with mounts of its own.
fn enter(door: &File) -> Result<()> {
    setns(door, CloneFlags::CLONE_NEWNET).context("cannot enter the network namespace")?;
    unshare(CloneFlags::CLONE_NEWNS).context("cannot get private mounts")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("cannot make mounts private")
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Err(error) = command("ip", &["netns", "delete", &self.name]) {
            eprintln!("left behind: {error:#}");
        }
    }
}

/// A BPF file system in a folder of its own; mounted for the calling thread and what it starts, inside
/// [`Netns::run`].
#[derive(Debug)]
pub struct BpfFs {
    dir: TempDir,
}

impl BpfFs {
    /// Mounts it.
    pub fn mount() -> Result<Self> {
        let dir = TempDir::with_prefix("mvp-bpffs-")?;
        let none = None::<&str>;
        mount(Some("bpf"), dir.path(), Some("bpf"), MsFlags::empty(), none).context("cannot mount bpffs")?;
        Ok(Self { dir })
    }

    /// A folder on it, which does not exist yet.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("mvproxy")
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        // Detached: pins stay busy as long as a child process uses them.
        if let Err(error) = umount2(self.dir.path(), MntFlags::MNT_DETACH) {
            eprintln!("left mounted for this thread: {}: {error}", self.dir.path().display());
        }
    }
}

/// Runs a command and fails with what it printed.
pub fn command(program: &str, args: &[&str]) -> Result<()> {
    stdout_of(program, args).map(drop)
}

/// Runs a command and returns what it printed.
pub fn stdout_of(program: &str, args: &[&str]) -> Result<String> {
    let output =
        Command::new(program).args(args).output().with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {} failed ({}): {}", args.join(" "), output.status, stderr.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{program} printed something else than UTF-8"))
}
