//! What HTTP/2 forbids, and what it allows that HTTP/1.1 behind the proxy has no words for.

use super::frames::Outcome;
use super::http2::Is::{Cut, Refused, Served};
use super::http2::Sends::{Body, Cancelled, Fields, More, Split, Trailers};
use super::http2::{ENDED, Is, RESET, Row, Sends};

const fn row(what: &'static str, sends: Sends, is: Is) -> Row {
    Row { what, sends, is }
}

pub static PSEUDO: &[Row] = &[
    row("a plain request", More(&[]), Served),
    row("two methods", More(&[(b":method", b"DELETE")]), RESET),
    row(
        "two paths",
        Fields(&[
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":path", b"{path}"),
            (b":path", b"/hidden"),
        ]),
        RESET,
    ),
    row(
        "two schemes",
        Fields(&[(b":method", b"GET"), (b":scheme", b"https"), (b":scheme", b"http"), (b":path", b"{path}")]),
        RESET,
    ),
    row(
        "two authorities",
        Fields(&[
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":authority", b"k"),
            (b":authority", b"evil"),
            (b":path", b"{path}"),
        ]),
        RESET,
    ),
    row(
        "a pseudo-header after a header",
        Fields(&[(b":method", b"GET"), (b":scheme", b"https"), (b"x-a", b"1"), (b":path", b"{path}")]),
        RESET,
    ),
    row(
        "an unknown pseudo-header",
        Fields(&[
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":path", b"{path}"),
            (b":x-remote-user", b"admin"),
        ]),
        ENDED,
    ),
    row(
        "a status",
        Fields(&[(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"{path}"), (b":status", b"200")]),
        RESET,
    ),
    row("no method", Fields(&[(b":scheme", b"https"), (b":authority", b"k"), (b":path", b"{path}")]), RESET),
    row("no scheme", Fields(&[(b":method", b"GET"), (b":authority", b"k"), (b":path", b"{path}")]), RESET),
    row("no path", Fields(&[(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"k")]), RESET),
    row(
        "an empty path",
        Fields(&[(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"k"), (b":path", b"")]),
        RESET,
    ),
    row(
        "no authority",
        Fields(&[(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"{path}")]),
        Served,
    ),
    row(
        "a host instead",
        Fields(&[(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"{path}"), (b"host", b"k")]),
        Served,
    ),
    row("another host", More(&[(b"host", b"evil")]), Served),
    row("two hosts", More(&[(b"host", b"k"), (b"host", b"evil")]), Refused(Outcome::Answered(400))),
    row(
        "an authority with a user",
        Fields(&[
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":authority", b"admin@k"),
            (b":path", b"{path}"),
        ]),
        Served,
    ),
    row(
        "an authority with a path",
        Fields(&[
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":authority", b"k/hidden?"),
            (b":path", b"{path}"),
        ]),
        RESET,
    ),
    row(
        "another scheme",
        Fields(&[(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"k"), (b":path", b"{path}")]),
        Served,
    ),
    row(
        "a scheme with a host in it",
        Fields(&[
            (b":method", b"GET"),
            (b":scheme", b"https://evil/hidden?"),
            (b":authority", b"k"),
            (b":path", b"{path}"),
        ]),
        RESET,
    ),
    row(
        "a path with a blank",
        Fields(&[
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":authority", b"k"),
            (b":path", b"{path} HTTP/1.1"),
        ]),
        RESET,
    ),
    row(
        "a path with a line break",
        Fields(&[
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":authority", b"k"),
            (b":path", b"{path} HTTP/1.1\r\nX-Remote-User: admin\r\n\r\n"),
        ]),
        RESET,
    ),
    row(
        "a path with a tab",
        Fields(&[
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":authority", b"k"),
            (b":path", b"{path}\tHTTP/1.1"),
        ]),
        RESET,
    ),
    row(
        "a path with NUL",
        Fields(&[
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":authority", b"k"),
            (b":path", b"{path}\0"),
        ]),
        RESET,
    ),
    row(
        "an absolute path",
        Fields(&[
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":authority", b"k"),
            (b":path", b"https://evil{path}"),
        ]),
        RESET,
    ),
    row(
        "a path without a slash",
        Fields(&[(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"k"), (b":path", b"hidden")]),
        RESET,
    ),
    row(
        "a method with a blank",
        Fields(&[
            (b":method", b"GET /hidden HTTP/1.1\r\n"),
            (b":scheme", b"https"),
            (b":authority", b"k"),
            (b":path", b"{path}"),
        ]),
        ENDED,
    ),
    row(
        "a method in small letters",
        Fields(&[(b":method", b"get"), (b":scheme", b"https"), (b":authority", b"k"), (b":path", b"{path}")]),
        Served,
    ),
    row(
        "CONNECT to an authority",
        Fields(&[(b":method", b"CONNECT"), (b":authority", b"k:443")]),
        Refused(Outcome::Answered(405)),
    ),
    row(
        "CONNECT to a path",
        Fields(&[
            (b":method", b"CONNECT"),
            (b":scheme", b"https"),
            (b":authority", b"k"),
            (b":path", b"{path}"),
        ]),
        RESET,
    ),
    row(
        "CONNECT to a protocol",
        Fields(&[
            (b":method", b"CONNECT"),
            (b":protocol", b"websocket"),
            (b":scheme", b"https"),
            (b":authority", b"k"),
            (b":path", b"{path}"),
        ]),
        RESET,
    ),
];

