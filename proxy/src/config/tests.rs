use std::path::Path;

use super::*;

/// A folder with a usable kubeconfig, so that only what a test gets wrong is wrong.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("mvproxy.conf", KUBECONFIG);
        folder
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn flag(&self, flag: &str, file: &str, text: &str) -> String {
        format!("--{flag}={}", self.write(file, text).display())
    }
}

const KUBECONFIG: &str = "
current-context: c
clusters: [{name: k, cluster: {server: 'https://10.0.0.1:6443'}}]
contexts: [{name: c, context: {cluster: k, user: u}}]
users: [{name: u, user: {token: s3cret}}]
";

const REQUIRED: [&str; 6] = [
    "--tls-cert-file=/pki/apiserver.crt",
    "--tls-private-key-file=/pki/apiserver.key",
    "--client-ca-file=/pki/ca.crt",
    "--proxy-client-cert-file=/pki/front-proxy-client.crt",
    "--proxy-client-key-file=/pki/front-proxy-client.key",
    "--requestheader-client-ca-file=/pki/front-proxy-ca.crt",
];

fn run<'a>(flags: impl IntoIterator<Item = &'a str>) -> Result<Config, Vec<String>> {
    match parse(["mvproxy", "run"].into_iter().chain(flags)) {
        Ok(Invocation::Run(config)) => Ok(*config),
        Ok(other) => panic!("{other:?}"),
        Err(rejected) => Err(rejected.mistakes.iter().map(ToString::to_string).collect()),
    }
}

/// With everything that is required and static peers.
fn complete(flags: &[&str]) -> Result<Config, Vec<String>> {
    run(REQUIRED.into_iter().chain(["--peers=10.0.0.7:6443"]).chain(flags.iter().copied()))
}

#[test]
fn defaults_are_the_documented_ones() {
    let config = complete(&[]).unwrap();
    assert_eq!(config.secure_port, 6443);
    assert_eq!(config.local_apiserver.to_string(), "127.0.0.1:6443");
    assert_eq!(config.local_source_ip.to_string(), "127.64.43.1");
    assert!(config.listen.ip().is_unspecified() && config.listen.port() == 0);
    assert_eq!(config.admin_address.to_string(), "127.0.0.1:9643");
    assert_eq!(config.discovery_interval, Duration::from_secs(5));
    assert_eq!(config.peer_stale_after, Duration::from_mins(10));
    assert!(config.peer_allowed_cidrs.is_empty());
    assert_eq!(config.state_dir.as_deref(), Some(Path::new("/var/lib/mvproxy")));
    assert_eq!((config.steering, config.log_format), (SteeringMode::Auto, LogFormat::Text));
    assert!(config.canary.is_everyone());
    assert_eq!(config.peer_lane_ports, Some(LanePorts::DEFAULT));
    assert_eq!(config.bpffs_dir, Path::new("/sys/fs/bpf/mvproxy"));
    assert!((1..=4).contains(&config.workers.get()));
    assert!(config.mixed_version && config.request_header.allowed_names.is_empty());
    assert_eq!(config.request_header.username, ["X-Remote-User"]);
    assert_eq!(config.request_header.group, ["X-Remote-Group"]);
    assert_eq!(config.request_header.uid, ["X-Remote-Uid"]);
    assert_eq!(config.request_header.extra_prefix, ["X-Remote-Extra-"]);
    assert_eq!((config.verbosity, config.peer_advertise_ip, config.cgroup), (0, None, None));
}

