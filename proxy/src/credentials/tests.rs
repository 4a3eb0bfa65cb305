use std::path::PathBuf;

use rcgen::DnType;

use super::judge::Doubt;
use super::*;
use crate::config::{self, Flag, Invocation};

#[allow(dead_code, reason = "shared with the command-line tests, which use other parts of it")]
#[path = "../../tests/cli/node.rs"]
mod node;

use node::Node;

fn config(node: &Node, more: &[&str]) -> Config {
    match config::parse(node.command_line(more)) {
        Ok(Invocation::Run(config)) => *config,
        other => panic!("{other:?}"),
    }
}

/// With static peers and no kubeconfig, so that nothing but files can name the peers' CA.
fn config_without_own_credentials(node: &Node) -> Config {
    config(node, &["--kubeconfig=", "--peers=10.43.7.12:6443"])
}

fn mistakes(config: &Config) -> Vec<CredentialError> {
    match Credentials::load(config) {
        Ok(credentials) => panic!("loaded {credentials:?}"),
        Err(mistakes) => mistakes,
    }
}

fn doubts(config: &Config) -> Vec<Doubt> {
    judge::doubts(config, &Credentials::load(config).unwrap())
}

fn flag(name: &'static str, node: &Node) -> Flag {
    Flag { name, file: Some(node.path("kube-apiserver.yaml").into()) }
}

#[test]
fn a_sound_node_loads_without_doubts() {
    let node = Node::new();
    let config = config(&node, &[]);
    let credentials = Credentials::load(&config).unwrap();
    assert_eq!((credentials.client_ca.len(), credentials.peer_ca.len()), (1, 1));
    assert_eq!(credentials.request_header_ca.len(), 1);
    assert_eq!(verify::common_name(&credentials.serving.cert[0]).as_deref(), Some("kube-apiserver"));
    assert_eq!(judge::doubts(&config, &credentials), []);
}

#[test]
fn debug_prints_names_and_no_material() {
    let node = Node::new();
    let credentials = Credentials::load(&config(&node, &[])).unwrap();
    let text = format!("{credentials:?}");
    assert!(text.contains("CN=kube-apiserver") && text.contains("CN=front-proxy-client"), "{text}");
    assert!(text.len() < 400 && !text.contains("0x") && !text.to_lowercase().contains("key"), "{text}");
}

#[test]
fn every_file_that_cannot_be_used_is_named() {
    let node = Node::new();
    std::fs::remove_file(node.path("apiserver.crt")).unwrap();
    node.write("apiserver.key", "");
    node.write("ca.crt", "no PEM here");
    std::fs::remove_file(node.path("front-proxy-client.key")).unwrap();
    std::fs::create_dir(node.path("front-proxy-client.key")).unwrap();
    node.write("front-proxy-ca.crt", "-----BEGIN CERTIFICATE-----\nnot base64!\n-----END CERTIFICATE-----\n");
    node.write("peer-ca.crt", "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n");
    let peer_ca = format!("--peer-ca-file={}", node.path("peer-ca.crt").display());
    // The kubeconfig names ca.crt too, and would be refused first.
    let config = config(&node, &["--kubeconfig=", "--peers=10.43.7.12:6443", &peer_ca]);

    let found = mistakes(&config);
    let [no_file, no_key, no_certificate, damaged, folder, bad] = found.as_slice() else {
        panic!("{found:#?}")
    };
    assert!(matches!(no_file, CredentialError::NotFound { flag, .. } if flag.name == "tls-cert-file"));
    assert!(matches!(no_key, CredentialError::NoKey { flag, .. } if flag.name == "tls-private-key-file"));
    assert!(
        matches!(no_certificate, CredentialError::NoCertificate { flag, .. } if flag.name == "client-ca-file")
    );
    assert!(
        matches!(folder, CredentialError::Unreadable { flag, .. } if flag.name == "proxy-client-key-file")
    );
    assert!(
        matches!(damaged, CredentialError::DamagedPem { flag, .. } if flag.name == "requestheader-client-ca-file")
    );
    assert!(
        matches!(bad, CredentialError::BadCertificate { flag, number: 1, .. } if flag.name == "peer-ca-file")
    );
    for mistake in &found {
        let (text, file) = (mistake.to_string(), mistake.file().unwrap().display().to_string());
        assert!(text.starts_with("--") && text.contains(&file), "{text}");
    }
}

#[test]
fn a_key_of_another_certificate_is_refused_with_both_names() {
    let node = Node::new();
    std::fs::copy(node.path("front-proxy-client.key"), node.path("apiserver.key")).unwrap();
    let found = mistakes(&config(&node, &[]));
    assert_eq!(found.len(), 1, "{found:?}");
    let text = found[0].to_string();
    for part in ["--tls-private-key-file", "apiserver.key", "--tls-cert-file", "apiserver.crt"] {
        assert!(text.contains(part), "{text} lacks {part}");
    }
}