pub static FIELDS: &[Row] = &[
    row("a name with a capital", More(&[(b"X-Remote-User", b"admin")]), ENDED),
    row("one capital", More(&[(b"x-remote-useR", b"admin")]), ENDED),
    row(
        "a user and a group",
        More(&[(b"x-remote-user", b"admin"), (b"x-remote-group", b"system:masters")]),
        Served,
    ),
    row(
        "with underscores",
        More(&[
            (b"x_remote_user", b"admin"),
            (b"x-remote_group", b"system:masters"),
            (b"x_remote_extra_a", b"1"),
        ]),
        Served,
    ),
    row(
        "several times",
        More(&[
            (b"x-remote-user", b"a"),
            (b"x-remote-user", b"b"),
            (b"x-remote-extra-", b"c"),
            (b"x-remote-uid", b""),
        ]),
        Served,
    ),
    row("connection", More(&[(b"connection", b"close")]), RESET),
    row(
        "connection that names a header",
        More(&[(b"connection", b"x-remote-user"), (b"x-remote-user", b"admin")]),
        RESET,
    ),
    row("keep-alive", More(&[(b"keep-alive", b"timeout=5")]), RESET),
    row("proxy-connection", More(&[(b"proxy-connection", b"keep-alive")]), RESET),
    row("transfer-encoding", More(&[(b"transfer-encoding", b"chunked")]), RESET),
    row(
        "transfer-encoding with chunks",
        Body(&[(b"transfer-encoding", b"chunked")], &[b"0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: k\r\n\r\n"]),
        RESET,
    ),
    row("upgrade", More(&[(b"upgrade", b"h2c")]), RESET),
    row("te", More(&[(b"te", b"gzip")]), RESET),
    row("te of trailers", More(&[(b"te", b"trailers")]), Served),
    row("an empty name", More(&[(b"", b"1")]), ENDED),
    row("a name with a colon", More(&[(b"x-remote-user: admin\r\nx-a", b"1")]), ENDED),
    row("a name with a blank", More(&[(b"x-remote-user ", b"admin")]), ENDED),
    row("a name with NUL", More(&[(b"x-remote-user\0", b"admin")]), ENDED),
    row("a line break in a value", More(&[(b"x-a", b"1\r\nX-Remote-User: admin")]), ENDED),
    row("LF in a value", More(&[(b"x-a", b"1\nX-Remote-User: admin")]), ENDED),
    row("CR in a value", More(&[(b"x-a", b"1\rX-Remote-User: admin")]), ENDED),
    row("NUL in a value", More(&[(b"x-a", b"1\0")]), ENDED),
    row("blanks around a value", More(&[(b"x-a", b" 1\t")]), Served),
    row("bytes above ASCII in a value", More(&[(b"x-a", b"J\xf6rg")]), Served),
    row("cookies in crumbs", More(&[(b"cookie", b"a=1"), (b"cookie", b"b=2"), (b"cookie", b"c=3")]), Served),
    row("expect", More(&[(b"expect", b"100-continue")]), Served),
    row("a block in two frames", Split(20), Served),
    row("a block in two frames, one of them empty", Split(0), Served),
];

pub static BODIES: &[Row] = &[
    row("a body", Body(&[(b"content-length", b"2")], &[b"{}"]), Served),
    row("a body in pieces", Body(&[(b"content-length", b"2")], &[b"{", b"", b"}"]), Served),
    row("a request for a body", Body(&[], &[b"GET /hidden HTTP/1.1\r\nHost: k\r\n\r\n"]), Served),
    row("chunks for a body", Body(&[], &[b"0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: k\r\n\r\n"]), Served),
    row(
        "more than the length",
        Body(&[(b"content-length", b"2")], &[b"{}GET /hidden HTTP/1.1\r\nHost: k\r\n\r\n"]),
        Cut,
    ),
    row(
        "more than a length of none",
        Body(&[(b"content-length", b"0")], &[b"GET /hidden HTTP/1.1\r\nHost: k\r\n\r\n"]),
        Cut,
    ),
    row("less than the length", Body(&[(b"content-length", b"45")], &[b"{}"]), Cut),
    row("a length and no body", More(&[(b"content-length", b"45")]), RESET),
    row("two lengths", Body(&[(b"content-length", b"2"), (b"content-length", b"45")], &[b"{}"]), RESET),
    row("a length twice", Body(&[(b"content-length", b"2"), (b"content-length", b"2")], &[b"{}"]), Served),
    row("a length that is none", Body(&[(b"content-length", b"+2")], &[b"{}"]), RESET),
    row("a list of lengths", Body(&[(b"content-length", b"2, 2")], &[b"{}"]), RESET),
    row(
        "trailers",
        Trailers(
            &[(b"trailer", b"x-remote-user")],
            &[(b"x-remote-user", b"admin"), (b"x_remote_group", b"system:masters")],
        ),
        Served,
    ),
    row(
        "trailers that frame",
        Trailers(&[], &[(b"content-length", b"45"), (b"host", b"evil"), (b"authorization", b"Bearer x")]),
        Served,
    ),
    row(
        "pseudo-headers in trailers",
        Trailers(&[], &[(b":path", b"/hidden"), (b"x-remote-user", b"admin")]),
        Served,
    ),
    row("a body that is broken off", Cancelled, Cut),
];