#[test]
fn every_flag_reaches_its_field() {
    let config = complete(&[
        "--secure-port=8443",
        "--listen=127.0.0.1:1",
        "--local-source-ip=127.1.2.3",
        "--requestheader-allowed-names=a,b",
        "--requestheader-allowed-names",
        "c",
        "--requestheader-uid-headers=",
        "--peer-ca-file=/pki/peer-ca.crt",
        "--peer-advertise-ip=10.0.0.9",
        "--peer-advertise-port=7",
        "--peer-allowed-cidrs=10.1.0.0/16,fd00::/8",
        "--peer-stale-after=1h30m",
        "--state-dir=/s",
        "--steering=on-skew",
        "--steer-sources=10.0.0.0/8,::1",
        "--steer-percent=5",
        "--cut-rate=7",
        "--peer-lane-ports=63000-63001",
        "--bpffs-dir=/b",
        "--cgroup=/c",
        "--admin-address=127.0.0.1:2",
        "--discovery-interval=1m30s",
        "--workers=3",
        "--feature-gates=UnknownVersionInteroperabilityProxy=false",
        "--logging-format=json",
        "-v=2",
        "--v=4",
    ])
    .unwrap();
    assert_eq!((config.secure_port, config.local_apiserver.port()), (8443, 8443));
    assert_eq!(
        (config.listen.port(), config.admin_address.port(), config.peer_advertise_port),
        (1, 2, Some(7))
    );
    assert_eq!(config.local_source_ip.to_string(), "127.1.2.3");
    assert_eq!(config.request_header.allowed_names, ["a", "b", "c"]);
    assert!(config.request_header.uid.is_empty());
    assert_eq!(config.files.peer_ca.as_deref(), Some(Path::new("/pki/peer-ca.crt")));
    assert_eq!(config.peer_allowed_cidrs.len(), 2);
    assert_eq!(config.peer_stale_after, Duration::from_mins(90));
    assert_eq!(config.state_dir.as_deref(), Some(Path::new("/s")));
    assert_eq!(complete(&["--state-dir="]).unwrap().state_dir, None);
    assert_eq!(config.peer_advertise_ip.unwrap().to_string(), "10.0.0.9");
    assert_eq!((config.steering, config.log_format), (SteeringMode::OnSkew, LogFormat::Json));
    assert_eq!(config.canary.to_string(), "5% of client addresses in 10.0.0.0/8 and 1 more networks");
    assert_eq!(
        (config.bpffs_dir.as_path(), config.cgroup.as_deref()),
        (Path::new("/b"), Some(Path::new("/c")))
    );
    assert_eq!(config.peer_lane_ports, Some(LanePorts { first: 63000, last: 63001 }));
    assert_eq!(config.cut_rate.map(NonZeroU32::get), Some(7));
    assert_eq!((config.discovery_interval.as_secs(), config.workers.get()), (90, 3));
    assert_eq!((config.mixed_version, config.verbosity), (false, 4));
    assert_eq!(config.files.tls_private_key, Path::new("/pki/apiserver.key"));
    assert_eq!(config.files.proxy_client_key, Path::new("/pki/front-proxy-client.key"));
    assert_eq!(config.peers, [PeerAddress { host: "10.0.0.7".to_owned(), port: 6443 }]);
}

#[test]
fn the_first_place_that_has_a_value_wins() {
    let folder = Folder::new();
    let manifest = "spec: {containers: [{name: kube-apiserver, command: [kube-apiserver, --secure-port=1003, \
                    --peer-advertise-port=1003, --client-ca-file=/manifest/ca.crt, \
                    --requestheader-allowed-names=m]}]}";
    let manifest = folder.write("kube-apiserver.yaml", manifest);
    let file = format!(
        "apiserver-manifest: {}\nsecure-port: 1002\npeer-advertise-port: 1002\nworkers: 2\nsteering: off\npeers: \
         [10.0.0.8:6443, '[fd00::8]:6443']\nlisten:\nrequestheader-allowed-names: a,b\nfeature-gates: \
         {{UnknownVersionInteroperabilityProxy: false}}\n",
        manifest.display()
    );
    let file = folder.flag("config", "mvproxy.yaml", &file);
    let others = REQUIRED.into_iter().filter(|flag| !flag.starts_with("--client-ca-file"));
    let config = run(others.chain([file.as_str(), "--secure-port=1001"])).unwrap();

    assert_eq!(config.secure_port, 1001, "the command line wins");
    assert_eq!((config.peer_advertise_port, config.workers.get()), (Some(1002), 2), "then the file");
    assert_eq!(config.request_header.allowed_names, ["a", "b"], "a list is not merged with the manifest's");
    assert_eq!(config.files.client_ca, Path::new("/manifest/ca.crt"), "then the manifest");
    assert_eq!(config.discovery_interval, Duration::from_secs(5), "then the default");
    assert_eq!((config.steering, config.mixed_version), (SteeringMode::Off, false));
    assert_eq!(config.peers[1], PeerAddress { host: "fd00::8".to_owned(), port: 6443 });
    assert_eq!(config.origins.flag("secure-port").to_string(), "--secure-port");
    assert_eq!(config.origins.of("client-ca-file"), Some(&Origin::Manifest(manifest.clone())));
    let named = config.origins.flag("client-ca-file").to_string();
    assert_eq!(named, format!("--client-ca-file (from {})", manifest.display()));
    assert_eq!(config.origins.of("discovery-interval"), None);
}

