//! Breaks the rules of HTTP/2.

use std::borrow::Cow;

use futures_util::future::join_all;

use super::frames::{
    CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, Field, Frames, HEADERS, Outcome, PROTOCOL_ERROR,
    RST_STREAM, block, frame,
};
use super::site::{Arrives, Place, Site, Tried, Who, mark, ways};

/// A request on a connection of its own.
pub struct Row {
    pub what: &'static str,
    pub sends: Sends,
    pub is: Is,
}

/// What is sent, beside the client's token.
#[derive(Clone, Copy)]
pub enum Sends {
    /// GET with these fields more.
    More(&'static [Field<'static>]),
    /// These fields; `{path}` is what the client may ask for.
    Fields(&'static [Field<'static>]),
    /// POST with these fields more, and these pieces of a body.
    Body(&'static [Field<'static>], &'static [&'static [u8]]),
    /// POST with these fields more, a body, and trailers.
    Trailers(&'static [Field<'static>], &'static [Field<'static>]),
    /// GET whose header block is cut in two after so many bytes.
    Split(usize),
    /// POST whose body is broken off by the client.
    Cancelled,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Is {
    /// Nothing arrives, and this is the outcome.
    Refused(Outcome),
    /// One request arrives, cleaned.
    Served,
    /// One request may begin to arrive; it never comes to its end.
    Cut,
}

/// The stream is refused; others on the connection live on.
pub const RESET: Is = Is::Refused(Outcome::Reset(PROTOCOL_ERROR));
/// The client's whole connection ends: the h2 crate does not go on behind a field it cannot represent.
pub const ENDED: Is = Is::Refused(Outcome::Ended(PROTOCOL_ERROR));

const GET: [Field<'static>; 4] =
    [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"k"), (b":path", b"{path}")];

/// Runs a table for everybody and on every path.
pub async fn table(site: &Site, rows: &[Row]) {
    let mut tried = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        let sent = ways().map(async |(who, place)| {
            let mark = mark(number, who, place);
            let outcome = send(site, row, who, place, &mark).await;
            let (arrives, is_right) = match row.is {
                Is::Refused(expected) => (Arrives::Nothing, outcome == expected),
                Is::Served => (Arrives::One, matches!(outcome, Outcome::Answered(_))),
                Is::Cut => (Arrives::Part, true),
            };
            let wrong = (!is_right).then(|| format!("{:?} expected, not {outcome:?}", row.is));
            Tried { what: row.what, who, place, mark, arrives, wrong }
        });
        tried.extend(join_all(sent).await);
    }
    site.judge(&tried);
}

async fn send(site: &Site, row: &Row, who: Who, place: Place, mark: &str) -> Outcome {
    let path = Site::path(place) + mark;
    let token: &[Field<'_>] = if who == Who::Bob { &[(b"authorization", b"Bearer bob-token")] } else { &[] };
    let fields = |start: &[Field<'_>], more: &[Field<'_>]| {
        let fields = [start, token, more].concat();
        fields
            .iter()
            .flat_map(|(name, value)| block(&[(name, &*replaced(value, &path))]))
            .collect::<Vec<u8>>()
    };
    let post = [&[(&b":method"[..], &b"POST"[..])], &GET[1..]].concat();
    let headers = |flags, block: &[u8]| frame(HEADERS, END_HEADERS | flags, 1, block);
    let frames = match row.sends {
        Sends::More(more) => headers(END_STREAM, &fields(&GET, more)),
        Sends::Fields(all) => headers(END_STREAM, &fields(all, &[])),
        Sends::Body(more, pieces) => {
            let mut frames = headers(0, &fields(&post, more));
            for (index, piece) in pieces.iter().enumerate() {
                let flags = if index + 1 == pieces.len() { END_STREAM } else { 0 };
                frames.extend(frame(DATA, flags, 1, piece));
            }
            frames
        }
        Sends::Trailers(more, trailers) => [
            headers(0, &fields(&post, more)),
            frame(DATA, 0, 1, b"{}"),
            headers(END_STREAM, &block(trailers)),
        ]
        .concat(),
        Sends::Split(after) => {
            let block = fields(&GET, &[(b"x-remote-user", b"admin"), (b"x-remote-group", b"system:masters")]);
            let (first, second) = block.split_at(after);
            [frame(HEADERS, END_STREAM, 1, first), frame(CONTINUATION, END_HEADERS, 1, second)].concat()
        }
        Sends::Cancelled => {
            let reset = frame(RST_STREAM, 0, 1, &CANCEL.to_be_bytes());
            [headers(0, &fields(&post, &[(b"content-length", b"9")])), frame(DATA, 0, 1, b"{}"), reset]
                .concat()
        }
    };
    let mut connection = Frames::open(&site.caller(who, place), site.address(place)).await;
    connection.send(&frames).await;
    // Nobody answers what was taken back.
    let outcome = match row.sends {
        Sends::Cancelled => Outcome::Reset(CANCEL),
        _ => connection.outcome(1).await,
    };
    if !matches!(outcome, Outcome::Ended(_)) {
        let next = [&GET[..3], &[(b":path", b"/livez"), (b"user-agent", b"mvproxy/end")]].concat();
        connection.send(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &block(&next))).await;
        let next = connection.outcome(3).await;
        assert_eq!(next, Outcome::Answered(200), "{} as {who:?} to {place:?}: others live on", row.what);
    }
    outcome
}

fn replaced<'a>(bytes: &'a [u8], path: &str) -> Cow<'a, [u8]> {
    const WORD: &[u8] = b"{path}";
    match bytes.windows(WORD.len()).position(|part| part == WORD) {
        Some(start) => Cow::Owned([&bytes[..start], path.as_bytes(), &bytes[start + WORD.len()..]].concat()),
        None => Cow::Borrowed(bytes),
    }
}
