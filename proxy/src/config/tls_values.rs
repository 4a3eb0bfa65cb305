//! Reads the values of kube-apiserver's `--tls-*` flags.

use std::path::PathBuf;

use rustls::CipherSuite;

use super::values::Reading;
use super::{MinTlsVersion, SniCertKey};

/// `CERT,KEY` or `CERT,KEY:NAME,...`. Source: k8s.io/component-base `NamedCertKey.Set`.
pub(super) fn sni_cert_key(text: &str) -> Reading<SniCertKey> {
    let wanted =
        "CERT,KEY or CERT,KEY:NAME,...: write it like foo.crt,foo.key:foo.example.net,*.foo.example.net";
    let (files, names) = text.split_once(':').unwrap_or((text, ""));
    let (cert, key) = files.split_once(',').ok_or(wanted)?;
    let is_file = |file: &str| !file.is_empty() && !file.contains(',');
    if !is_file(cert) || !is_file(key) {
        return Err(wanted);
    }
    let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
    Ok(SniCertKey {
        cert: PathBuf::from(cert),
        key: PathBuf::from(key),
        names: names.map(str::to_ascii_lowercase).collect(),
    })
}

pub(super) fn min_version(text: &str) -> Reading<MinTlsVersion> {
    match text {
        "VersionTLS10" | "VersionTLS11" | "VersionTLS12" => Ok(MinTlsVersion::Tls12),
        "VersionTLS13" => Ok(MinTlsVersion::Tls13),
        _ => Err("a TLS version: VersionTLS12 or VersionTLS13"),
    }
}

/// A suite by the name that Go has for it; `None` for one of Go's that rustls lacks, or that cannot be chosen.
pub(super) fn cipher_suite(text: &str) -> Reading<Option<CipherSuite>> {
    Ok(Some(match text {
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" => CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" => CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" => CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" => CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305" | "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256" => {
            CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        }
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305" | "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256" => {
            CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
        }
        suite if NOT_HERE.contains(&suite) => return Ok(None),
        _ => return Err("a cipher suite by its Go name, like TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
    }))
}

/// What else kube-apiserver takes (Go's crypto/tls): TLS 1.3, whose suites are always there, and what rustls left out for
/// its weaknesses.
const NOT_HERE: [&str; 19] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_RC4_128_SHA",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_pairs_with_and_without_names() {
        for (text, expected) in [
            ("a.crt,a.key", Some(("a.crt", "a.key", &[][..]))),
            ("a.crt,a.key:*.Foo.net,foo.net", Some(("a.crt", "a.key", &["*.foo.net", "foo.net"]))),
            ("a.crt,a.key:10.0.0.7", Some(("a.crt", "a.key", &["10.0.0.7"]))),
            ("a.crt", None),
            ("a.crt,", None),
            (",a.key", None),
            ("a.crt,a.key,b.key", None),
            ("", None),
        ] {
            let expected = expected.map(|(cert, key, names)| SniCertKey {
                cert: cert.into(),
                key: key.into(),
                names: names.iter().map(|name| (*name).to_owned()).collect(),
            });
            assert_eq!(sni_cert_key(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn knows_every_suite_of_go_and_no_other() {
        let here = cipher_suite("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305");
        assert_eq!(here, Ok(Some(CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256)));
        assert!(NOT_HERE.iter().all(|suite| cipher_suite(suite) == Ok(None)));
        assert!(cipher_suite("ECDHE-RSA-AES128-GCM-SHA256").is_err());
        assert_eq!(min_version("VersionTLS10"), Ok(MinTlsVersion::Tls12));
        assert!(min_version("1.2").is_err());
    }
}
