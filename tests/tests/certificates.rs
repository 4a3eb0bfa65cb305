//! Certificates that say something unusual: of an old version, valid for a moment only, of a CA whose time is over.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mvproxy_tests::pki::Identity;
use mvproxy_tests::pki::forge::{Attribute, CLIENT_AUTH, CN, Draft, O, SERVER_AUTH, Signer};
use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};
use support::{BOTH, Caller, Cluster, Http, Resuming, both_serve, bounded, only_new_serves};

const ALICE: &[&[Attribute<'static>]] = &[&[Attribute::utf8(O, "dev")], &[Attribute::utf8(CN, "alice")]];

/// `openssl x509 -req` writes version 1 when nobody gives it extensions; Go takes it, so kube-apiserver does.
#[test]
fn certificates_that_only_go_reads_are_read() {
    bounded(async {
        let cluster = Cluster::start().await;
        let version_1 = Draft { version: 1, usages: &[], ..Draft::of(ALICE) };
        let ca = Draft { is_ca: true, ..Draft::of(ALICE) };
        for (what, draft) in [("version 1", version_1), ("a CA's own certificate", ca)] {
            let identity = cluster.pki.forge(Signer::Cluster, &draft).unwrap();
            let caller = caller(&cluster, identity);
            for http in BOTH {
                for address in [cluster.old.proxy.address, cluster.old.standin.addr] {
                    let review = caller.who_am_i(address, http).await;
                    assert_eq!(review.status, 201, "{what} at {address}: {}", review.text());
                    let user = &review.json().unwrap()["status"]["userInfo"];
                    assert_eq!((&user["username"], &user["groups"][0]), (&"alice".into(), &"dev".into()));
                }
            }
            for version in [&TLS12, &TLS13] {
                let sessions =
                    Resuming::new(&caller.options(cluster.old.proxy.address, Http::One), &[version]);
                let (kind, status) = sessions.get(&both_serve().path()).await;
                assert_eq!((kind, status), (HandshakeKind::Full, 200), "{what} over {:?}", version.version);
            }
        }
    });
}

#[test]
fn certificates_that_go_refuses_are_refused() {
    bounded(async {
        let cluster = Cluster::start().await;
        let version_1 = Draft { version: 1, usages: &[], ..Draft::of(ALICE) };
        let past = ["200101000000Z", "200201000000Z"];
        let future = ["490101000000Z", "491231235959Z"];
        for (what, signer, draft) in [
            ("a stranger's of version 1", Signer::Strangers, version_1),
            ("version 1, expired", Signer::Cluster, Draft { valid: past, ..version_1 }),
            ("version 1, not yet valid", Signer::Cluster, Draft { valid: future, ..version_1 }),
            ("expired", Signer::Cluster, Draft { valid: past, ..Draft::of(ALICE) }),
            ("a server's", Signer::Cluster, Draft { usages: &[SERVER_AUTH], ..Draft::of(ALICE) }),
            (
                "a CA's, for servers",
                Signer::Cluster,
                Draft { usages: &[SERVER_AUTH], is_ca: true, ..Draft::of(ALICE) },
            ),
            (
                "with a critical extension",
                Signer::Cluster,
                Draft { has_unknown_critical: true, usages: &[CLIENT_AUTH], ..Draft::of(ALICE) },
            ),
        ] {
            let caller = caller(&cluster, cluster.pki.forge(signer, &draft).unwrap());
            for http in BOTH {
                for path in [both_serve().path(), only_new_serves().path()] {
                    for address in [cluster.old.proxy.address, cluster.old.standin.addr] {
                        let answer = caller.get(address, http, &path).await;
                        // What neither serves is looked up after authentication.
                        assert_eq!(answer.status, 401, "{what} over {http:?}, {path}: {}", answer.text());
                    }
                }
            }
            let with_token = caller.token("bob-token");
            let review = with_token.who_am_i(cluster.old.proxy.address, Http::Two).await;
            let user = &review.json().unwrap()["status"]["userInfo"]["username"];
            assert_eq!(user, "bob", "{what}, and a token");
        }
    });
}

/// kube-apiserver looks at the clock with every request.
#[test]
fn a_certificate_that_expires_is_refused_on_its_open_connection() {
    bounded(async {
        let cluster = Cluster::start().await;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let ends = utc_time(now + 3);
        let draft = Draft { valid: ["200101000000Z", &ends], ..Draft::of(ALICE) };
        let caller = caller(&cluster, cluster.pki.forge(Signer::Cluster, &draft).unwrap());
        let mut sessions = Vec::new();
        for http in BOTH {
            let mut session = caller.connect(cluster.old.proxy.address, http).await;
            assert_eq!(session.get(&both_serve().path()).await.status, 200);
            sessions.push(session);
        }
        // The last moment is included.
        let end = UNIX_EPOCH + Duration::from_secs(now + 4);
        tokio::time::sleep(end.duration_since(SystemTime::now()).unwrap_or_default()).await;
        for session in &mut sessions {
            for path in [both_serve().path(), only_new_serves().path()] {
                assert_eq!(session.get(&path).await.status, 401, "{path}");
            }
        }
    });
}

fn caller(cluster: &Cluster, identity: Identity) -> Caller {
    Caller { identity: Some(identity), ..Caller::nobody(&cluster.pki) }
}

/// Seconds since 1970 as `UTCTime`.
fn utc_time(seconds: u64) -> String {
    let moment = jiff::Timestamp::from_second(seconds.try_into().unwrap()).unwrap();
    moment.strftime("%y%m%d%H%M%SZ").to_string()
}
