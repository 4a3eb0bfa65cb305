//! Clusters that are set up in other ways, and what must hold in them.

use mvproxy_tests::pki::Pki;
use mvproxy_tests::standin::{Documents, RequestHeader, Standin, StandinOptions};
use mvproxy_tests::store::Store;

use super::cards::*;
use super::row::{ANONYMOUS, AUTH, BOB, Field, Is, REFUSED, Row, certified, h, named, row};
use super::support::{Caller, Cluster, Http, Node, Proxy, ProxyOptions};

/// How kube-apiserver and the proxy before it are started.
#[derive(Clone, Copy, Default)]
pub struct Setting {
    /// One CA for clients and front proxies.
    pub one_ca: bool,
    /// Changes the `--requestheader-*` flags.
    pub names: Option<fn(&mut RequestHeader)>,
    /// The same for the proxy.
    pub flags: &'static [&'static str],
}

/// Two nodes; only the new one's server reviews subjects and has pods, one of which is there.
pub async fn cluster(setting: Setting) -> Cluster {
    let pki = if setting.one_ca { Pki::with_one_ca() } else { Pki::generate() }.unwrap();
    let store = Store::in_memory();
    let old = Documents::load("v1.34").unwrap();
    let old = old.without_resource("authentication.k8s.io", "v1", "selfsubjectreviews");
    let old = old.without_resource("", "v1", "pods");
    let mut servers = Vec::new();
    for (hostname, documents) in [("old", old), ("new", Documents::load("v1.36-all").unwrap())] {
        let mut options = StandinOptions::from_pki(&pki, hostname, "v1.36-all", &store).unwrap();
        options.documents = documents;
        if let (Some(change), Some(names)) = (setting.names, &mut options.request_header) {
            change(names);
        }
        let serving = options.serving.clone();
        servers.push((Standin::start(options).await.unwrap(), serving));
    }
    let [(old, old_serving), (new, new_serving)] = <[_; 2]>::try_from(servers).ok().unwrap();
    let start = |serving, local: &Standin, peer: &Standin| {
        let (local, peers) = (local.addr, &[peer.addr]);
        Proxy::start(&ProxyOptions { pki: &pki, serving, local, peers, flags: setting.flags })
    };
    let (old_proxy, new_proxy) = (start(&old_serving, &old, &new), start(&new_serving, &new, &old));
    let old = Node { standin: old, proxy: old_proxy, serving: old_serving };
    let new = Node { standin: new, proxy: new_proxy, serving: new_serving };
    let cluster = Cluster { old, new, pki, store };
    for node in [&cluster.old, &cluster.new] {
        node.proxy.ready().await;
        cluster.synced(&node.proxy).await;
    }
    add_pod(&cluster).await;
    cluster
}

async fn add_pod(cluster: &Cluster) {
    let pod = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}
    });
    let mut admin = Caller::admin(&cluster.pki).connect(cluster.new.standin.addr, Http::Two).await;
    let created = admin.json("POST", "/api/v1/namespaces/default/pods", &pod).await;
    assert_eq!(created.status, 201, "{}", created.text());
}

const TOKEN: Field = h("Authorization", "Bearer bob-token");
const WRONG: Field = h("Authorization", "Bearer wrong");
const CAROL: Field = h("X-Remote-User", "carol");
const MASTERS: Field = h("X-Remote-Group", "system:masters");
const ALICES: Is = Is::User(certified("alice", &["dev", "ops", AUTH]));
const THE_PROXY: Is = Is::User(certified("front-proxy-client", &[AUTH]));

/// The proxy's own certificate names a user here, whom nobody without a certificate may become.
pub static ONE_CA: &[Row] = &[
    row(&NOBODY, &[], ANONYMOUS),
    row(&NOBODY, &[CAROL, MASTERS], ANONYMOUS),
    row(&NOBODY, &[h("X-Remote-User", "")], ANONYMOUS),
    row(&NOBODY, &[h("Authorization", "Basic Ym9iOmJvYg==")], ANONYMOUS),
    row(&NOBODY, &[WRONG], REFUSED),
    row(&NOBODY, &[TOKEN], BOB),
    row(&NOBODY, &[TOKEN, CAROL, MASTERS], BOB),
    row(&ALICE, &[], ALICES),
    row(&ALICE, &[CAROL, MASTERS], ALICES),
    row(&ALICE, &[TOKEN], ALICES),
    row(&VERSION_1, &[CAROL, MASTERS], ALICES),
    row(&NAMELESS, &[CAROL, MASTERS], REFUSED),
    row(&STRANGER, &[CAROL, MASTERS], REFUSED),
    row(&STRANGER, &[TOKEN], BOB),
    row(&EXPIRED_PROXY, &[CAROL, MASTERS], REFUSED),
    row(&FRONT_PROXY, &[CAROL, MASTERS], Is::User(named("carol", &["system:masters", AUTH]))),
    row(&FRONT_PROXY, &[], THE_PROXY),
    row(&FRONT_PROXY, &[MASTERS], THE_PROXY),
    row(&FRONT_PROXY, &[TOKEN], THE_PROXY),
    row(&OTHER_PROXY, &[CAROL], Is::User(certified("other-proxy", &[AUTH]))),
];

