//! Recognises how a kube-apiserver that is shutting down turns a request away before anybody looked at it.
//!
//! Such a request had no effect, whatever its method, and may go to another server. kube-apiserver says so in two ways
//! (k8s.io/apiserver `filters.WithWaitGroup` and `filters.WithRetryAfter`); both come before authentication.
//!
//! A pod or an aggregated API server that answers through kube-apiserver can say the same of itself. It is taken at its
//! word for this one request, as a GOAWAY is, but nothing follows from it for the server that passed it on.

use http::StatusCode;
use http::header::RETRY_AFTER;
use http::response::Parts;

use super::whole::BegunBody;

/// What `WithWaitGroup` puts into the message of its Status.
const REFUSED: &[u8] = b"\"apiserver is shutting down\"";
/// What `WithRetryAfter` answers (`--shutdown-send-retry-after`).
const TOLD_TO_RETRY: &[u8] = b"The apiserver is shutting down, please try again later.\n";
/// Both are shorter than this.
const LONGEST: usize = 1024;

/// Whether the server did not look at the request because it is about to end.
pub fn is_turned_away(head: &Parts, body: &BegunBody) -> bool {
    let says_it: fn(&[u8]) -> bool = match head.status {
        StatusCode::SERVICE_UNAVAILABLE => |text| text.windows(REFUSED.len()).any(|part| part == REFUSED),
        StatusCode::TOO_MANY_REQUESTS => |text| text == TOLD_TO_RETRY,
        _ => return false,
    };
    head.headers.contains_key(RETRY_AFTER) && body.if_whole(LONGEST).is_some_and(|text| says_it(&text))
}
