//! Issues throw-away certificates in the shape kubeadm gives a control plane.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, Error, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};

mod files;
pub mod forge;

pub use files::TOKENS_CSV;

/// A certificate chain and its key, both PEM.
#[derive(Clone)]
pub struct Identity {
    /// Certificate chain, leaf first.
    pub cert_pem: String,
    /// PKCS#8 key, ECDSA P-256.
    pub key_pem: String,
}

/// Who a client certificate says its holder is.
#[derive(Clone, Debug, Default)]
pub struct Subject<'a> {
    /// CN, the user name in Kubernetes.
    pub common_name: &'a str,
    /// O attributes, the groups in Kubernetes; at most two, what rcgen can put into one name.
    pub organizations: &'a [&'a str],
    /// The attribute 1.3.6.1.4.1.57683.2 that kube-apiserver ≥ 1.33 reads as the user's UID.
    pub uid: Option<&'a str>,
}

/// The certificate authorities of one cluster and what they sign.
pub struct Pki {
    ca: Authority,
    front_proxy_ca: Authority,
    strangers_ca: Authority,
    front_proxy_client: Identity,
}

impl Pki {
    /// Makes new authorities and the front-proxy client certificate.
    ///
    /// # Errors
    /// Only when the cryptographic library fails.
    pub fn generate() -> Result<Self, Error> {
        Self::with(Authority::generate("kubernetes")?, Authority::generate("front-proxy-ca")?)
    }

    /// The same with one authority for clients and front proxies, which kube-apiserver takes as long as only some names
    /// may assert.
    ///
    /// # Errors
    /// Only when the cryptographic library fails.
    pub fn with_one_ca() -> Result<Self, Error> {
        let ca = Authority::generate("kubernetes")?;
        Self::with(ca.clone(), ca)
    }

    fn with(ca: Authority, front_proxy_ca: Authority) -> Result<Self, Error> {
        let front_proxy_client =
            front_proxy_ca.client(&Subject { common_name: "front-proxy-client", ..Subject::default() })?;
        Ok(Self { ca, front_proxy_ca, strangers_ca: Authority::generate("strangers")?, front_proxy_client })
    }

    /// The cluster CA (PEM): signs serving and client certificates.
    pub fn ca_pem(&self) -> &str {
        &self.ca.cert_pem
    }

    /// The front-proxy CA (PEM), as in `--requestheader-client-ca-file`.
    pub fn front_proxy_ca_pem(&self) -> &str {
        &self.front_proxy_ca.cert_pem
    }

    /// The certificate with CN `front-proxy-client`, as in `--proxy-client-cert-file`.
    pub fn front_proxy_client(&self) -> &Identity {
        &self.front_proxy_client
    }

    /// Signs an API server's serving certificate for the node `name` at `ip`.
    ///
    /// # Errors
    /// When `name` is not a DNS name.
    pub fn serving(&self, name: &str, ip: IpAddr) -> Result<Identity, Error> {
        let mut params = CertificateParams::new(
            [
                "kubernetes",
                "kubernetes.default",
                "kubernetes.default.svc",
                "kubernetes.default.svc.cluster.local",
            ]
            .into_iter()
            .chain(["localhost", name])
            .map(str::to_owned)
            .collect::<Vec<_>>(),
        )?;
        for address in [ip, IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1))] {
            params.subject_alt_names.push(SanType::IpAddress(address));
        }
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.ca.sign(params)
    }

    /// Signs a client certificate with the cluster CA.
    ///
    /// # Errors
    /// When `subject` cannot be put into a certificate.
    pub fn client(&self, subject: &Subject<'_>) -> Result<Identity, Error> {
        self.ca.client(subject)
    }

    /// Signs a client certificate with the front-proxy CA.
    ///
    /// # Errors
    /// When `subject` cannot be put into a certificate.
    pub fn front_proxy(&self, subject: &Subject<'_>) -> Result<Identity, Error> {
        self.front_proxy_ca.client(subject)
    }

    /// Signs a client certificate with a CA that nobody in the cluster knows.
    ///
    /// # Errors
    /// When `subject` cannot be put into a certificate.
    pub fn stranger(&self, subject: &Subject<'_>) -> Result<Identity, Error> {
        self.strangers_ca.client(subject)
    }
}

/// A certificate authority with its key in memory.
#[derive(Clone)]
struct Authority {
    issuer: Arc<Issuer<'static, KeyPair>>,
    cert_pem: String,
    key_pem: String,
}

impl Authority {
    fn generate(common_name: &str) -> Result<Self, Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
        set_validity(&mut params);
        let cert_pem = params.self_signed(&key)?.pem();
        let key_pem = key.serialize_pem();
        Ok(Self { issuer: Arc::new(Issuer::new(params, key)), cert_pem, key_pem })
    }

    fn client(&self, subject: &Subject<'_>) -> Result<Identity, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(subject)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    fn sign(&self, mut params: CertificateParams) -> Result<Identity, Error> {
        let key = KeyPair::generate()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params);
        let cert_pem = params.signed_by(&key, &*self.issuer)?.pem();
        Ok(Identity { cert_pem, key_pem: key.serialize_pem() })
    }
}

fn set_validity(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
}

fn distinguished_name(subject: &Subject<'_>) -> Result<DistinguishedName, Error> {
    let mut name = DistinguishedName::new();
    // rcgen keeps one value per type; the same attribute under its bare OID counts as another type.
    let slots = [DnType::OrganizationName, DnType::CustomDnType(vec![2, 5, 4, 10])];
    if subject.organizations.len() > slots.len() {
        return Err(Error::CouldNotParseCertificationRequest);
    }
    for (slot, organization) in slots.into_iter().zip(subject.organizations) {
        name.push(slot, *organization);
    }
    if let Some(uid) = subject.uid {
        name.push(DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 57683, 2]), uid);
    }
    if !subject.common_name.is_empty() {
        name.push(DnType::CommonName, subject.common_name);
    }
    Ok(name)
}
