//! Shows that routing is what the naive model says, for every cluster, request and mark.

use std::collections::BTreeMap;

use mvproxy::classify::{classify, decode_path};
use mvproxy::discovery::accept::Asked;
use mvproxy::discovery::view::Name;
use mvproxy::discovery::{Document, ServerSet, Snapshot};
use mvproxy::route::{LocalReason, Marks, Route, route};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use crate::cases;
use crate::cluster::{UPSTREAMS, cluster, document, openapi, snapshot};
use crate::naive_request::read;
use crate::naive_route::{Decision, NaiveMarks, decide, is_skewed};
use crate::requests::{RequestLine, request_line};

fn marks() -> impl Strategy<Value = NaiveMarks> {
    (prop::bool::weighted(0.1), document(), openapi(), prop::bool::weighted(0.2)).prop_map(
        |(already_proxied, discovery, openapi, about_this_server)| NaiveMarks {
            already_proxied,
            discovery,
            // A path is one or the other.
            openapi: openapi.filter(|_| discovery.is_none()),
            about_this_server,
        },
    )
}

fn routed(line: &RequestLine, marks: NaiveMarks, snapshot: &Snapshot) -> Decision {
    let NaiveMarks { already_proxied, discovery, openapi, about_this_server } = marks;
    let path = decode_path(&line.path);
    let info = classify(&line.method, &path, line.query.as_deref()).ok();
    let members = |set: ServerSet| set.iter_from(0).collect::<Vec<_>>();
    let discovery = discovery.map(|name| Asked { name, form: None, root: None });
    let marks = Marks { already_proxied, discovery, openapi, about_this_server };
    match route(info.as_ref(), marks, snapshot) {
        Route::Local { reason, stand_ins } => Decision::Local(reason, members(stand_ins)),
        Route::Peers(peers) => Decision::Peers(members(peers)),
        Route::PeersFirst(peers) => Decision::PeersFirst(members(peers)),
        Route::OpenApiV2 { fullest, stand_ins } => Decision::OpenApiV2(members(fullest), members(stand_ins)),
        Route::OpenApiIndex { stand_ins } => Decision::OpenApiIndex(members(stand_ins)),
        Route::Discovery { asked, stand_ins } => Decision::Discovery(asked.name, members(stand_ins)),
        Route::Unavailable(unknown) => Decision::Unavailable(members(unknown)),
    }
}

#[test]
fn the_random_cases_reach_every_decision() {
    let mut runner = TestRunner::deterministic();
    let strategy = (cluster(), vec((request_line(), marks()), 24));
    let mut reached = BTreeMap::new();
    for _ in 0..300 {
        let (servers, requests) = strategy.new_tree(&mut runner).unwrap().current();
        for (line, marks) in requests {
            let request = read(line.method.as_str(), &line.path, line.query.as_deref().unwrap_or_default());
            let kind = match decide(request.as_ref(), marks, &servers) {
                Decision::Local(reason, _) => format!("local, {reason:?}"),
                Decision::Peers(_) => "peers".to_owned(),
                Decision::PeersFirst(_) => "peers first".to_owned(),
                Decision::OpenApiIndex(_) => "openapi index".to_owned(),
                Decision::OpenApiV2(..) => "openapi v2".to_owned(),
                Decision::Discovery(Name::Aggregated(Document::Core), _) => "discovery, core".to_owned(),
                Decision::Discovery(Name::Aggregated(Document::Groups), _) => "discovery, groups".to_owned(),
                Decision::Discovery(Name::GroupList, _) => "discovery, group list".to_owned(),
                Decision::Discovery(Name::Group(_), _) => "discovery, one group".to_owned(),
                Decision::Discovery(Name::Resources { .. }, _) => "discovery, resources".to_owned(),
                Decision::Unavailable(_) => "unavailable".to_owned(),
            };
            *reached.entry(kind).or_insert(0) += 1;
        }
    }
    let expected = [
        "discovery, core",
        "discovery, group list",
        "discovery, groups",
        "discovery, one group",
        "discovery, resources",
        "local, AlreadyProxied",
        "local, NonResource",
        "local, NotSynced",
        "local, ServedByNobody",
        "local, ServedLocally",
        "openapi index",
        "openapi v2",
        "peers",
        "peers first",
        "unavailable",
    ];
    assert!(reached.keys().eq(expected), "{reached:?}");
    assert!(reached.values().all(|times| *times >= 10), "{reached:?}");
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn every_request_goes_where_the_naive_model_sends_it(
        servers in cluster(),
        requests in vec((request_line(), marks()), 1..24),
    ) {
        let snapshot = snapshot(&servers);
        prop_assert_eq!(snapshot.is_skewed(), is_skewed(&servers));
        for (line, marks) in requests {
            let request = read(line.method.as_str(), &line.path, line.query.as_deref().unwrap_or_default());
            let expected = decide(request.as_ref(), marks, &servers);
            prop_assert_eq!(routed(&line, marks, &snapshot), expected, "{:?} {:?}", line, marks);
        }
    }

    #[test]
    fn a_switched_off_proxy_sends_everything_to_the_local_server(line in request_line(), marks in marks()) {
        let snapshot = Snapshot::disabled(UPSTREAMS[0]);
        let expected = Decision::Local(LocalReason::Disabled, Vec::new());
        prop_assert_eq!(routed(&line, marks, &snapshot), expected);
    }
}
