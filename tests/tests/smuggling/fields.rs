//! Headers that one reader could take for others than another does, and headers that claim what is not the client's.
//!
//! Compared with Go's net/http 1.19, which serves kube-apiserver: it takes folded lines, an empty name, HTTP/1.2 and CONNECT,
//! answers an unknown Expect with 417 and unknown versions with 505, and refuses line breaks before a request.

use super::http1::Is::{Refused, Served, Unheard};
use super::http1::{Is, Row};

const fn row(what: &'static str, sends: &'static [u8], is: Is) -> Row {
    Row { what, sends, is }
}

pub static SYNTAX: &[Row] = &[
    row("a folded line", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}X-A: 1\r\n X-Remote-User: admin\r\n\r\n", Refused(400)),
    row("a line folded with a tab", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}X-A: 1\r\n\tX-Remote-User: admin\r\n\r\n", Refused(400)),
    row("a first line that is folded", b"GET {path} HTTP/1.1\r\n X-Remote-User: admin\r\nHost: k\r\n{auth}\r\n", Refused(400)),
    row("a bare LF", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}X-A: 1\nX-Remote-User: admin\nX_Remote_Group: system:masters\r\n\r\n", Served),
    row("bare LFs at the end", b"GET {path} HTTP/1.1\nHost: k\n{auth}X-Remote-User: admin\n\n", Served),
    row("a bare CR", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}X-A: 1\rX-Remote-User: admin\r\n\r\n", Refused(400)),
    row("CR twice", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}X-A: 1\r\r\nX-Remote-User: admin\r\n\r\n", Refused(400)),
    row("NUL in a value", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}X-A: 1\0X-Remote-User: admin\r\n\r\n", Refused(400)),
    row("NUL in a name", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}X-Remote-User\0: admin\r\n\r\n", Refused(400)),
    row("NUL before a name", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}\0X-Remote-User: admin\r\n\r\n", Refused(400)),
    row("a control character in a value", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}X-A: 1\x01\r\n\r\n", Refused(400)),
    row("an escape in a value", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}X-A: \x1b[31m\r\n\r\n", Refused(400)),
    row("DEL in a value", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}X-A: \x7f\r\n\r\n", Refused(400)),
    row("a tab in a value", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}X-A: a\tb\r\n\r\n", Served),
    row("bytes above ASCII in a value", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}X-A: J\xf6rg\r\n\r\n", Served),
    row("bytes above ASCII in a name", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}X-Remote-\xdcser: admin\r\n\r\n", Refused(400)),
    row("a blank before the colon", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}X-Remote-User : admin\r\n\r\n", Refused(400)),
    row("a tab before the colon", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}X-Remote-User\t: admin\r\n\r\n", Refused(400)),
    row("a blank in a name", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}X-Remote User: admin\r\n\r\n", Refused(400)),
    row("a comma in a name", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}X-A,X-Remote-User: admin\r\n\r\n", Refused(400)),
    row("no name", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}: X-Remote-User\r\n\r\n", Refused(400)),
    row("no colon", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}X-Remote-User admin\r\n\r\n", Refused(400)),
    row("no value", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}X-A:\r\n\r\n", Served),
    row("a line of a blank", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth} \r\nX-Remote-User: admin\r\n\r\n", Refused(400)),
];

pub static CLAIMS: &[Row] = &[
    row("a user and a group", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}X-Remote-User: admin\r\nX-Remote-Group: system:masters\r\n\r\n", Served),
    row("in capitals", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}X-REMOTE-USER: admin\r\nX-REMOTE-GROUP: system:masters\r\n\r\n", Served),
    row("in small letters", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}x-remote-user: admin\r\nx-remote-group: system:masters\r\n\r\n", Served),
    row("in both", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}x-ReMoTe-UsEr: admin\r\nX-rEmOtE-gRoUp:system:masters\r\n\r\n", Served),
    row("with underscores", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}X_Remote_User: admin\r\nX_REMOTE_GROUP: system:masters\r\nx_remote_uid: 0\r\n\r\n", Served),
    row("with underscores here and there", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}X-Remote_User: admin\r\nX_Remote-Group: system:masters\r\nX_Remote-Extra_A: 1\r\n\r\n", Served),
    row("several times", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}X-Remote-User: a\r\nX-Remote-User: b\r\nx-remote-user: c\r\nX_Remote_User: d\r\n\r\n", Served),
    row("extra attributes", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}X-Remote-Extra-Scopes: all\r\nX-Remote-Extra-: none\r\nX-Remote-Extra-%41: 1\r\nX-REMOTE-EXTRA-_: 1\r\n\r\n", Served),
    row("empty", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}X-Remote-User:\r\nX-Remote-Group: \t\r\nX-Remote-Uid:\r\n\r\n", Served),
    row("named by Connection", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}X-Remote-User: admin\r\nConnection: X-Remote-User, x_remote_group\r\nx_remote_group: system:masters\r\n\r\n", Served),
    row("behind Connection: close", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}Connection: close\r\nConnection: keep-alive, X-Remote-User\r\nX-Remote-User: admin\r\n\r\n", Served),
    row("headers of one connection", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}Keep-Alive: X-Remote-User=admin\r\nProxy-Connection: X-Remote-User\r\nProxy-Authorization: Basic x\r\nTE: trailers, deflate\r\nTrailer: X-Remote-User\r\n\r\n", Served),
    row("what Connection must not take", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}Connection: Authorization, X-Forwarded-For, Host, X-Remote-Group, x-kubernetes-peer-proxied\r\n\r\n", Served),
    row("Connection that is not a list of names", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}Connection: , ;,\x80, \"X-A\",,\r\nX-A: 1\r\n\r\n", Served),
    row("an upgrade to HTTP/2", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n", Served),
    row("an upgrade to HTTP/2 among others", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}Connection: Upgrade\r\nUpgrade: TLS/1.2, websocket, H2C\r\n\r\n", Served),
    row("an upgrade that nobody grants", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}Connection: Upgrade\r\nUpgrade: spdy/3.1\r\nX-Remote-User: admin\r\n\r\n", Served),
    row("a request behind an upgrade that nobody grants", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}Connection: Upgrade\r\nUpgrade: spdy/3.1\r\nContent-Length: 45\r\n\r\nGET /hidden HTTP/1.1\r\nHost: k\r\nX-A: 12345\r\n\r\n", Served),
    row("Expect that nobody knows", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}Expect: X-Remote-User\r\n\r\n", Served),
    row("a query and a fragment", b"GET {path}&x=%0d%0aX-Remote-User:%20admin HTTP/1.1\r\nHost: k\r\n{auth}\r\n", Served),
    row("cookies", b"GET {path} HTTP/1.1\r\nHost: k\r\n{auth}Cookie: a=1\r\nCookie: b=2\r\n\r\n", Served),
];

pub static TARGETS: &[Row] = &[
    row("no Host", b"GET {path} HTTP/1.1\r\n{auth}\r\n", Refused(400)),
    row("no Host in HTTP/1.0", b"GET {path} HTTP/1.0\r\n{auth}\r\n", Served),
    row("an empty Host", b"GET {path} HTTP/1.1\r\nHost:\r\n{auth}\r\n", Served),
    row("two Hosts", b"GET {path} HTTP/1.1\r\nHost: k\r\nHost: evil\r\n{auth}\r\n", Refused(400)),
    row("the same Host twice", b"GET {path} HTTP/1.1\r\nHost: k\r\nhost: k\r\n{auth}\r\n", Refused(400)),
    row("a Host with a path", b"GET {path} HTTP/1.1\r\nHost: k/hidden\r\n{auth}\r\n", Refused(400)),
    row("a Host with a blank", b"GET {path} HTTP/1.1\r\nHost: k evil\r\n{auth}\r\n", Refused(400)),
    row(
        "an absolute target",
        b"GET https://k{path} HTTP/1.1\r\nHost: k\r\n{auth}X-Remote-User: admin\r\n\r\n",
        Served,
    ),
    row(
        "an absolute target elsewhere",
        b"GET http://evil:1{path} HTTP/1.1\r\nHost: k\r\n{auth}X-Remote-User: admin\r\n\r\n",
        Served,
    ),
    row(
        "an absolute target and two Hosts",
        b"GET http://k{path} HTTP/1.1\r\nHost: k\r\nHost: evil\r\n{auth}\r\n",
        Refused(400),
    ),
    row("CONNECT to an authority", b"CONNECT k:443 HTTP/1.1\r\nHost: k\r\n{auth}\r\n", Refused(405)),
    row("CONNECT to a path", b"CONNECT {path} HTTP/1.1\r\nHost: k\r\n{auth}\r\n", Refused(405)),
    row("GET of an authority", b"GET k:443 HTTP/1.1\r\nHost: k\r\n{auth}\r\n", Refused(400)),
    row("no target", b"GET HTTP/1.1\r\nHost: k\r\n{auth}\r\n", Refused(400)),
    row("a target without a slash", b"GET hidden HTTP/1.1\r\nHost: k\r\n{auth}\r\n", Refused(400)),
    row("a fragment", b"GET {path}#/hidden HTTP/1.1\r\nHost: k\r\n{auth}\r\n", Served),
    row("a blank in the target", b"GET {path} /hidden HTTP/1.1\r\nHost: k\r\n{auth}\r\n", Refused(400)),
    row("two blanks", b"GET  {path} HTTP/1.1\r\nHost: k\r\n{auth}\r\n", Refused(400)),
    row("a tab", b"GET\t{path} HTTP/1.1\r\nHost: k\r\n{auth}\r\n", Refused(400)),
    row("NUL in the target", b"GET {path}\0 HTTP/1.1\r\nHost: k\r\n{auth}\r\n", Refused(400)),
    row(
        "a bare CR in the target",
        b"GET {path}\rX-Remote-User: admin HTTP/1.1\r\nHost: k\r\n{auth}\r\n",
        Refused(400),
    ),
    row(
        "a line break in the target",
        b"GET {path}\r\nX-Remote-User: admin HTTP/1.1\r\nHost: k\r\n{auth}\r\n",
        Refused(400),
    ),
    row("no version", b"GET {path}\r\nHost: k\r\n{auth}\r\n", Refused(400)),
    row("a version of long ago", b"GET {path} HTTP/0.9\r\nHost: k\r\n{auth}\r\n", Refused(400)),
    row("a version to come", b"GET {path} HTTP/1.2\r\nHost: k\r\n{auth}\r\n", Refused(400)),
    row("another version", b"GET {path} HTTP/2.0\r\nHost: k\r\n{auth}\r\n", Refused(400)),
    row("a version in small letters", b"GET {path} http/1.1\r\nHost: k\r\n{auth}\r\n", Refused(400)),
    row("HTTP/2 on a connection for HTTP/1.1", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Unheard),
    row("a method in small letters", b"get {path} HTTP/1.1\r\nHost: k\r\n{auth}\r\n", Served),
    row("a method that is no word", b"G\0T {path} HTTP/1.1\r\nHost: k\r\n{auth}\r\n", Refused(400)),
    row("line breaks before a request", b"\r\n\r\nGET {path} HTTP/1.1\r\nHost: k\r\n{auth}\r\n", Served),
];
