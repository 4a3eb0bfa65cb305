//! Whoever asks, and whatever it sends: an API server sees the same user with the proxy as without, on every path.
//!
//! A row says who asks, which headers it sends, and who it is. Each is asked over HTTP/1.1 and HTTP/2, straight, through
//! the proxy before the server that answers, and rerouted to it; then once more as an upgrade and as discovery.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(unreachable_pub, reason = "a module of a test binary is reached from that binary only")]

mod support;

#[path = "identity_table/ask.rs"]
mod ask;
#[path = "identity_table/assertions.rs"]
mod assertions;
#[path = "identity_table/cards.rs"]
mod cards;
#[path = "identity_table/ordinary.rs"]
mod ordinary;
#[path = "identity_table/row.rs"]
mod row;
#[path = "identity_table/settings.rs"]
mod settings;

use std::panic::AssertUnwindSafe;

use ask::Asker;
use futures_util::{FutureExt as _, StreamExt as _, future, join, stream};
use row::Row;
use settings::Setting;
use support::bounded;

/// Rows that are asked at the same time.
const ROWS_AT_ONCE: usize = 4;

fn table(setting: Setting, rows: &'static [Row]) {
    bounded(async {
        let cluster = settings::cluster(setting).await;
        let compared = rows.iter().enumerate().map(async |(number, row)| {
            let asker = Asker::new(&cluster, number, row);
            let ways = Box::pin(async { join!(asker.reviews(), asker.upgrades(), asker.discoveries()) });
            // One wrong row does not hide the others.
            AssertUnwindSafe(ways).catch_unwind().await.is_err().then_some(asker.label)
        });
        let failed: Vec<String> =
            stream::iter(compared).buffered(ROWS_AT_ONCE).filter_map(future::ready).collect().await;
        assert!(failed.is_empty(), "{failed:#?}");
    });
}

#[test]
fn tokens_count_as_they_do_straight() {
    table(Setting::default(), ordinary::WITH_TOKENS);
}

#[test]
fn subjects_are_read_as_they_are_straight() {
    table(Setting::default(), ordinary::SUBJECTS);
}

#[test]
fn certificates_verify_as_they_do_straight() {
    table(Setting::default(), ordinary::CHAINS);
}

#[test]
fn nobody_but_a_front_proxy_speaks_for_others() {
    table(Setting::default(), assertions::SPOOFS);
}

#[test]
fn front_proxies_speak_for_whom_they_say() {
    table(Setting::default(), assertions::FRONT_PROXIES);
}

#[test]
fn impersonation_is_judged_as_it_is_straight() {
    table(Setting::default(), assertions::IMPERSONATION);
}

#[test]
fn nobody_becomes_the_proxy_where_front_proxies_have_the_clients_ca() {
    table(Setting { one_ca: true, ..Setting::default() }, settings::ONE_CA);
}

#[test]
fn other_header_names_are_read_and_removed_like_the_usual_ones() {
    table(settings::CUSTOM, settings::CUSTOM_NAMES);
}

#[test]
fn without_a_name_for_the_uid_header_only_the_uid_is_lost() {
    table(settings::KUBEADM, settings::NO_UID_HEADER);
}