pub const CUSTOM: Setting = Setting {
    one_ca: false,
    names: Some(|names| {
        let list = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect();
        names.username_headers = list(&["X-Remote-User", "X-Custom-User"]);
        names.group_headers = list(&["X-Remote-Group", "X_Custom_Group"]);
        names.uid_headers = list(&["X-Custom-Uid"]);
        names.extra_headers_prefixes = list(&["X-Custom-Extra-", "X-Remote-Extra-"]);
    }),
    flags: &[
        "--requestheader-username-headers=X-Remote-User,X-Custom-User",
        "--requestheader-group-headers=X-Remote-Group,X_Custom_Group",
        "--requestheader-uid-headers=X-Custom-Uid",
        "--requestheader-extra-headers-prefix=X-Custom-Extra-,X-Remote-Extra-",
    ],
};

const CUSTOM_USER: Field = h("X-Custom-User", "eve");
const CUSTOM_MASTERS: Field = h("X_Custom_Group", "system:masters");
const CUSTOM_UID: Field = h("X-Custom-Uid", "e-1");
const CUSTOM_SCOPES: Field = h("X-Custom-Extra-Scopes", "some");
const SCOPES: Field = h("X-Remote-Extra-Scopes", "all");
const UNDERSCORES: &[Field] =
    &[h("X_Custom_User", "eve"), h("X-Custom-Group", "system:masters"), h("x_custom-extra_scopes", "some")];

/// Where the names of headers are not the usual ones, both sets are watched.
pub static CUSTOM_NAMES: &[Row] = &[
    row(&NOBODY, &[CUSTOM_USER, CUSTOM_MASTERS, CUSTOM_UID, CUSTOM_SCOPES], ANONYMOUS),
    row(&NOBODY, UNDERSCORES, ANONYMOUS),
    row(&NOBODY, &[TOKEN, CUSTOM_USER, CUSTOM_MASTERS, CUSTOM_SCOPES], BOB),
    row(&ALICE, &[], ALICES),
    row(&ALICE, &[CUSTOM_USER, CUSTOM_MASTERS, CUSTOM_UID, CUSTOM_SCOPES], ALICES),
    row(&ALICE, &[CAROL, MASTERS, SCOPES, h("X-Remote-Uid", "0")], ALICES),
    row(&ALICE, UNDERSCORES, ALICES),
    row(&WITH_UID, &[], Is::User(certified("dave", &[AUTH]).uid("u-1"))),
    row(&STRANGER, &[CUSTOM_USER, CUSTOM_MASTERS], REFUSED),
    row(&FRONT_PROXY, &[CUSTOM_USER], Is::User(named("eve", &[AUTH]))),
    row(&FRONT_PROXY, &[CUSTOM_USER, CAROL], Is::User(named("carol", &[AUTH]))),
    row(&FRONT_PROXY, &[h("X-Remote-User", ""), CUSTOM_USER], Is::User(named("eve", &[AUTH]))),
    row(&FRONT_PROXY, &[CAROL, h("X-Remote-Uid", "0")], Is::User(named("carol", &[AUTH]))),
    row(&FRONT_PROXY, &[CAROL, CUSTOM_UID], Is::User(named("carol", &[AUTH]).uid("e-1"))),
    row(
        &FRONT_PROXY,
        &[CAROL, CUSTOM_MASTERS, h("X-Remote-Group", "g1"), SCOPES, CUSTOM_SCOPES],
        Is::User(named("carol", &["g1", "system:masters", AUTH]).extra(&[("scopes", &["some", "all"])])),
    ),
    row(&FRONT_PROXY, UNDERSCORES, REFUSED),
];

/// kubeadm does not name a UID header, and an API server reads none that it is not told.
pub const KUBEADM: Setting =
    Setting { one_ca: false, names: Some(|names| names.uid_headers.clear()), flags: &[] };

pub static NO_UID_HEADER: &[Row] = &[
    row(&WITH_UID, &[], Is::LosesUid(certified("dave", &[AUTH]).uid("u-1"))),
    row(&FRONT_PROXY, &[CAROL, h("X-Remote-Uid", "c-1")], Is::User(named("carol", &[AUTH]))),
    row(&ALICE, &[h("X-Remote-Uid", "0")], ALICES),
    row(&NOBODY, &[TOKEN, h("X-Remote-Uid", "0")], BOB),
];
