//! Requests whose end one reader could see where another does not.
//!
//! Compared with Go's net/http 1.19, which serves kube-apiserver: it reads `/hidden` as a second request behind CL.TE and
//! whatever else is chunked (the proxy closes there), takes an empty length, a folded coding and a bare LF behind a chunk's
//! size, ignores codings in HTTP/1.0, and answers unknown codings with 501 where hyper says 400.

use super::http1::Is::{Cut, Refused, Served};
use super::http1::{Is, Row};

const fn row(what: &'static str, sends: &'static [u8], is: Is) -> Row {
    Row { what, sends, is }
}

pub static FRAMING: &[Row] = &[
    row("a length", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Content-Length: 2\r\n\r\n{}", Served),
    row("chunks", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", Served),
    row("chunks in capitals", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}TRANSFER-ENCODING: Chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", Served),
    row("a request inside a body", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Content-Length: 45\r\n\r\nGET /hidden HTTP/1.1\r\nHost: k\r\nX-A: 12345\r\n\r\n", Served),
    row("CL.TE", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: k\r\nX-Remote-User: admin\r\n\r\n", Served),
    row("TE.CL", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n2f\r\nGET /hidden HTTP/1.1\r\nHost: k\r\nContent-Len: 5\r\n\r\n0\r\n\r\n", Served),
    row("TE.CL, too long", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Transfer-Encoding: chunked\r\nContent-Length: 4096\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: k\r\n\r\n", Served),
    row("CL.TE.CL", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Content-Length: 6\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: k\r\n\r\n", Served),
    row("a length twice", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", Served),
    row("two lengths", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Content-Length: 2\r\nContent-Length: 0\r\n\r\n{}", Refused(400)),
    row("two lengths, the other way round", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Content-Length: 0\r\nContent-Length: 33\r\n\r\nGET /hidden HTTP/1.1\r\nHost: k\r\n\r\n", Refused(400)),
    row("a list of lengths", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Content-Length: 2, 2\r\n\r\n{}", Refused(400)),
    row("a length with a sign", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Content-Length: +2\r\n\r\n{}", Refused(400)),
    row("a negative length", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Content-Length: -2\r\n\r\n{}", Refused(400)),
    row("a hexadecimal length", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Content-Length: 0x2\r\n\r\n{}", Refused(400)),
    row("a length with a blank in it", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Content-Length: 2 2\r\n\r\n{}", Refused(400)),
    row("an empty length", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Content-Length:\r\n\r\n", Refused(400)),
    row("a length that no number holds", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Content-Length: 18446744073709551618\r\n\r\n{}", Refused(400)),
    row("a length behind a blank line's blank", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth} Content-Length: 33\r\n\r\nGET /hidden HTTP/1.1\r\nHost: k\r\n\r\n", Refused(400)),
    row("an unknown coding", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", Refused(400)),
    row("chunked twice in a list", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", Refused(501)),
    row("chunked twice", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(501)),
    row("another coding before", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Refused(501)),
    row("identity before", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(501)),
    row("another coding after", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", Refused(400)),
    row("identity and a length", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\n{}", Refused(400)),
    row("an empty coding", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Transfer-Encoding:\r\nContent-Length: 2\r\n\r\n{}", Refused(400)),
    row("a coding in quotes", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", Refused(400)),
    row("a coding with a parameter", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", Refused(400)),
    row("a tab before the coding", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n", Served),
    row("a vertical tab before the coding", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", Refused(400)),
    row("a blank before the colon", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Transfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", Refused(400)),
    row("a coding on a folded line", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    row("a coding behind a bare CR", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}X-A: b\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    row("a coding behind a bare LF", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}X-A: b\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: k\r\n\r\n", Served),
    row("a coding in HTTP/1.0", b"POST {path} HTTP/1.0\r\nHost: k\r\n{auth}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    row("a coding with an underscore", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Transfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", Served),
    row("GET with a body", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}Content-Length: 45\r\n\r\nGET /hidden HTTP/1.1\r\nHost: k\r\nX-A: 12345\r\n\r\n", Served),
    row("GET with chunks", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", Served),
    row("a length that Connection takes away", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Connection: Content-Length\r\nContent-Length: 45\r\n\r\nGET /hidden HTTP/1.1\r\nHost: k\r\nX-A: 12345\r\n\r\n", Served),
    row("a body that waits to be asked for", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Expect: 100-continue\r\nContent-Length: 44\r\n\r\nGET /hidden HTTP/1.1\r\nX-Remote-User: adm\r\n\r\n", Served),
];

pub static CHUNKS: &[Row] = &[
    row("an extension", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Transfer-Encoding: chunked\r\n\r\n2;x-remote-user=admin\r\n{}\r\n0\r\n\r\n", Served),
    row("zeros before the size", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Transfer-Encoding: chunked\r\n\r\n0002\r\n{}\r\n0\r\n\r\n", Served),
    row("blanks behind the size", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Transfer-Encoding: chunked\r\n\r\n2  \r\n{}\r\n0\r\n\r\n", Served),
    row("0x before the size", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n", Cut),
    row("a negative size", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n", Cut),
    row("a size that no number holds", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Transfer-Encoding: chunked\r\n\r\n10000000000000002\r\n{}\r\n0\r\n\r\n", Cut),
    row("no size", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Transfer-Encoding: chunked\r\n\r\n\r\n{}\r\n0\r\n\r\n", Cut),
    row("more than the size", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Transfer-Encoding: chunked\r\n\r\n2\r\n{}GET /hidden HTTP/1.1\r\nHost: k\r\n\r\n0\r\n\r\n", Cut),
    row("a bare LF behind the size", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Transfer-Encoding: chunked\r\n\r\n2\n{}\r\n0\r\n\r\n", Cut),
    row("a bare LF in an extension", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Transfer-Encoding: chunked\r\n\r\n2;a\nGET /hidden HTTP/1.1\r\n{}\r\n0\r\n\r\n", Cut),
    row("a trailer", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Transfer-Encoding: chunked\r\nTE: trailers\r\nTrailer: X-Remote-User\r\n\r\n2\r\n{}\r\n0\r\nX-Remote-User: admin\r\nx-remote-group: system:masters\r\n\r\n", Served),
    row("a trailer that nobody announced", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX_Remote_User: admin\r\nAuthorization: Bearer x\r\nContent-Length: 7\r\nHost: evil\r\n\r\n", Served),
    row("a request behind a trailer", b"POST {path} HTTP/1.1\r\nHost: k\r\n{auth}Transfer-Encoding: chunked\r\n\r\n0\r\nX-A: b\r\n\r\nGET /hidden HTTP/1.1\r\nHost: k\r\n\r\n", Served),
];
