//! Nothing that a client writes arrives as more, or as somebody else's, than what it is allowed to ask.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(unreachable_pub, reason = "a module of a test binary is reached from that binary only")]

mod support;

#[path = "smuggling/fields.rs"]
mod fields;
#[path = "smuggling/frames.rs"]
mod frames;
#[path = "smuggling/framing.rs"]
mod framing;
#[path = "smuggling/http1.rs"]
mod http1;
#[path = "smuggling/http2.rs"]
mod http2;
#[path = "smuggling/http2_rows.rs"]
mod http2_rows;
#[path = "smuggling/site.rs"]
mod site;
#[path = "smuggling/wire.rs"]
mod wire;

use site::Site;
use support::bounded;

#[test]
fn the_end_of_a_request_is_beyond_doubt() {
    bounded(async {
        let site = Site::start().await;
        http1::table(&site, framing::FRAMING).await;
    });
}

#[test]
fn chunks_end_where_they_say() {
    bounded(async {
        let site = Site::start().await;
        http1::table(&site, framing::CHUNKS).await;
    });
}

#[test]
fn what_is_no_header_is_not_taken_for_one() {
    bounded(async {
        let site = Site::start().await;
        http1::table(&site, fields::SYNTAX).await;
    });
}

#[test]
fn no_header_claims_what_is_not_the_clients() {
    bounded(async {
        let site = Site::start().await;
        http1::table(&site, fields::CLAIMS).await;
    });
}

#[test]
fn a_request_has_one_target_and_one_host() {
    bounded(async {
        let site = Site::start().await;
        http1::table(&site, fields::TARGETS).await;
    });
}

#[test]
fn an_http2_request_has_one_target_and_one_host() {
    bounded(async {
        let site = Site::start().await;
        http2::table(&site, http2_rows::PSEUDO).await;
    });
}

#[test]
fn an_http2_field_is_one_field_and_claims_nothing() {
    bounded(async {
        let site = Site::start().await;
        http2::table(&site, http2_rows::FIELDS).await;
    });
}

#[test]
fn an_http2_body_ends_where_its_stream_does() {
    bounded(async {
        let site = Site::start().await;
        http2::table(&site, http2_rows::BODIES).await;
    });
}