#[test]
fn an_empty_value_on_the_command_line_overrides_the_file() {
    let folder = Folder::new();
    let file = folder.flag("config", "mvproxy.yaml", "peer-ca-file: /pki/peer-ca.crt\nsecure-port: 1002\n");
    let config = complete(&[&file, "--peer-ca-file=", "--secure-port="]).unwrap();
    assert_eq!((config.files.peer_ca, config.secure_port), (None, 6443));
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let folder = Folder::new();
    let file = folder.flag("config", "mvproxy.yaml", "secureport: 1\nworkers: many\npeers: [cp-2]\n");
    let mistakes = run([
        file.as_str(),
        "--secure-prt=1",
        "--secure-port=70000",
        "--steering=maybe",
        "--feature-gates=Other=true,UnknownVersionInteroperabilityProxy=yes",
        "--requestheader-username-headers=X Remote",
        "--tls-cert-file=/pki/apiserver.crt",
    ])
    .unwrap_err();
    let expected = [
        "--secure-prt: unknown, did you mean --secure-port?",
        "unknown key \"secureport\", did you mean secure-port?",
        "--secure-port: \"70000\" is not a port",
        "--steering: \"maybe\" is not a steering mode",
        "--tls-private-key-file: required but not given",
        "--client-ca-file: required but not given",
        "--proxy-client-cert-file: required but not given",
        "--proxy-client-key-file: required but not given",
        "--requestheader-client-ca-file: required but not given",
        "--requestheader-username-headers: \"X Remote\" is not an HTTP header name",
        "--peers (from ",
        "--feature-gates: unknown feature gate \"Other\"",
        "--feature-gates: \"UnknownVersionInteroperabilityProxy=yes\" is not GATE=true or GATE=false",
        "--workers (from ",
    ];
    assert_eq!(mistakes.len(), expected.len(), "{mistakes:#?}");
    for (mistake, expected) in mistakes.iter().zip(expected) {
        assert!(mistake.contains(expected), "{mistake}\nlacks {expected}");
    }
    assert!(mistakes[4].contains("--apiserver-manifest="), "{}", mistakes[4]);
}

#[test]
fn what_a_broken_file_may_have_is_not_called_missing() {
    let folder = Folder::new();
    let missing = run(["--config=/nonexistent/mvproxy.yaml"]).unwrap_err();
    assert_eq!(missing, ["--config: cannot read /nonexistent/mvproxy.yaml"]);

    let kubeconfig = format!("--kubeconfig={}", folder.0.path().join("mvproxy.conf").display());
    for (text, expected) in [
        ("secure-port: [1", "--config: cannot parse "),
        ("- secure-port", "--config: cannot parse "),
        ("secure-port: 1\nsecure-port: 2\n", "--config: cannot parse "),
    ] {
        let file = folder.flag("config", "mvproxy.yaml", text);
        let mistakes = run([file.as_str(), kubeconfig.as_str()]).unwrap_err();
        assert!(mistakes.len() == 1 && mistakes[0].starts_with(expected), "{text}: {mistakes:?}");
    }
    for (text, expected) in [
        ("{", "--apiserver-manifest: cannot parse "),
        ("kind: Pod\nspec: {containers: [{name: etcd, command: [etcd]}]}", "has no container that runs"),
        ("kind: Pod", "has no container that runs"),
        ("spec: {containers: [{name: kube-apiserver, command: [sh, -c, x]}]}", "without any flag"),
    ] {
        let file = folder.flag("apiserver-manifest", "m.yaml", text);
        let mistakes = run([file.as_str(), kubeconfig.as_str()]).unwrap_err();
        assert!(mistakes.len() == 1 && mistakes[0].contains(expected), "{text}: {mistakes:?}");
    }
}

