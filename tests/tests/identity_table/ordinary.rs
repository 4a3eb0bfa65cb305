//! Clients that speak for themselves: with a certificate, a token, both, or nothing.

use super::cards::*;
use super::row::{ANONYMOUS, AUTH, BOB, Field, Is, REFUSED, Row, certified, h, http1, row};

const TOKEN: Field = h("Authorization", "Bearer bob-token");
const WRONG: Field = h("Authorization", "Bearer wrong");
const BASIC: Field = h("Authorization", "Basic Ym9iOmJvYi10b2tlbg==");
const TWO_BLANKS: Field = h("Authorization", "Bearer  bob-token");

const UPGRADE: Field = h("Upgrade", "websocket");
const UPGRADES: Field = h("Connection", "keep-alive, Upgrade");
/// `bob-token` in unpadded base64url.
const BROWSER: Field =
    h("Sec-WebSocket-Protocol", "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.Ym9iLXRva2Vu");
const LONE: Field = h("Sec-WebSocket-Protocol", "base64url.bearer.authorization.k8s.io.Ym9iLXRva2Vu");
const WRONG_BROWSER: Field =
    h("Sec-WebSocket-Protocol", "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.d3Jvbmc");
const NOT_BASE64: Field =
    h("Sec-WebSocket-Protocol", "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.***");
const EMPTY_BROWSER: Field =
    h("Sec-WebSocket-Protocol", "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.");

const ALICES: Is = Is::User(certified("alice", &["dev", "ops", AUTH]));

pub static WITH_TOKENS: &[Row] = &[
    row(&NOBODY, &[], ANONYMOUS),
    row(&NOBODY, &[TOKEN], BOB),
    row(&NOBODY, &[WRONG], REFUSED),
    row(&NOBODY, &[BASIC], ANONYMOUS),
    row(&NOBODY, &[h("Authorization", "")], ANONYMOUS),
    row(&NOBODY, &[h("Authorization", "Bearer")], ANONYMOUS),
    row(&NOBODY, &[h("Authorization", "bob-token")], ANONYMOUS),
    row(&NOBODY, &[h("Authorization", "bEARER bob-token")], BOB),
    row(&NOBODY, &[h("Authorization", "Bearer bob-token and more")], BOB),
    row(&NOBODY, &[("Authorization", b"Bearer b\xf6b")], REFUSED),
    row(&NOBODY, &[TWO_BLANKS], ANONYMOUS),
    row(&NOBODY, &[TOKEN, WRONG], BOB),
    row(&NOBODY, &[WRONG, TOKEN], REFUSED),
    row(&NOBODY, &[BROWSER], ANONYMOUS),
    http1(&NOBODY, &[UPGRADES, UPGRADE, BROWSER], BOB),
    http1(&NOBODY, &[UPGRADES, UPGRADE, LONE], REFUSED),
    http1(&NOBODY, &[UPGRADES, UPGRADE, WRONG_BROWSER], REFUSED),
    http1(&NOBODY, &[UPGRADES, UPGRADE, NOT_BASE64], REFUSED),
    http1(&NOBODY, &[UPGRADES, UPGRADE, EMPTY_BROWSER], ANONYMOUS),
    http1(&NOBODY, &[UPGRADES, UPGRADE, BROWSER, BROWSER], REFUSED),
    http1(&NOBODY, &[UPGRADES, UPGRADE, WRONG, BROWSER], BOB),
    http1(&NOBODY, &[UPGRADES, h("Upgrade", "SPDY/3.1"), BROWSER], ANONYMOUS),
    row(&ALICE, &[TOKEN], ALICES),
    row(&ALICE, &[WRONG], ALICES),
    row(&ALICE, &[BASIC], ALICES),
    http1(&ALICE, &[UPGRADES, UPGRADE, BROWSER], ALICES),
    row(&STRANGER, &[TOKEN], BOB),
    row(&STRANGER, &[WRONG], REFUSED),
    row(&STRANGER, &[BASIC], REFUSED),
    row(&STRANGER, &[h("Authorization", "")], REFUSED),
    row(&STRANGER, &[h("Authorization", "Bearer")], REFUSED),
    row(&STRANGER, &[TWO_BLANKS], REFUSED),
    row(&STRANGER, &[BROWSER], REFUSED),
    http1(&STRANGER, &[UPGRADES, UPGRADE, BROWSER], BOB),
    http1(&STRANGER, &[UPGRADES, UPGRADE, LONE], REFUSED),
    http1(&STRANGER, &[UPGRADES, UPGRADE, EMPTY_BROWSER], REFUSED),
    row(&EXPIRED, &[TOKEN], BOB),
    row(&NAMELESS, &[TOKEN], BOB),
    row(&UNKNOWN_CRITICAL, &[TOKEN], BOB),
    row(&OLD_STRANGER, &[TOKEN], BOB),
];

