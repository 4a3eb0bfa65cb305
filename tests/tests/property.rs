//! Shows for random clusters and requests that the proxy decides as a naive model of the specification does.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use mvproxy::discovery::ServerSet;
use proptest::collection::btree_set;
use proptest::prelude::*;

#[path = "property/agreement.rs"]
mod agreement;
#[path = "property/cluster.rs"]
mod cluster;
#[path = "property/documents.rs"]
mod documents;
#[path = "property/naive_request.rs"]
mod naive_request;
#[path = "property/naive_route.rs"]
mod naive_route;
#[path = "property/naive_selector.rs"]
mod naive_selector;
#[path = "discovery_support/protobuf.rs"]
mod protobuf;
#[path = "property/requests.rs"]
mod requests;
#[path = "property/routing.rs"]
mod routing;

/// So many random cases, and no files about the failed ones: the smallest one is printed.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn a_set_of_servers_is_walked_once_from_the_member_whose_turn_it_is(
        members in btree_set(0..ServerSet::CAPACITY, 0..ServerSet::CAPACITY),
        start in 0..3 * ServerSet::CAPACITY,
    ) {
        let set: ServerSet = members.iter().copied().collect();
        let mut expected: Vec<usize> = members.iter().copied().collect();
        if !expected.is_empty() {
            expected.rotate_left(start % members.len());
        }
        prop_assert_eq!(set.iter_from(start).collect::<Vec<_>>(), expected);
        prop_assert_eq!(set.len(), members.len());
        prop_assert_eq!(set.has_local(), members.contains(&0));
    }
}