#[test]
fn an_empty_config_file_is_fine() {
    let folder = Folder::new();
    for text in ["", "# nothing yet\n", "{}"] {
        complete(&[&folder.flag("config", "mvproxy.yaml", text)]).unwrap();
    }
}

#[test]
fn the_config_file_cannot_name_another() {
    let folder = Folder::new();
    let mistakes = complete(&[&folder.flag("config", "mvproxy.yaml", "config: other.yaml")]).unwrap_err();
    assert!(mistakes.len() == 1 && mistakes[0].contains("unknown key \"config\""), "{mistakes:?}");
}

#[test]
fn sources_that_cannot_carry_connections_are_refused() {
    for (flags, expected) in [
        (&["--local-apiserver=[::1]:6443"][..], "does not go with --local-apiserver=[::1]:6443"),
        (&["--local-source-ip=127.0.0.1"][..], "does not go with --steering=auto"),
        (&["--local-source-ip=10.0.0.1"][..], "is not a loopback address"),
    ] {
        let mistakes = complete(flags).unwrap_err();
        assert!(mistakes.len() == 1 && mistakes[0].contains(expected), "{flags:?}: {mistakes:?}");
    }
    complete(&["--local-source-ip=127.0.0.1", "--steering=off"]).unwrap();
    complete(&["--local-source-ip=::1", "--local-apiserver=[::1]:6443"]).unwrap();
}

#[test]
fn a_canary_needs_steering_and_sane_numbers() {
    for (flags, expected) in [
        (&["--steering=off", "--steer-percent=5"][..], "--steer-percent: 5 does not go with --steering=off"),
        (
            &["--steering=off", "--steer-sources=::1"][..],
            "--steer-sources: ::1/128 does not go with --steering=off",
        ),
        (&["--steer-percent=0"][..], "--steer-percent: \"0\" is not a percentage"),
        (&["--steer-percent=101"][..], "--steer-percent: \"101\" is not a percentage"),
        (
            &["--steer-sources=::ffff:10.0.0.0/104"][..],
            "--steer-sources: \"::ffff:10.0.0.0/104\" is not a network such as 10.0.0.0/8; write what is IPv4 as IPv4",
        ),
        (&["--steer-sources=10.0.0.0/33"][..], "--steer-sources: \"10.0.0.0/33\" is not a network"),
    ] {
        let mistakes = complete(flags).unwrap_err();
        assert!(mistakes.len() == 1 && mistakes[0].contains(expected), "{flags:?}: {mistakes:?}");
    }
    let many: Vec<_> = (0..1024).map(|net| format!("10.{}.{}.0/24", net / 256, net % 256)).collect();
    let mistakes = complete(&[&format!("--steer-sources={}", many.join(","))]).unwrap_err();
    assert!(mistakes[0].contains("1024 networks"), "{mistakes:?}");
    complete(&["--steering=off", "--steer-percent=100"]).unwrap();
}