#[test]
fn a_ca_in_common_is_refused_unless_names_are_limited() {
    let node = Node::new();
    let ca = std::fs::read_to_string(node.path("ca.crt")).unwrap();
    let front = std::fs::read_to_string(node.path("front-proxy-ca.crt")).unwrap();
    node.write("front-proxy-ca.crt", &format!("{front}{ca}"));
    Credentials::load(&config(&node, &[])).unwrap();

    let open = config(&node, &["--requestheader-allowed-names="]);
    let found = mistakes(&open);
    assert_eq!(found.len(), 1, "{found:?}");
    let text = found[0].to_string();
    for part in ["--requestheader-client-ca-file", "--client-ca-file", "CN=kubernetes"] {
        assert!(text.contains(part), "{text} lacks {part}");
    }
}

#[test]
fn peers_are_verified_with_the_first_ca_that_is_there() {
    let node = Node::new();
    let other = node::authority(node.path("").as_path(), "other-ca", "other");
    let anchors = |config: &Config| Credentials::load(config).unwrap().peer_ca;
    let of = |file: &str| files::bundle(&Flag::bare("client-ca-file"), &node.path(file)).unwrap();
    let given = format!("--peer-ca-file={}", node.path("other-ca.crt").display());
    assert!(anchors(&config(&node, &[&given])) == of("other-ca.crt"), "the flag's");
    assert!(anchors(&config_without_own_credentials(&node)) == of("ca.crt"), "the client CA");

    node.issue("apiserver", &other, &node::serving());
    assert!(anchors(&config(&node, &[])) == of("ca.crt"), "the kubeconfig's");
    let found = mistakes(&config_without_own_credentials(&node));
    assert!(matches!(found.as_slice(), [CredentialError::NoPeerCa { .. }]), "{found:?}");
    assert!(found[0].to_string().starts_with("--peer-ca-file: "), "{}", found[0]);
}

#[test]
fn the_client_ca_vouches_for_an_expired_serving_certificate_too() {
    let node = Node::new();
    node.issue("apiserver", node.ca(), &node::expired(node::serving()));
    let config = config_without_own_credentials(&node);
    let found = doubts(&config);
    assert!(
        matches!(found.as_slice(), [Doubt::Expired { flag, since, .. }]
            if flag.name == "tls-cert-file" && since.contains("2020")),
        "{found:?}"
    );
}

#[test]
fn keys_that_others_can_read_are_pointed_out() {
    let node = Node::new();
    for (mode, expected) in [(0o600, false), (0o400, false), (0o640, true), (0o644, true), (0o604, true)] {
        node.chmod("apiserver.key", mode);
        let file = node.path("apiserver.key");
        let doubt = Doubt::ReadableByOthers { flag: flag("tls-private-key-file", &node), file, mode };
        let expected: Vec<Doubt> = expected.then_some(doubt).into_iter().collect();
        assert_eq!(doubts(&config(&node, &[])), expected, "{mode:o}");
    }
}

#[test]
fn a_front_proxy_certificate_that_will_not_work_is_pointed_out() {
    let node = Node::new();
    let flag = || flag("proxy-client-cert-file", &node);
    let file: PathBuf = node.path("front-proxy-client.crt");

    let mut params = node::client("somebody");
    params.distinguished_name.push(DnType::OrganizationName, "system:masters");
    node.issue("front-proxy-client", node.front_proxy_ca(), &params);
    let names_flag = self::flag("requestheader-allowed-names", &node);
    let name = "somebody".to_owned();
    let expected = [
        Doubt::NameNotAllowed { flag: flag(), file: file.clone(), name, names_flag },
        Doubt::HasGroups { flag: flag(), file: file.clone() },
    ];
    assert_eq!(doubts(&config(&node, &[])), expected);

    node.issue("front-proxy-client", node.ca(), &node::client("front-proxy-client"));
    let ca_flag = self::flag("requestheader-client-ca-file", &node);
    let client_flag = self::flag("client-ca-file", &node);
    let expected = [
        Doubt::NotAFrontProxy { flag: flag(), file: file.clone(), ca_flag },
        Doubt::AlsoAClient { flag: flag(), file, client_flag },
    ];
    assert_eq!(doubts(&config(&node, &[])), expected);
}

/// The credentials after a change of files, and what was wrong with those.
fn reloaded(config: &Config, change: impl FnOnce()) -> (Credentials, Credentials, Vec<CredentialError>) {
    let former = Credentials::load(config).unwrap();
    change();
    let (fresh, mistakes) = former.reload(config);
    (former, fresh, mistakes)
}

