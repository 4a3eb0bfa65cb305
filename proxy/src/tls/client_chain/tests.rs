use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, GeneralSubtree,
    IsCa, KeyPair, NameConstraints,
};

use super::*;

type Authority = CertifiedIssuer<'static, KeyPair>;

const CLIENT: ExtendedKeyUsagePurpose = ExtendedKeyUsagePurpose::ClientAuth;

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn authority_params(constraints: BasicConstraints) -> CertificateParams {
    let mut params = named("ca");
    params.is_ca = IsCa::Ca(constraints);
    params
}

fn root(params: CertificateParams) -> Authority {
    CertifiedIssuer::self_signed(params, key()).expect("a CA")
}

fn below(authority: &Authority, params: CertificateParams) -> Authority {
    CertifiedIssuer::signed_by(params, key(), authority).expect("an intermediate")
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn client(authority: &Authority) -> CertificateDer<'static> {
    let mut params = named("alice");
    params.extended_key_usages = vec![CLIENT];
    params.signed_by(&key(), authority).expect("a certificate").der().clone()
}

fn at(now: u64) -> UnixTime {
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(now))
}

/// Whether Go's rules alone, without webpki's, lead from `leaf` to `root`.
fn leads(root: &Authority, leaf: &CertificateDer<'_>, between: &[&Authority], now: UnixTime) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(root.der().clone()).expect("a trust anchor");
    let between: Vec<_> = between.iter().map(|one| one.der().clone()).collect();
    let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
    leads_to(&roots, leaf, &between, now, algorithms)
}

#[test]
fn a_chain_needs_every_signature_and_every_name() {
    let now = UnixTime::now();
    let anybody = || authority_params(BasicConstraints::Unconstrained);
    let (real, impostor) = (root(anybody()), root(anybody()));
    let mut middle = anybody();
    middle.distinguished_name.push(DnType::OrganizationName, "middle");
    let (middle, false_middle) = (below(&real, middle.clone()), below(&impostor, middle));
    assert!(leads(&real, &client(&real), &[], now));
    assert!(leads(&real, &client(&middle), &[&middle], now));
    assert!(
        leads(&real, &client(&middle), &[&impostor, &false_middle, &middle], now),
        "the order does not matter"
    );
    assert!(!leads(&real, &client(&middle), &[], now), "a link is missing");
    assert!(!leads(&real, &client(&impostor), &[], now), "the CA's name with another key");
    assert!(!leads(&real, &client(&impostor), &[&impostor], now), "a client brings no root");
    assert!(
        !leads(&real, &client(&false_middle), &[&middle], now),
        "the name of an intermediate with another key"
    );
    assert!(!leads(&real, &client(&false_middle), &[&false_middle], now), "an intermediate of a stranger's");
    let mut changed = client(&real).to_vec();
    let name = changed.windows(5).position(|window| window == b"alice").expect("the name");
    changed[name] = b'e';
    assert!(!leads(&real, &changed.into(), &[], now), "another name than was signed");
}

#[test]
fn a_chain_is_in_force_as_a_whole() {
    let (before, within, after) = (at(946_684_800), at(1_900_000_000), at(4_102_444_800));
    let during = |mut params: CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2099, 1, 1);
        params
    };
    let real = root(authority_params(BasicConstraints::Unconstrained));
    let mut middle = authority_params(BasicConstraints::Unconstrained);
    middle.distinguished_name.push(DnType::OrganizationName, "middle");
    let middle = below(&real, during(middle));
    for (leaf, between) in [(client(&middle), &[&middle][..]), (client_during(&real, during), &[])] {
        assert!(leads(&real, &leaf, between, within));
        assert!(!leads(&real, &leaf, between, before));
        assert!(!leads(&real, &leaf, between, after));
    }
}

fn client_during(
    authority: &Authority,
    during: impl Fn(CertificateParams) -> CertificateParams,
) -> CertificateDer<'static> {
    during(named("alice")).signed_by(&key(), authority).expect("a certificate").der().clone()
}

#[test]
fn what_limits_a_ca_limits_what_it_vouches_for() {
    let now = UnixTime::now();
    let mut constrained = authority_params(BasicConstraints::Unconstrained);
    constrained.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("example.com".to_owned())],
        excluded_subtrees: Vec::new(),
    });
    let limited = root(constrained);
    assert!(!leads(&limited, &client(&limited), &[], now), "name constraints are left to webpki");

    let real = root(authority_params(BasicConstraints::Unconstrained));
    let with_organization = |mut params: CertificateParams, name: &str| {
        params.distinguished_name.push(DnType::OrganizationName, name);
        params
    };
    for (constraints, usages, expected) in [
        (IsCa::Ca(BasicConstraints::Constrained(1)), vec![], true),
        (IsCa::Ca(BasicConstraints::Constrained(0)), vec![], false),
        (IsCa::NoCa, vec![], false),
        (IsCa::ExplicitNoCa, vec![], false),
        (IsCa::Ca(BasicConstraints::Unconstrained), vec![CLIENT], true),
        (IsCa::Ca(BasicConstraints::Unconstrained), vec![ExtendedKeyUsagePurpose::Any], true),
        (IsCa::Ca(BasicConstraints::Unconstrained), vec![ExtendedKeyUsagePurpose::ServerAuth], false),
    ] {
        let mut params = with_organization(authority_params(BasicConstraints::Unconstrained), "upper");
        (params.is_ca, params.extended_key_usages) = (constraints, usages);
        let what = format!("{:?} {:?}", params.is_ca, params.extended_key_usages);
        let upper = below(&real, params);
        let lower = with_organization(authority_params(BasicConstraints::Unconstrained), "lower");
        let lower = below(&upper, lower);
        let chain = [&lower, &upper];
        assert_eq!(leads(&real, &client(&lower), &chain, now), expected, "{what}");
    }
}

#[test]
fn a_search_is_bounded() {
    let now = UnixTime::now();
    let anybody = || authority_params(BasicConstraints::Unconstrained);
    let real = root(anybody());
    let middle = below(&real, anybody());
    let crowd: Vec<Authority> = (0..MAX_INTERMEDIATES).map(|_| below(&real, anybody())).collect();
    let (first, last): (Vec<_>, Vec<_>) =
        ([&middle].into_iter().chain(&crowd).collect(), crowd.iter().chain([&middle]).collect());
    assert!(leads(&real, &client(&middle), &first, now));
    assert!(!leads(&real, &client(&middle), &last, now));
}