#[test]
fn the_wire_needs_interfaces_and_a_kernel_side() {
    for (flags, expected) in [
        (
            &["--steering=off", "--xdp-interface=eth0"][..],
            "--xdp-interface: eth0 does not go with --steering=off",
        ),
        (&["--xdp-syn-rate=5"][..], "--xdp-syn-rate: 5 does not go with --xdp-interface="),
        (
            &["--xdp-interface=eth0,a/b"][..],
            "--xdp-interface: \"a/b\" is not the name of a network interface",
        ),
        (&["--xdp-interface=sixteen-letters-"][..], "is not the name of a network interface"),
        (&["--xdp-interface=eth0,eth0"][..], "--xdp-interface: \"eth0\" is not named once"),
        (&["--xdp-interface=eth0", "--xdp-syn-rate=many"][..], "--xdp-syn-rate: \"many\" is not a number"),
    ] {
        let mistakes = complete(flags).unwrap_err();
        assert!(mistakes.len() == 1 && mistakes[0].contains(expected), "{flags:?}: {mistakes:?}");
    }
    let flags = ["--xdp-interface=eth0,bond0.100", "--xdp-interface=lo", "--xdp-syn-rate=20"];
    let config = complete(&flags).unwrap();
    assert_eq!(config.xdp.interfaces, ["eth0", "bond0.100", "lo"]);
    assert_eq!(config.xdp.syn_rate.unwrap().get(), 20);
    let config = complete(&["--xdp-interface=eth0", "--xdp-syn-rate=0"]).unwrap();
    assert_eq!(config.xdp.syn_rate, None);
    let config = complete(&["--steering=off", "--xdp-interface=", "--xdp-syn-rate=0"]).unwrap();
    assert!(config.xdp.interfaces.is_empty());
}

#[test]
fn cutting_and_the_lane_can_be_switched_off() {
    assert_eq!(complete(&["--cut-rate=0"]).unwrap().cut_rate, None);
    assert_eq!(complete(&["--peer-lane-ports=off"]).unwrap().peer_lane_ports, None);
    for wrong in ["700", "701-700", "0-1024", "1-65536", "a-b"] {
        let mistakes = complete(&[&format!("--peer-lane-ports={wrong}")]).unwrap_err();
        assert!(mistakes[0].contains("is not a range of ports"), "{mistakes:?}");
    }
}

#[test]
fn own_credentials_point_at_the_local_api_server() {
    let folder = Folder::new();
    let kubeconfig = folder.flag("kubeconfig", "mvproxy.conf", KUBECONFIG);
    let config = complete(&[&kubeconfig, "--secure-port=7443"]).unwrap();
    let own = own_credentials(&config).unwrap().unwrap();
    assert_eq!(own.cluster_url, "https://127.0.0.1:7443/");
    assert_eq!(own.tls_server_name.as_deref(), Some("kubernetes.default.svc"));
    assert!(own.proxy_url.is_none() && own.auth_info.token.is_some());
}

#[test]
fn a_broken_kubeconfig_is_named_and_its_text_kept_back() {
    let folder = Folder::new();
    for (text, expected) in [
        ("users: s3cret", "is not a kubeconfig: see line 1, column"),
        ("clusters:\n  - name: {s3cret", "is not a kubeconfig: see line"),
        ("clusters: []", "cannot use"),
        ("current-context: gone", "cannot use"),
    ] {
        let kubeconfig = folder.flag("kubeconfig", "broken.conf", text);
        let mistakes = complete(&[&kubeconfig]).unwrap_err();
        assert!(mistakes.len() == 1 && mistakes[0].starts_with("--kubeconfig: "), "{mistakes:?}");
        assert!(mistakes[0].contains(expected) && mistakes[0].contains("broken.conf"), "{mistakes:?}");
        assert!(!mistakes[0].contains("s3cret"), "{mistakes:?}");
    }
    let mistakes = complete(&["--kubeconfig=/nonexistent/admin.conf"]).unwrap_err();
    assert_eq!(mistakes, ["--kubeconfig: cannot read /nonexistent/admin.conf"]);
}

#[test]
fn discovered_peers_need_credentials() {
    let in_pod = Path::new(own::IN_CLUSTER).join("ca.crt").exists();
    for flags in [&[][..], &["--peers="][..]] {
        match run(REQUIRED.into_iter().chain(flags.iter().copied())) {
            Ok(_) => assert!(in_pod, "credentials came from nowhere"),
            Err(mistakes) => {
                assert!(mistakes.len() == 1 && mistakes[0].starts_with("--peers: empty"), "{mistakes:?}");
                assert!(mistakes[0].contains("--kubeconfig") && mistakes[0].contains(own::IN_CLUSTER));
            }
        }
    }
}
