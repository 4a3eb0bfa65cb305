//! Serving certificates that the cluster's CA signed and that no peer may be believed with.

use mvproxy_tests::pki::{Identity, Pki};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, date_time_ymd,
};

/// One certificate for each thing that can be wrong.
pub struct BadCertificates {
    /// Valid, for another name.
    pub wrong_name: Identity,
    /// For the right name, until 2021.
    pub expired: Identity,
    /// Valid and for the right name, by another CA.
    pub wrong_ca: Identity,
}

impl BadCertificates {
    pub fn of(pki: &Pki) -> Self {
        let dir = tempfile::tempdir().unwrap();
        pki.write_to(dir.path(), &[]).unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        let key = KeyPair::from_pem(&read("ca.key")).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&read("ca.crt"), key).unwrap();
        let stranger = Pki::generate().unwrap();
        Self {
            wrong_name: sign(&issuer, "elsewhere.example", 2049),
            expired: sign(&issuer, "kubernetes.default.svc", 2021),
            wrong_ca: stranger.serving("peer", [127, 0, 0, 1].into()).unwrap(),
        }
    }
}

fn sign(issuer: &Issuer<'_, KeyPair>, name: &str, last_year: i32) -> Identity {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(last_year, 12, 31);
    let cert_pem = params.signed_by(&key, issuer).unwrap().pem();
    Identity { cert_pem, key_pem: key.serialize_pem() }
}
