//! Finds the cgroup2 folder that this process lives in, on pure cgroup2 and on v1/v2 hybrid systems.

use std::fs;
use std::path::{Path, PathBuf};

/// Own cgroup2 folder, or why there is none.
pub fn own_cgroup2() -> Result<PathBuf, String> {
    let read = |file: &str| fs::read_to_string(file).map_err(|error| format!("cannot read {file}: {error}"));
    locate(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?)
}

fn locate(cgroup: &str, mountinfo: &str) -> Result<PathBuf, String> {
    let own = cgroup
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .ok_or("this process is in no cgroup2 (no 0:: line in /proc/self/cgroup)")?;
    let mut reason = "cgroup2 is not mounted; mount it or pass --cgroup".to_owned();
    for (root, mount_point) in mountinfo.lines().filter_map(cgroup2_mount) {
        // A container may see only the part of the hierarchy below `root`.
        match Path::new(own).strip_prefix(&root) {
            Ok(below) if below.as_os_str().is_empty() => return Ok(mount_point),
            Ok(below) => return Ok(mount_point.join(below)),
            Err(_) => {
                reason = format!(
                    "own cgroup {own} lies outside the mounted part {} of cgroup2; pass --cgroup",
                    root.display()
                );
            }
        }
    }
    Err(reason)
}

/// Root and mount point of a line of `proc_pid_mountinfo(5)`, if it is cgroup2.
fn cgroup2_mount(line: &str) -> Option<(PathBuf, PathBuf)> {
    let (mount, file_system) = line.split_once(" - ")?;
    if file_system.split(' ').next() != Some("cgroup2") {
        return None;
    }
    let mut fields = mount.split(' ').skip(3);
    Some((unescape(fields.next()?), unescape(fields.next()?)))
}

/// Undoes the octal escapes for space, tab, newline and backslash.
fn unescape(field: &str) -> PathBuf {
    let plain = field.replace(r"\040", " ").replace(r"\011", "\t").replace(r"\012", "\n");
    plain.replace(r"\134", r"\").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 25 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
39 30 0:35 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw";
    const SLICE: &str = "40 30 0:35 /kubepods/pod1 /mnt/with\\040space rw - cgroup2 none rw";

    #[test]
    fn finds_the_folder_or_says_why_not() {
        for (cgroup, mountinfo, expected) in [
            ("2:cpu:/a\n0::/\n", HYBRID, Ok("/sys/fs/cgroup/unified")),
            (
                "0::/system.slice/mvproxy.service\n",
                HYBRID,
                Ok("/sys/fs/cgroup/unified/system.slice/mvproxy.service"),
            ),
            ("0::/kubepods/pod1/c1\n", SLICE, Ok("/mnt/with space/c1")),
            ("0::/kubepods/pod1\n", SLICE, Ok("/mnt/with space")),
            ("0::/other\n", SLICE, Err("outside")),
            ("2:cpu:/a\n", HYBRID, Err("no cgroup2")),
            ("0::/\n", "", Err("not mounted")),
        ] {
            match (locate(cgroup, mountinfo), expected) {
                (Ok(found), Ok(path)) => assert_eq!(found.as_os_str(), path, "{cgroup}"),
                (Err(reason), Err(part)) => assert!(reason.contains(part), "{reason}"),
                (found, expected) => panic!("{cgroup}: found {found:?}, expected {expected:?}"),
            }
        }
    }
}
