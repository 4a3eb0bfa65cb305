//! Reads a user out of any bytes that claim to be a certificate, and puts it into headers.
//!
//! Input: one byte; where it is odd the certificate itself, else changes to a valid one.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use mvproxy::config::RequestHeaderNames;
use mvproxy::identity::IdentityHeaders;
use mvproxy::identity::x509::{common_name, user_of};
use mvproxy_tests::pki::{Pki, Subject};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

mod patched;

static VALID: LazyLock<CertificateDer<'static>> = LazyLock::new(|| {
    let alice = Subject { common_name: "alice", organizations: &["dev", "ops"], uid: Some("7") };
    let certificate = Pki::generate().and_then(|pki| pki.client(&alice)).expect("a certificate");
    CertificateDer::from_pem_slice(certificate.cert_pem.as_bytes()).expect("PEM")
});

static NAMES: LazyLock<IdentityHeaders> = LazyLock::new(|| {
    let one = |name: &str| vec![name.to_owned()];
    IdentityHeaders::new(&RequestHeaderNames {
        allowed_names: Vec::new(),
        username: one("X-Remote-User"),
        group: one("X-Remote-Group"),
        uid: one("X-Remote-Uid"),
        extra_prefix: one("X-Remote-Extra-"),
    })
    .expect("header names")
});

fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else { return };
    let bytes = if kind % 2 == 1 { data.to_vec() } else { patched::patched(&VALID, data) };
    let der = CertificateDer::from(bytes);
    let name = common_name(&der);
    match user_of(&der) {
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
});
