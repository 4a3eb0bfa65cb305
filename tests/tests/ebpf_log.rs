//! Checks that a log line of a kernel program reaches the proxy's log.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ebpf_support;

use std::io::{self, Write};
use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ebpf_support::{SECURE_PORT, Server, any_v4, ask, listen, loopback, open};
use mvproxy_tests::netns::{BpfFs, Netns};

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test-privileged"]
fn workers_without_heartbeat_are_logged_once_a_second_at_most() {
    let captured = Captured::default();
    let writer = captured.clone();
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
    Netns::new("log").unwrap().block_on(|| async {
        let bpffs = BpfFs::mount().unwrap();
        let _api_server = Server::api_server((Ipv6Addr::UNSPECIFIED, SECURE_PORT));
        let steering = open(&bpffs.path());
        // A listener whose worker never beats.
        let silent = listen(any_v4(), false);
        steering.register(&[std::os::fd::AsFd::as_fd(&silent)]).unwrap();
        steering.set_steering(true).unwrap();
        for _ in 0..50 {
            assert_eq!(ask(loopback()), "api");
        }
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let log = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
        let lines = log.lines().filter(|line| line.contains("no worker has a fresh heartbeat")).count();
        let cpus = std::thread::available_parallelism().unwrap().get();
        assert!(lines >= 1, "the kernel's line is missing:\n{log}");
        assert!(lines <= 2 * cpus, "{lines} lines from {cpus} CPUs in about a second:\n{log}");
    });
}
