//! Stops one thread of another process, as a deadlock would.

use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use super::cluster_support::Process;

/// A thread that stands still until this is dropped.
pub struct Frozen {
    thaw: Option<Sender<()>>,
    tracer: Option<JoinHandle<()>>,
}

/// Stops the thread of this name; the others of the process run on.
pub fn freeze(process: &Process, name: &str) -> Frozen {
    let thread = thread_named(process, name);
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

fn thread_named(process: &Process, name: &str) -> Pid {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", process.id())).expect("it runs");
    let mut named = tasks.filter_map(|task| {
        let path = task.ok()?.path();
        let found = std::fs::read_to_string(path.join("comm")).ok()?;
        (found.trim_end() == name).then(|| path.file_name()?.to_str()?.parse().ok()).flatten()
    });
    Pid::from_raw(named.next().expect("there is such a thread"))
}
