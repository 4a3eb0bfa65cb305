//! Reads the Leases by which API servers and proxies announce themselves.
//!
//! Whoever may write Leases in kube-system can forge one, so they are hints: they never take a server away, and where
//! one says that a server is has to be confirmed elsewhere (see [`super::group`]).

use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::book::Book;
use super::follow::Seen;

mod object;

pub(super) use object::LeaseObject;

/// Where Leases count; in any other namespace anybody may write them.
pub(crate) const NAMESPACE: &str = "kube-system";
/// Selects the Leases of API servers (KEP-1965).
pub(crate) const APISERVER_SELECTOR: &str = "apiserver.kubernetes.io/identity=kube-apiserver";
/// Selects the Leases of proxies like this one.
pub(crate) const PROXY_SELECTOR: &str = "app.kubernetes.io/name=mixed-version-proxy";
/// Where peers are told to dial (KEP-4020).
pub(crate) const ADDRESS_ANNOTATION: &str = "kubernetes.io/peer-advertise-address";
/// The node.
pub(crate) const HOSTNAME_LABEL: &str = "kubernetes.io/hostname";

/// API servers renew for an hour. No Lease is believed for longer, whatever it says.
const LONGEST: Duration = Duration::from_hours(1);
/// A shorter one would run out between two renewals (10 s), and a server be taken for gone.
const SHORTEST: Duration = Duration::from_mins(1);
/// A renewal that lies further in the future is none: clocks of one cluster are closer than that.
const CLOCK_SKEW: Duration = Duration::from_mins(5);
/// Leases of one kind that are kept; a cluster has a handful.
const MOST_LEASES: usize = 16_384;
/// The longest value of a label.
pub(super) const LONGEST_LABEL: usize = 63;

/// One Lease.
#[derive(Clone, Debug)]
pub(super) struct Announcement {
    /// The node's name, where it says so.
    pub(super) hostname: Option<Box<str>>,
    /// Stands for the process that holds it.
    pub(super) holder: u64,
    /// Where it says that its server can be dialled.
    pub(super) address: Option<SocketAddr>,
    renewed: Option<Timestamp>,
    live_until: Instant,
}

impl Announcement {
    pub(super) fn is_live(&self, now: Instant) -> bool {
        now < self.live_until
    }
}

/// All Leases of one kind.
#[derive(Debug)]
pub(super) struct Announcements {
    book: Book<Announcement>,
    /// Of holders' names, which can be of any length.
    hasher: RandomState,
}

impl Announcements {
    pub(super) fn new() -> Self {
        Self { book: Book::new(MOST_LEASES), hasher: RandomState::new() }
    }

    pub(super) fn take(&mut self, seen: Seen<LeaseObject>, now: Instant, clock: Timestamp) {
        let hasher = &self.hasher;
        self.book.take(
            seen,
            |lease| lease.metadata.name.as_deref(),
            |lease, known| announcement(lease, known, hasher, now, clock),
        );
    }

    pub(super) fn is_read(&self) -> bool {
        self.book.is_read()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Announcement)> {
        self.book.iter()
    }
}

/// `None` for a Lease that nobody holds, as after an orderly end.
fn announcement(
    lease: &LeaseObject,
    known: Option<&Announcement>,
    hasher: &RandomState,
    now: Instant,
    clock: Timestamp,
) -> Option<Announcement> {
    let spec = &lease.spec;
    let holder = spec.holder_identity.as_deref().filter(|holder| !holder.is_empty())?;
    let seconds =
        spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or_default();
    let duration = Duration::from_secs(seconds).clamp(SHORTEST, LONGEST);
    // A time that nobody can read is no renewal.
    let renewed = spec.renew_time.as_deref().and_then(|time| time.parse::<Timestamp>().ok());
    let live_until = match known {
        // As in leader election: a renewal that was seen needs no clocks that agree.
        Some(known) if renewed.is_some() && known.renewed != renewed => now + duration,
        Some(known) => known.live_until,
        None => now + renewed.map_or(Duration::ZERO, |renewed| remaining(renewed, duration, clock)),
    };
    let labels = lease.metadata.labels.as_ref();
    let hostname = labels.and_then(|labels| labels.get(HOSTNAME_LABEL));
    let annotations = lease.metadata.annotations.as_ref();
    let address = annotations.and_then(|annotations| annotations.get(ADDRESS_ANNOTATION));
    Some(Announcement {
        hostname: hostname.filter(|name| name.len() <= LONGEST_LABEL).map(|name| name.as_str().into()),
        holder: hasher.hash_one(holder),
        address: address.and_then(|address| address.parse().ok()).filter(is_dialled),
        renewed,
        live_until,
    })
}

/// How long a Lease that was found is still good for.
fn remaining(renewed: Timestamp, duration: Duration, clock: Timestamp) -> Duration {
    let age: SignedDuration = clock.duration_since(renewed);
    match Duration::try_from(age) {
        Ok(age) => duration.saturating_sub(age),
        Err(_) if age.unsigned_abs() <= CLOCK_SKEW => duration,
        Err(_) => Duration::ZERO,
    }
}

