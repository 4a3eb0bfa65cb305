//! Runs the real binary and reads what an operator would: stderr and the exit code.

#![allow(clippy::unwrap_used, reason = "what fails to be set up fails the test")]

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

#[path = "cli/node.rs"]
mod node;

use node::Node;

/// Runs `mvproxy` in a clean environment; the first word of `line` is the program's name and not passed on.
fn mvproxy(line: &[String]) -> Output {
    mvproxy_with(line, &[])
}

/// The same with environment variables; a run that has not ended after 30 s is killed and fails the test.
fn mvproxy_with(line: &[String], environment: &[(&str, &str)]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_mvproxy"))
        .args(&line[1..])
        .env_clear()
        .envs(environment.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("{line:?} goes on running: {:?}", child.wait_with_output().unwrap());
        }
        sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

fn words(line: &[&str]) -> Vec<String> {
    line.iter().map(|&word| word.to_owned()).collect()
}

/// The mistakes of a run that must be refused as misconfigured, one per line.
#[track_caller]
fn refused(line: &[String]) -> Vec<String> {
    let output = mvproxy(line);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(output.stdout.is_empty());
    let mistake = |line: &str| line.strip_prefix("mvproxy: error: ").map(str::to_owned);
    stderr
        .lines()
        .filter(|line| !line.contains(" WARN ") && !line.contains(" INFO "))
        .map(|line| mistake(line).expect(line))
        .collect()
}

/// The one mistake of such a run, which must contain all `parts`.
#[track_caller]
fn refused_once(line: &[String], parts: &[&str]) {
    let mistakes = refused(line);
    assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
    for part in parts {
        assert!(mistakes[0].contains(part), "{}\nlacks {part}", mistakes[0]);
    }
}

#[test]
fn version_and_help_go_to_stdout() {
    let version = mvproxy(&words(&["mvproxy", "--version"]));
    assert_eq!(version.status.code(), Some(0));
    assert_eq!(
        String::from_utf8(version.stdout).unwrap(),
        concat!("mvproxy ", env!("CARGO_PKG_VERSION"), "\n")
    );

    let help = mvproxy(&words(&["mvproxy", "run", "--help"]));
    let text = String::from_utf8(help.stdout).unwrap();
    assert_eq!(help.status.code(), Some(0));
    assert!(text.contains("Examples:") && text.contains("--apiserver-manifest <FILE>"), "{text}");

    let nothing = mvproxy(&words(&["mvproxy"]));
    assert_eq!((nothing.status.code(), nothing.stdout.is_empty()), (Some(2), true));
}

#[test]
fn the_wrong_key_is_named() {
    let node = Node::new();
    node.issue("other", node.ca(), &node::serving());
    let key = node.file_flags(&[("tls-private-key-file", "other.key")]);
    refused_once(
        &node.command_line(&[&key[0]]),
        &["--tls-private-key-file: ", "other.key does not belong to", "apiserver.crt", "kube-apiserver.yaml"],
    );
}

#[test]
fn a_missing_ca_is_named_with_flag_file_and_where_that_was_written() {
    let node = Node::new();
    std::fs::remove_file(node.path("front-proxy-ca.crt")).unwrap();
    let file = node.path("front-proxy-ca.crt").display().to_string();
    let manifest = node.path("kube-apiserver.yaml").display().to_string();
    let flag = format!("--requestheader-client-ca-file (from {manifest}): {file} not found");
    refused_once(&node.command_line(&[]), &[&flag]);
}

#[test]
fn an_unparsable_kubeconfig_is_named_without_its_text() {
    let node = Node::new();
    node.write("mvproxy.conf", "users: s3cret-t0ken");
    let mistakes = refused(&node.command_line(&[]));
    assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
    assert!(
        mistakes[0].starts_with("--kubeconfig: ") && mistakes[0].contains("mvproxy.conf"),
        "{mistakes:?}"
    );
    assert!(!mistakes[0].contains("s3cret"), "{mistakes:?}");

    node.write("mvproxy.conf", "current-context: gone\n");
    refused_once(&node.command_line(&[]), &["--kubeconfig: cannot use ", "mvproxy.conf", "gone"]);
}

#[test]
fn an_unknown_yaml_key_is_named_with_what_was_meant() {
    let node = Node::new();
    node.write("mvproxy.yaml", "secure_prot: 6443\n");
    let file = node.file_flags(&[("config", "mvproxy.yaml")]);
    refused_once(
        &node.command_line(&[&file[0]]),
        &["--config: ", "mvproxy.yaml", "unknown key \"secure_prot\"", "did you mean secure-port?"],
    );
}

#[test]
fn unreadable_sources_give_the_reason_once() {
    let node = Node::new();
    let cause = "No such file or directory (os error 2)";
    for flag in
        ["--config=/nonexistent/x", "--apiserver-manifest=/nonexistent/x", "--kubeconfig=/nonexistent/x"]
    {
        let mistakes = refused(&node.command_line(&[flag]));
        assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
        assert_eq!(mistakes[0].matches(cause).count(), 1, "{}", mistakes[0]);
    }
    node.write("mvproxy.yaml", "peers: [a\nworkers: 1\n");
    let file = node.file_flags(&[("config", "mvproxy.yaml")]);
    refused_once(&node.command_line(&[&file[0]]), &["--config: cannot parse ", "mvproxy.yaml", "line "]);
}

#[test]
fn mistakes_in_flags_and_in_files_are_listed_together() {
    let node = Node::new();
    node.write("ca.crt", "empty");
    std::fs::remove_file(node.path("apiserver.key")).unwrap();
    let mistakes = refused(&node.command_line(&[
        "--secure-port=0",
        "--no-such-flag",
        "--kubeconfig=",
        "--proxy-client-cert-file=",
    ]));
    let expected = [
        "--no-such-flag: unknown",
        "--secure-port: \"0\" is not a port",
        "--proxy-client-cert-file: required but not given",
        "--peers: empty",
        "--tls-private-key-file (from ",
        "--client-ca-file (from ",
    ];
    assert_eq!(mistakes.len(), expected.len(), "{mistakes:#?}");
    for (mistake, expected) in mistakes.iter().zip(expected) {
        assert!(mistake.starts_with(expected), "{mistake}\nis not {expected}");
    }
}

#[test]
fn nothing_at_all_names_everything_required() {
    let mistakes = refused(&words(&["mvproxy", "run"]));
    for flag in [
        "--tls-cert-file: ",
        "--tls-private-key-file: ",
        "--client-ca-file: ",
        "--proxy-client-cert-file: ",
        "--proxy-client-key-file: ",
        "--requestheader-client-ca-file: ",
    ] {
        let with_hint = |line: &String| line.starts_with(flag) && line.contains("--apiserver-manifest=");
        assert_eq!(mistakes.iter().filter(|line| with_hint(line)).count(), 1, "{flag} in {mistakes:#?}");
    }
}

#[test]
fn a_bad_log_filter_is_a_configuration_error() {
    let node = Node::new();
    let output = mvproxy_with(&node.command_line(&[]), &[("RUST_LOG", "mvproxy=loud")]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.starts_with("mvproxy: error: RUST_LOG: \"mvproxy=loud\" is not a log filter"), "{stderr}");
}

#[test]
fn an_occupied_port_is_the_environments_fault() {
    let node = Node::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (listen, admin) = (format!("--listen={address}"), format!("--admin-address={address}"));
    let output = mvproxy(&node.command_line(&["--steering=off", &listen, &admin]));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().filter(|line| line.starts_with("mvproxy: error: ")).count(), 1, "{stderr}");
}

#[test]
fn doubts_are_warnings_and_no_reason_to_stop() {
    let node = Node::new();
    node.issue("apiserver", node.ca(), &node::expired(node::serving()));
    node.issue("front-proxy-client", node.front_proxy_ca(), &node::client("front-proxy-client"));
    node.chmod("front-proxy-client.key", 0o644);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (listen, admin) = (format!("--listen={address}"), format!("--admin-address={address}"));
    let output = mvproxy(&node.command_line(&["--steering=off", "--logging-format=json", &listen, &admin]));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let warnings =
        |part: &str| stderr.lines().filter(|line| line.contains("\"WARN\"") && line.contains(part)).count();
    assert_eq!(warnings("expired on Jan"), 1, "{stderr}");
    assert_eq!(warnings("can be read by others (mode 0644)"), 1, "{stderr}");
}
