//! Writes client certificates byte by byte: what no library would issue, and what real clients bring all the same.

use std::fmt;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{Error, KeyPair, PublicKeyData as _, SigningKey as _};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{Authority, Identity, Pki};

/// Which of a cluster's authorities signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// The CA of ordinary clients.
    Cluster,
    /// The CA of front proxies.
    FrontProxy,
    /// A CA that nobody in the cluster knows.
    Strangers,
}

/// A certificate as it is to be written; nothing is checked.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// 3, or 1: `openssl x509 -req` writes version 1 when it is told no extensions, and then has none.
    pub version: u8,
    /// Subject: RDNs of one or more attributes, in this very order.
    pub subject: &'a [&'a [Attribute<'a>]],
    /// First and last moment, as `UTCTime`.
    pub valid: [&'a str; 2],
    /// Extended key usages, as OID contents; none means that the extension is missing.
    pub usages: &'a [&'a [u8]],
    /// Whether it may sign others.
    pub is_ca: bool,
    /// Whether it has a critical extension that nobody knows.
    pub has_unknown_critical: bool,
}

/// One attribute of a subject.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Contents of the type's OID.
    pub kind: &'a [u8],
    /// ASN.1 tag of the value.
    pub tag: u8,
    /// Contents of the value.
    pub value: &'a [u8],
}

/// Common name.
pub const CN: &[u8] = &[0x55, 4, 3];
/// Organization.
pub const O: &[u8] = &[0x55, 4, 10];
/// The UID that kube-apiserver reads, 1.3.6.1.4.1.57683.2.
pub const UID: &[u8] = &[0x2b, 6, 1, 4, 1, 0x83, 0xc2, 0x53, 2];
/// Extended key usage clientAuth.
pub const CLIENT_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];
/// Extended key usage serverAuth.
pub const SERVER_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
/// Extended key usage anyExtendedKeyUsage.
pub const ANY_USAGE: &[u8] = &[0x55, 0x1d, 0x25, 0];

/// ASN.1 tags of strings.
pub mod tag {
    /// `UTF8String`.
    pub const UTF8: u8 = 0x0c;
    /// `PrintableString`.
    pub const PRINTABLE: u8 = 0x13;
    /// `TeletexString`, which everybody reads as ISO 8859-1.
    pub const T61: u8 = 0x14;
    /// `IA5String`.
    pub const IA5: u8 = 0x16;
    /// `BMPString`, 16 bits a character.
    pub const BMP: u8 = 0x1e;
}

impl<'a> Attribute<'a> {
    /// One whose value is a `UTF8String`.
    pub const fn utf8(kind: &'a [u8], text: &'a str) -> Self {
        Self { kind, tag: tag::UTF8, value: text.as_bytes() }
    }
}

impl fmt::Debug for Attribute<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x?}={:?}", self.kind, String::from_utf8_lossy(self.value))
    }
}

impl<'a> Draft<'a> {
    /// An ordinary client certificate.
    pub const fn of(subject: &'a [&'a [Attribute<'a>]]) -> Self {
        Self {
            version: 3,
            subject,
            valid: ["200101000000Z", "491231235959Z"],
            usages: &[CLIENT_AUTH],
            is_ca: false,
            has_unknown_critical: false,
        }
    }
}

impl Pki {
    /// Writes and signs a certificate.
    ///
    /// # Errors
    /// Only when the cryptographic library fails.
    pub fn forge(&self, signer: Signer, draft: &Draft<'_>) -> Result<Identity, Error> {
        let authority = self.authority(signer);
        let (der, key) = sign(draft, &authority.name(), authority.issuer.key())?;
        Ok(Identity { cert_pem: pem(&der), key_pem: key.serialize_pem() })
    }

    /// The same with an intermediate authority between the two; the client shows both certificates.
    ///
    /// # Errors
    /// Only when the cryptographic library fails.
    pub fn forge_under(
        &self,
        signer: Signer,
        intermediate: &Draft<'_>,
        draft: &Draft<'_>,
    ) -> Result<Identity, Error> {
        let authority = self.authority(signer);
        let (intermediate_der, intermediate_key) =
            sign(intermediate, &authority.name(), authority.issuer.key())?;
        let (der, key) = sign(draft, &name(intermediate.subject), &intermediate_key)?;
        Ok(Identity { cert_pem: pem(&der) + &pem(&intermediate_der), key_pem: key.serialize_pem() })
    }