fn is_dialled(address: &SocketAddr) -> bool {
    address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::coordination::v1::Lease;

    use super::*;

    fn recorded() -> Lease {
        let list: serde_json::Value = serde_json::from_str(include_str!(
            "../../../tests/fixtures/kube-apiserver/v1.36-all/identity-leases.json"
        ))
        .expect("the fixture is JSON");
        serde_json::from_value(list["items"][0].clone()).expect("a Lease")
    }

    fn at(clock: &str) -> Timestamp {
        clock.parse().expect("a time")
    }

    fn read(lease: &Lease, known: Option<&Announcement>, clock: Timestamp) -> Option<Announcement> {
        let lease = serde_json::to_value(lease).and_then(serde_json::from_value).expect("a Lease");
        announcement(&lease, known, &RandomState::new(), Instant::now(), clock)
    }

    #[test]
    fn a_recorded_lease_says_who_and_where() {
        let lease = recorded();
        let found = read(&lease, None, at("2026-11-22T07:14:25Z")).expect("it is held");
        assert_eq!(found.hostname.as_deref(), Some("node-12"));
        assert_eq!(found.address, "10.77.0.12:6443".parse().ok());
        let now = Instant::now();
        assert!(found.is_live(now) && found.is_live(now + Duration::from_mins(59)));
        assert!(!found.is_live(now + Duration::from_mins(61)));
    }

    #[test]
    fn a_lease_is_live_by_its_renewal_and_never_for_longer_than_an_hour() {
        let mut lease = recorded();
        for (clock, minutes) in [
            ("2026-11-22T08:00:00Z", 14),
            ("2026-11-22T08:30:00Z", 0),
            ("2026-11-22T07:12:00Z", 60),
            ("2026-11-22T07:00:00Z", 0),
            ("2020-01-01T00:00:00Z", 0),
        ] {
            let found = read(&lease, None, at(clock)).expect("it is held");
            let left = found.live_until.saturating_duration_since(Instant::now()).as_secs().div_ceil(60);
            assert!(left.abs_diff(minutes) <= 1, "{clock}: {left} min");
        }
        lease.spec.as_mut().expect("a spec").lease_duration_seconds = Some(i32::MAX);
        let found = read(&lease, None, at("2026-11-22T07:14:25Z")).expect("it is held");
        assert!(!found.is_live(Instant::now() + LONGEST + Duration::from_secs(1)));
    }

    #[test]
    fn a_renewal_that_was_seen_counts_whatever_the_clocks_say() {
        let (mut lease, elsewhen) = (recorded(), at("2031-01-01T00:00:00Z"));
        let first = read(&lease, None, elsewhen).expect("it is held");
        assert!(!first.is_live(Instant::now()), "never seen live");
        assert!(!read(&lease, Some(&first), elsewhen).expect("held").is_live(Instant::now()), "not renewed");
        let renewed = lease.spec.as_mut().and_then(|spec| spec.renew_time.as_mut()).expect("a time");
        renewed.0 = at("2026-11-22T07:14:29.6Z");
        let second = read(&lease, Some(&first), elsewhen).expect("it is held");
        assert!(second.is_live(Instant::now()) && !second.is_live(Instant::now() + LONGEST));
    }

    /// The API server takes any year of four digits; not everybody who reads does.
    #[test]
    fn a_lease_with_a_time_that_cannot_be_read_is_a_lease_that_was_not_renewed() {
        let clock = at("2026-11-22T07:14:25Z");
        let mut list = serde_json::to_value(recorded()).expect("JSON");
        let time = "9999-12-31T23:59:59.999999Z";
        list["spec"]["renewTime"] = time.into();
        list["metadata"]["creationTimestamp"] = time.into();
        list["metadata"]["managedFields"] = serde_json::json!([{"manager": "m", "time": time}]);
        assert!(serde_json::from_value::<Lease>(list.clone()).is_err(), "or this needs no care");
        let lease: LeaseObject = serde_json::from_value(list).expect("readable all the same");
        let hasher = RandomState::new();
        let found = announcement(&lease, None, &hasher, Instant::now(), clock).expect("it is held");
        assert!(!found.is_live(Instant::now()));
        let good = read(&recorded(), None, clock);
        let after = announcement(&lease, good.as_ref(), &hasher, Instant::now(), clock).expect("it is held");
        assert_eq!(Some(after.live_until), good.map(|good| good.live_until), "no renewal either");
    }

    #[test]
    fn what_cannot_be_a_server_is_left_out() {
        let clock = at("2026-11-22T07:14:25Z");
        let mut lease = recorded();
        for address in ["0.0.0.0:6443", "10.0.0.1:0", "224.0.0.1:1", "10.0.0.1", "localhost:1", ""] {
            let annotations = lease.metadata.annotations.get_or_insert_default();
            annotations.insert(ADDRESS_ANNOTATION.to_owned(), address.to_owned());
            assert_eq!(read(&lease, None, clock).expect("it is held").address, None, "{address}");
        }
        lease.spec.as_mut().expect("a spec").holder_identity = Some(String::new());
        assert!(read(&lease, None, clock).is_none(), "released");
    }
}
