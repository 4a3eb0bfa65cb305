//! Stops one thread of another process, as a deadlock would.

use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use super::cluster_support::Process;
use super::ebpf_support::eventually;

/// A thread that stands still until this is dropped.
pub struct Frozen {
    thaw: Option<Sender<()>>,
    tracer: Option<JoinHandle<()>>,
}

/// Stops the thread of this name; the others of the process run on.
pub fn freeze(process: &Process, name: &str) -> Frozen {
    let (thread, task) = thread_named(process, name);
    // One that is at work may hold a lock that the others need: the allocator's, or that of stderr.
    eventually("the thread sleeps", || {
        let stat = std::fs::read_to_string(task.join("stat")).expect("it runs");
        stat.rsplit_once(')').is_some_and(|(_, fields)| fields.starts_with(" S "))
    });
    let (thaw, thawed) = channel::<()>();
    let (tell, frozen) = channel();
    // All requests about a thread have to come from the one that traces it.
    let tracer = std::thread::spawn(move || {
        ptrace::seize(thread, ptrace::Options::empty()).expect("root may trace");
        ptrace::interrupt(thread).expect("it is traced");
        waitpid(thread, Some(WaitPidFlag::__WALL)).expect("it stops");
        tell.send(()).expect("somebody waits for this");
        // An error says that the sender is gone, which is what is waited for.
        let _ = thawed.recv();
        ptrace::detach(thread, None).expect("it is still there");
    });
    frozen.recv().expect("the tracer has stopped it");
    Frozen { thaw: Some(thaw), tracer: Some(tracer) }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(self.thaw.take());
        if let Some(tracer) = self.tracer.take() {
            tracer.join().expect("the tracer does not panic");
        }
    }
}

/// A thread and its folder in /proc.
fn thread_named(process: &Process, name: &str) -> (Pid, PathBuf) {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", process.id())).expect("it runs");
    let mut named = tasks.filter_map(|task| {
        let path = task.ok()?.path();
        let found = std::fs::read_to_string(path.join("comm")).ok()?;
        let id = path.file_name()?.to_str()?.parse().ok()?;
        (found.trim_end() == name).then(|| (Pid::from_raw(id), path))
    });
    named.next().expect("there is such a thread")
}
