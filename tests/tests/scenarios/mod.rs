//! Every rung of the routing ladder and every way in which an API server can fail: what the client gets, how soon, and how
//! often a write took place. Each scenario takes place on loopback and in network namespaces.
#![allow(dead_code, reason = "some need network namespaces")]
#![allow(unreachable_pub, reason = "a module of a test binary is reached from that binary only")]

pub mod answers;
pub mod deaths;
pub mod local;
pub mod rungs;
pub mod silence;
pub mod streams;
pub mod unheard;

/// Hands the name of each scenario to a macro that makes a test of it.
macro_rules! for_every_scenario {
    ($make_tests:ident) => {
        $make_tests! {
            rungs::a_request_for_no_resource_is_served_locally,
            rungs::a_request_that_was_proxied_already_is_served_locally,
            rungs::until_the_local_server_has_said_what_it_serves_it_gets_everything,
            rungs::what_the_local_server_serves_goes_to_no_peer,
            rungs::what_nobody_serves_is_answered_by_the_local_server,
            rungs::what_only_peers_serve_goes_to_one_of_them,
            rungs::what_only_a_peer_serves_that_cannot_be_reached_is_503,
            rungs::what_a_peer_that_never_answered_might_serve_is_503_until_it_has_answered_once,

            answers::a_peer_that_refuses_is_passed_over_at_once_and_every_write_takes_place_once,
            answers::a_peer_with_a_bad_certificate_gets_no_request_and_the_client_a_503_at_once,
            answers::a_peers_429_and_500_are_relayed_as_they_are_and_not_tried_elsewhere,
            answers::what_a_server_that_is_shutting_down_turns_away_goes_to_another,
            answers::what_a_pod_claims_says_nothing_of_the_server_before_it,
            answers::an_answer_that_takes_its_time_is_waited_for_and_delays_no_other,
            answers::strangers_are_told_no_more_than_others,

            deaths::a_small_answer_that_breaks_off_is_none,
            deaths::a_large_answer_that_breaks_off_is_cut_for_the_client_as_well_and_not_asked_for_again,
            deaths::a_read_without_an_answer_is_sent_again_and_a_write_is_not,
            deaths::a_read_whose_peer_dies_goes_to_another_and_a_write_does_not,
            deaths::a_read_that_breaks_off_on_a_new_connection_is_not_sent_there_again,
            deaths::a_read_that_nobody_answers_is_a_503_and_a_write_a_502,
            deaths::a_write_that_a_goaway_says_was_not_processed_is_sent_again_with_its_body,

            silence::a_peer_that_is_cut_off_is_noticed_soon_and_what_waits_for_it_goes_elsewhere,
            silence::a_lone_peer_that_is_cut_off_is_503_soon_and_what_was_sent_to_it_is_not_sent_again,
            silence::a_peer_that_is_cut_off_does_not_delay_what_is_learnt_of_others,

            streams::a_watch_whose_peer_dies_goes_on_at_another_without_a_gap_or_a_repeat,
            streams::a_watch_that_nobody_can_go_on_with_breaks_off_at_once,
            streams::a_storm_of_goaways_fails_and_doubles_nothing,

            local::peers_answer_for_a_local_server_that_is_down_and_health_endpoints_do_not,
            local::requests_go_back_to_the_local_server_as_soon_as_it_is_ready,
            local::a_local_server_that_stops_gracefully_fails_no_request_under_way,
            local::without_local_failover_a_dead_local_server_is_a_503,
        }
    };
}
