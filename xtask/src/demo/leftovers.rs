//! Removes what a demo left behind that was killed before it could clean up.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::mount::{MntFlags, umount2};

use super::place::NAMESPACES;
use super::workdir::{NAME_PREFIX, cgroup2_mount, complain};

/// Sweeps namespaces, mounts, cgroups and folders of demos whose process is gone.
pub(crate) fn sweep() {
    for name in orphans(Path::new(NAMESPACES)) {
        eprintln!("xtask: removing namespace {name} of an earlier demo");
        let deleted = Command::new("ip").args(["netns", "delete", &name]).status().map(|_| ());
        complain("delete", Path::new(&name), deleted);
    }
    let temporary = std::env::temp_dir();
    for name in orphans(&temporary) {
        let folder = temporary.join(name);
        // Not mounted is the usual case, and removing the folder fails loudly when it still is.
        let _ = umount2(&folder.join("bpf"), MntFlags::MNT_DETACH);
        complain("remove", &folder, fs::remove_dir_all(&folder));
    }
    if let Some(cgroups) = cgroup2_mount() {
        for name in orphans(&cgroups) {
            complain("remove", &cgroups.join(&name), fs::remove_dir(cgroups.join(&name)));
        }
    }
}

/// Names in `folder` that a demo gave whose process does not live any more.
fn orphans(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| owner(name).is_some_and(|pid| !Path::new("/proc").join(pid).exists())).collect()
}

/// The process id in a name of the demo's.
fn owner(name: &str) -> Option<&str> {
    let pid = name.strip_prefix(NAME_PREFIX)?.split('-').next()?;
    pid.parse::<u32>().is_ok().then_some(pid)
}

#[cfg(test)]
mod tests {
    use super::owner;

    #[test]
    fn owner_is_the_process_id_behind_the_prefix() {
        for (name, expected) in [
            ("mvproxy-demo-12-old", Some("12")),
            ("mvproxy-demo-12", Some("12")),
            ("mvproxy-demo-x", None),
            ("other-12", None),
        ] {
            assert_eq!(owner(name), expected, "{name}");
        }
    }
}
