//! Shows any bytes for a certificate, and expects that nobody becomes who no CA says it is.
//!
//! Input: one byte that picks what is shown, then the certificate itself or changes to a valid one.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use mvproxy::config::RequestHeaderNames;
use mvproxy::identity::x509::{common_name, user_of};
use mvproxy::identity::{Assertion, ClientCertificate, IdentityHeaders, of_certificate};
use mvproxy::tls::TlsContext;
use mvproxy_tests::pki::forge::{Attribute, CN, Draft, O, Signer};
use mvproxy_tests::pki::{Identity, Pki};
use rustls_pki_types::{CertificateDer, UnixTime};
use rustls_pki_types::pem::PemObject as _;

mod context;
mod patched;

const ALICE: Draft<'static> =
    Draft::of(&[&[Attribute::utf8(O, "dev"), Attribute::utf8(O, "ops")], &[Attribute::utf8(CN, "alice")]]);
const CA: Draft<'static> =
    Draft { is_ca: true, usages: &[], ..Draft::of(&[&[Attribute::utf8(CN, "intermediate")]]) };
const FRONT_PROXY: Draft<'static> = Draft::of(&[&[Attribute::utf8(CN, "front-proxy-client")]]);

type Chain = Vec<CertificateDer<'static>>;

/// What a CA signed, and what nobody in the cluster did.
struct Site {
    context: TlsContext,
    alice: Chain,
    of_version_1: Chain,
    below_an_intermediate: Chain,
    front_proxy: Chain,
    stranger: Chain,
}

static SITE: LazyLock<Site> = LazyLock::new(|| {
    let pki = Pki::generate().expect("certificates");
    let forge = |signer, draft| chain(&pki.forge(signer, &draft).expect("a certificate"));
    Site {
        context: context::of(&pki),
        alice: forge(Signer::Cluster, ALICE),
        of_version_1: forge(Signer::Cluster, Draft { version: 1, ..ALICE }),
        below_an_intermediate: chain(&pki.forge_under(Signer::Cluster, &CA, &ALICE).expect("certificates")),
        front_proxy: forge(Signer::FrontProxy, FRONT_PROXY),
        stranger: forge(Signer::Strangers, Draft { version: 1, ..ALICE }),
    }
});

fn chain(identity: &Identity) -> Chain {
    CertificateDer::pem_slice_iter(identity.cert_pem.as_bytes()).collect::<Result<_, _>>().expect("PEM")
}

static NAMES: LazyLock<IdentityHeaders> = LazyLock::new(|| {
    let one = |name: &str| vec![name.to_owned()];
    IdentityHeaders::new(&RequestHeaderNames {
        allowed_names: one("front-proxy-client"),
        username: one("X-Remote-User"),
        group: one("X-Remote-Group"),
        uid: one("X-Remote-Uid"),
        extra_prefix: one("X-Remote-Extra-"),
    })
    .expect("header names")
});

/// Changes one certificate of a chain.
fn changed(chain: &Chain, which: usize, changes: &[u8]) -> Chain {
    let mut chain = chain.clone();
    chain[which] = patched::patched(&chain[which], changes).into();
    chain
}

fn values<'a>(assertion: &'a Assertion, name: &str) -> Vec<&'a [u8]> {
    assertion.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_bytes()).collect()
}

/// Whatever a subject says, reading it and writing it down goes well or fails.
fn read(der: &CertificateDer<'_>) {
    let name = common_name(der);
    match user_of(der) {
        Ok(Some(user)) => {
            assert_eq!(name.as_deref(), Ok(&*user.name));
            assert!(!user.name.is_empty() && user.uid.as_deref() != Some(""));
            // A control character in a name must not become a header line of its own.
            if let Ok(assertion) = NAMES.assertion_of(&user) {
                let breaks = |byte: &u8| matches!(byte, b'\r' | b'\n' | 0);
                assert!(assertion.iter().all(|(_, value)| !value.as_bytes().iter().any(breaks)));
                let groups = assertion.iter().filter(|(name, _)| name == "x-remote-group").count();
                assert_eq!(groups, user.groups.len());
            }
        }
        Ok(None) => assert_eq!(name.as_deref(), Ok("")),
        Err(_) => {}
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else { return };
    let site = &*SITE;
    let kind = kind % 7;
    let shown = match kind {
        0 => vec![data.to_vec().into()],
        1 => changed(&site.alice, 0, data),
        2 => changed(&site.of_version_1, 0, data),
        3 => changed(&site.below_an_intermediate, 0, data),
        4 => changed(&site.below_an_intermediate, 1, data),
        5 => changed(&site.front_proxy, 0, data),
        _ => changed(&site.stranger, 0, data),
    };
    read(&shown[0]);
    let proved = of_certificate(&shown, &site.context.clients, &NAMES, UnixTime::now());
    match &proved {
        ClientCertificate::User(assertion) => {
            assert!((1..=4).contains(&kind), "nobody signed it");
            assert_eq!(values(assertion, "x-remote-user"), [b"alice"]);
            assert_eq!(values(assertion, "x-remote-group"), [b"dev", b"ops"]);
            assert_eq!(assertion.len(), 4, "{assertion:?}");
        }
        ClientCertificate::FrontProxy { own } => assert!(kind == 5 && own.is_none(), "nobody signed it"),
        ClientCertificate::Unverified => {
            let is_whole = [&site.alice, &site.of_version_1, &site.below_an_intermediate, &site.front_proxy]
                .contains(&&shown);
            assert!(!is_whole, "what a CA signed is good");
        }
        ClientCertificate::Absent => panic!("something was shown"),
    }
});