#[test]
fn a_reload_keeps_what_did_not_change() {
    let node = Node::new();
    let config = config(&node, &[]);
    let (former, fresh, mistakes) = reloaded(&config, || {});
    assert!(fresh.changes(&former).is_empty() && mistakes.is_empty());

    let (former, fresh, mistakes) =
        reloaded(&config, || node.issue("apiserver", node.ca(), &node::serving()));
    assert!(mistakes.is_empty());
    assert_eq!(fresh.changes(&former), ["tls-cert-file"]);
    assert_ne!(fresh.serving.cert, former.serving.cert);
}

#[test]
fn half_of_a_new_pair_keeps_the_whole_old_one() {
    let node = Node::new();
    let config = config(&node, &[]);
    let (former, fresh, mistakes) = reloaded(&config, || {
        let key = std::fs::read_to_string(node.path("apiserver.key")).unwrap();
        node.issue("apiserver", node.ca(), &node::serving());
        node.write("apiserver.key", &key);
        std::fs::remove_file(node.path("front-proxy-client.key")).unwrap();
    });
    assert!(fresh.changes(&former).is_empty());
    let [mismatch, missing] = mistakes.as_slice() else { panic!("{mistakes:?}") };
    assert!(matches!(mismatch, CredentialError::KeyMismatch { .. }), "{mismatch}");
    assert!(matches!(missing, CredentialError::NotFound { .. }), "{missing}");
}

#[test]
fn a_broken_file_does_not_hold_up_the_others() {
    let node = Node::new();
    let config = config(&node, &["--kubeconfig=", "--peers=10.43.7.12:6443"]);
    let other = node::authority(node.path("").as_path(), "other-ca", "other");
    drop(other);
    let added = std::fs::read_to_string(node.path("other-ca.crt")).unwrap();
    let (former, fresh, mistakes) = reloaded(&config, || {
        node.write("apiserver.crt", "no PEM here");
        let ca = std::fs::read_to_string(node.path("ca.crt")).unwrap();
        node.write("ca.crt", &format!("{ca}{added}"));
    });
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    assert!(Arc::ptr_eq(&fresh.serving, &former.serving));
    assert_eq!((former.client_ca.len(), fresh.client_ca.len()), (1, 2));
}

#[test]
fn a_reload_that_would_let_anybody_act_as_anybody_leaves_both_cas() {
    let node = Node::new();
    let open = config(&node, &["--requestheader-allowed-names="]);
    let (former, fresh, mistakes) = reloaded(&open, || {
        std::fs::copy(node.path("ca.crt"), node.path("front-proxy-ca.crt")).unwrap();
    });
    assert!(matches!(mistakes.as_slice(), [CredentialError::SharedCa { .. }]), "{mistakes:?}");
    assert!(fresh.changes(&former).is_empty());
}

#[test]
fn a_ca_counts_while_it_is_valid() {
    let node = Node::new();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.not_before = rcgen::date_time_ymd(2030, 1, 1);
    params.not_after = rcgen::date_time_ymd(2031, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let ca = std::fs::read_to_string(node.path("ca.crt")).unwrap();
    node.write("ca.crt", &format!("{ca}{}", params.self_signed(&key).unwrap().pem()));
    let bundle = Credentials::load(&config(&node, &[])).unwrap().client_ca;

    let day = |days: u64| UnixTime::since_unix_epoch(std::time::Duration::from_hours(days * 24));
    let (begins, ends) = (day(21_915), day(22_280));
    let seconds = |moment: UnixTime, more: u64| {
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(moment.as_secs() + more))
    };
    let before = UnixTime::since_unix_epoch(std::time::Duration::from_secs(begins.as_secs() - 1));
    for (moment, valid) in [(before, 1), (begins, 2), (ends, 2), (seconds(ends, 1), 1)] {
        assert_eq!(bundle.valid_at(moment).len(), valid, "{moment:?}");
    }
    assert_eq!(bundle.next_change(before), Some(begins));
    assert_eq!(bundle.next_change(begins), Some(seconds(ends, 1)));
}

#[test]
fn every_certificate_in_use_has_an_end() {
    let node = Node::new();
    let expirations = Credentials::load(&config(&node, &[])).unwrap().expirations();
    let flags: Vec<&str> = expirations.iter().map(|expiration| expiration.flag).collect();
    let expected = [
        "tls-cert-file",
        "proxy-client-cert-file",
        "client-ca-file",
        "requestheader-client-ca-file",
        "peer-ca-file",
    ];
    assert_eq!(flags, expected);
    assert!(expirations.iter().all(|expiration| expiration.not_after > UnixTime::now()));
}