    fn authority(&self, signer: Signer) -> &Authority {
        match signer {
            Signer::Cluster => &self.ca,
            Signer::FrontProxy => &self.front_proxy_ca,
            Signer::Strangers => &self.strangers_ca,
        }
    }
}

impl Authority {
    /// The subject of its certificate, as it stands there.
    fn name(&self) -> Vec<u8> {
        let der = CertificateDer::from_pem_slice(self.cert_pem.as_bytes()).expect("a certificate of our own");
        let (_, certificate) = X509Certificate::from_der(&der).expect("a certificate of our own");
        certificate.subject().as_raw().to_vec()
    }
}

const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;

/// The certificate and its new key.
fn sign(draft: &Draft<'_>, issuer: &[u8], issuer_key: &KeyPair) -> Result<(Vec<u8>, KeyPair), Error> {
    let key = KeyPair::generate()?;
    let mut serial = [0; 8];
    rand::fill(&mut serial).map_err(|_| Error::RemoteKeyError)?;
    // Positive, and without a leading zero that DER would not have.
    serial[0] = serial[0] & 0x7f | 0x40;
    let algorithm = sequence(&[&tlv(OID, ECDSA_WITH_SHA256)]);
    let version =
        if draft.version == 1 { Vec::new() } else { tlv(0xa0, &tlv(INTEGER, &[draft.version - 1])) };
    let validity = sequence(&draft.valid.each_ref().map(|time| tlv(UTC_TIME, time.as_bytes())));
    let extensions = if draft.version == 1 { Vec::new() } else { tlv(0xa3, &extensions(draft)) };
    let body = sequence(&[
        &version,
        &tlv(INTEGER, &serial),
        &algorithm,
        issuer,
        &validity,
        &name(draft.subject),
        &key.subject_public_key_info(),
        &extensions,
    ]);
    let signature = [&[0], &issuer_key.sign(&body)?[..]].concat();
    Ok((sequence(&[&body, &algorithm, &tlv(BIT_STRING, &signature)]), key))
}

fn extensions(draft: &Draft<'_>) -> Vec<u8> {
    let mut all = Vec::new();
    if !draft.usages.is_empty() {
        let usages: Vec<Vec<u8>> = draft.usages.iter().map(|usage| tlv(OID, usage)).collect();
        all.push(extension(&[0x55, 0x1d, 37], false, &sequence(&usages)));
    }
    if draft.is_ca {
        all.push(extension(&[0x55, 0x1d, 19], true, &sequence(&[tlv(0x01, &[0xff])])));
    }
    if draft.has_unknown_critical {
        all.push(extension(&[0x2a, 3, 4], true, &tlv(0x05, &[])));
    }
    sequence(&all)
}

fn extension(id: &[u8], is_critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if is_critical { tlv(0x01, &[0xff]) } else { Vec::new() };
    sequence(&[&tlv(OID, id), &critical, &tlv(OCTET_STRING, value)])
}

fn name(rdns: &[&[Attribute<'_>]]) -> Vec<u8> {
    let attribute = |one: &Attribute<'_>| sequence(&[tlv(OID, one.kind), tlv(one.tag, one.value)]);
    let rdn = |rdn: &&[Attribute<'_>]| tlv(SET, &rdn.iter().map(attribute).collect::<Vec<_>>().concat());
    sequence(&rdns.iter().map(rdn).collect::<Vec<_>>())
}

fn sequence(parts: &[impl AsRef<[u8]>]) -> Vec<u8> {
    tlv(SEQUENCE, &parts.iter().flat_map(AsRef::as_ref).copied().collect::<Vec<u8>>())
}

/// Tag, length and contents in DER.
fn tlv(tag: u8, contents: &[u8]) -> Vec<u8> {
    let [.., high, low] = contents.len().to_be_bytes();
    let length = match contents.len() {
        0..=0x7f => vec![low],
        0x80..=0xff => vec![0x81, low],
        _ => vec![0x82, high, low],
    };
    [&[tag], &length[..], contents].concat()
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line) + "\n");
    format!("-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n", lines.collect::<String>())
}
