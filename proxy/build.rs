//! Copies the BPF objects that `cargo xtask build-ebpf` made, or empty stubs, to where the code embeds it.

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

fn main() {
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let object_dir = target_dir(&out_dir).join("bpf");

    // Cargo would run this script at every build if it watched a file that does not exist, so it watches the
    // folder, which changes when an object appears.
    fs::create_dir_all(&object_dir).expect("the target directory is writable");
    println!("cargo::rerun-if-changed={}", object_dir.display());

    for object in ["mvproxy-bpf.o", "mvproxy-xdp.o"] {
        let built = object_dir.join(object);
        let bytes = match fs::read(&built) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => panic!("cannot read {}: {error}", built.display()),
        };
        fs::write(out_dir.join(object), bytes).expect("OUT_DIR is writable");
    }
}

/// The workspace's target directory, from `TARGET_DIR[/TRIPLE]/PROFILE/build/PACKAGE/out`.
fn target_dir(out_dir: &Path) -> PathBuf {
    let above_profile = out_dir.ancestors().nth(4).expect("OUT_DIR lies in a profile's build folder");
    let triple = env::var_os("TARGET").expect("cargo sets TARGET");
    match above_profile.parent() {
        Some(parent) if above_profile.file_name() == Some(&triple) => parent.to_owned(),
        _ => above_profile.to_owned(),
    }
}