/// What Kubernetes reads of a subject, and in which order.
pub static SUBJECTS: &[Row] = &[
    row(&ALICE, &[], ALICES),
    row(&ADMIN, &[], Is::User(certified("admin", &["system:masters", AUTH]))),
    row(&NAMELESS, &[], REFUSED),
    row(&TWO_NAMES, &[], Is::User(certified("eve", &[AUTH]))),
    row(&EMPTY_LAST_NAME, &[], REFUSED),
    row(&WITH_UID, &[], Is::User(certified("dave", &[AUTH]).uid("u-1"))),
    row(&TWO_UIDS, &[], REFUSED),
    row(&EMPTY_UID, &[], REFUSED),
    row(&MULTI_VALUED, &[], Is::User(certified("eve", &["z", "a", "m", "b", "a", AUTH]))),
    row(&ONE_RDN, &[], Is::User(certified("eve", &["ops", "dev", AUTH]).uid("u-2"))),
    row(&MANY_GROUPS, &[], Is::User(certified("eve", &["g5", "g1", "g4, g6", "g3", "g1", AUTH]))),
    row(&SAYS_ANONYMOUS, &[], ANONYMOUS),
    row(&SAYS_UNAUTHENTICATED, &[], Is::Forbidden("eve")),
    row(&SAYS_AUTHENTICATED, &[], Is::User(certified("eve", &[AUTH]))),
    row(&SAYS_FRONT_PROXY, &[], Is::User(certified("front-proxy-client", &[AUTH]))),
    // Every kind of string that Go reads.
    row(&NOT_ASCII, &[], Is::User(certified("jörg ☃", &["Küche", AUTH]).uid("ü-1"))),
    row(&PRINTABLE, &[], Is::User(certified("eve@example.com", &["dev & co*", AUTH]))),
    row(&T61, &[], Is::User(certified("Jörg", &["Küche", AUTH]))),
    row(&BMP, &[], Is::User(certified("jörg☃", &["dev", AUTH]))),
    row(&ODD_BMP, &[], REFUSED),
    row(&NOT_PRINTABLE, &[], REFUSED),
    row(&NOT_TEXT, &[], REFUSED),
    // What headers cannot say must not become something else.
    row(&BLANK_BEHIND, &[], Is::Unassertable(certified("alice ", &[AUTH]))),
    row(&BLANK_BEFORE, &[], Is::Unassertable(certified("eve", &[" system:masters", AUTH]))),
    row(&LINE_BREAK, &[], Is::Unassertable(certified("eve\r\nX-Remote-Group: system:masters", &[AUTH]))),
    row(&NUL, &[], Is::Unassertable(certified("eve", &["system:masters\0", AUTH]))),
];

/// Chain, validity and usage.
pub static CHAINS: &[Row] = &[
    row(&STRANGER, &[], REFUSED),
    row(&OLD_STRANGER, &[], REFUSED),
    row(&EXPIRED, &[], REFUSED),
    row(&NOT_YET_VALID, &[], REFUSED),
    row(&FOR_SERVERS, &[], REFUSED),
    row(&FOR_BOTH, &[], ALICES),
    row(&FOR_ANYTHING, &[], ALICES),
    row(&FOR_NOTHING_SAID, &[], ALICES),
    row(&VERSION_1, &[], ALICES),
    row(&UNKNOWN_CRITICAL, &[], REFUSED),
    row(&A_CA, &[], ALICES),
    row(&UNDER_CA, &[], ALICES),
    row(&UNDER_LEAF, &[], REFUSED),
    row(&UNDER_EXPIRED, &[], REFUSED),
    row(&UNDER_SERVERS, &[], REFUSED),
    row(&UNDER_VERSION_1, &[], REFUSED),
    row(&UNDER_IMPOSTOR, &[], REFUSED),
];
