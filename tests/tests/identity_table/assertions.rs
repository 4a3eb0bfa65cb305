//! Clients that speak for somebody else: front proxies, who may, everybody else, who may not, and impersonation.

use super::cards::*;
use super::row::{ANONYMOUS, AUTH, BOB, Field, Is, REFUSED, Row, certified, h, named, row};

const TOKEN: Field = h("Authorization", "Bearer bob-token");
const WRONG: Field = h("Authorization", "Bearer wrong");

const CAROL: Field = h("X-Remote-User", "carol");
const ADMIN_S_NAME: Field = h("X-Remote-User", "admin");
const MASTERS: Field = h("X-Remote-Group", "system:masters");
const USER_ID: Field = h("X-Remote-Uid", "0");
const SCOPES: Field = h("X-Remote-Extra-Scopes", "all");
const NO_KEY: Field = h("X-Remote-Extra-", "all");
const LOW_USER: Field = h("X_Remote_User", "admin");
const LOW_GROUP: Field = h("X-Remote_Group", "system:masters");
const LOW_UID: Field = h("X_Remote_Uid", "0");
const LOW_SCOPES: Field = h("X_Remote_Extra_Scopes", "all");
const FOLDED: &[Field] = &[
    LOW_USER,
    h("x_remote-user", "admin"),
    LOW_GROUP,
    h("X_REMOTE_GROUP", "system:masters"),
    LOW_UID,
    LOW_SCOPES,
    h("X-Remote-Extra_Scopes", "all"),
];
const TWICE: &[Field] = &[ADMIN_S_NAME, h("X-Remote-User", "root"), MASTERS, MASTERS, USER_ID, USER_ID];
const EMPTY: &[Field] = &[h("X-Remote-User", ""), h("X-Remote-Group", ""), h("X-Remote-Uid", "")];

const ALICES: Is = Is::User(certified("alice", &["dev", "ops", AUTH]));

pub static SPOOFS: &[Row] = &[
    row(&NOBODY, &[ADMIN_S_NAME, MASTERS], ANONYMOUS),
    row(&NOBODY, &[MASTERS], ANONYMOUS),
    row(&NOBODY, &[USER_ID, SCOPES, NO_KEY], ANONYMOUS),
    row(&NOBODY, FOLDED, ANONYMOUS),
    row(&NOBODY, TWICE, ANONYMOUS),
    row(&NOBODY, EMPTY, ANONYMOUS),
    row(&NOBODY, &[WRONG, ADMIN_S_NAME, MASTERS], REFUSED),
    row(&NOBODY, &[TOKEN, ADMIN_S_NAME, MASTERS, USER_ID, SCOPES], BOB),
    row(&NOBODY, &[TOKEN, SCOPES, NO_KEY], BOB),
    row(&NOBODY, &[TOKEN, LOW_USER, LOW_GROUP, LOW_UID, LOW_SCOPES], BOB),
    row(&ALICE, &[ADMIN_S_NAME, MASTERS, USER_ID, SCOPES], ALICES),
    row(&ALICE, &[h("X-Remote-Extra-Authentication.kubernetes.io%2fcredential-Id", "forged")], ALICES),
    row(&ALICE, &[NO_KEY], ALICES),
    row(&ALICE, FOLDED, ALICES),
    row(&ALICE, TWICE, ALICES),
    row(&ALICE, EMPTY, ALICES),
    row(&VERSION_1, &[ADMIN_S_NAME, MASTERS], ALICES),
    row(&STRANGER, &[ADMIN_S_NAME, MASTERS], REFUSED),
    row(&STRANGER, &[TOKEN, ADMIN_S_NAME, MASTERS], BOB),
    row(&FOR_SERVERS, &[ADMIN_S_NAME, MASTERS], REFUSED),
    row(&NAMELESS, &[ADMIN_S_NAME, MASTERS], REFUSED),
    row(&SAYS_FRONT_PROXY, &[ADMIN_S_NAME, MASTERS], Is::User(certified("front-proxy-client", &[AUTH]))),
    row(&OTHER_PROXY, &[ADMIN_S_NAME, MASTERS], REFUSED),
    row(&OTHER_PROXY, &[TOKEN, ADMIN_S_NAME, MASTERS], BOB),
    row(&NAMELESS_PROXY, &[ADMIN_S_NAME, MASTERS], REFUSED),
    row(&PROXY_FIRST, &[ADMIN_S_NAME, MASTERS], REFUSED),
    row(&EXPIRED_PROXY, &[ADMIN_S_NAME, MASTERS], REFUSED),
    row(&EXPIRED_PROXY, &[TOKEN, ADMIN_S_NAME, MASTERS], BOB),
    row(&SERVING_PROXY, &[ADMIN_S_NAME, MASTERS], REFUSED),
];

pub static FRONT_PROXIES: &[Row] = &[
    row(&FRONT_PROXY, &[CAROL], Is::User(named("carol", &[AUTH]))),
    row(
        &FRONT_PROXY,
        &[CAROL, h("X-Remote-Group", "g1"), h("X-Remote-Group", "g2, g3"), h("X-Remote-Uid", "c-1"), SCOPES],
        Is::User(named("carol", &["g1", "g2, g3", AUTH]).uid("c-1").extra(&[("scopes", &["all"])])),
    ),
    row(&FRONT_PROXY, &[CAROL, MASTERS], Is::User(named("carol", &["system:masters", AUTH]))),
    row(&FRONT_PROXY, &[CAROL, TOKEN], Is::User(named("carol", &[AUTH]))),
    row(&FRONT_PROXY, &[CAROL, WRONG], Is::User(named("carol", &[AUTH]))),
    row(&FRONT_PROXY, &[CAROL, ADMIN_S_NAME], Is::User(named("carol", &[AUTH]))),
    row(&FRONT_PROXY, &[], REFUSED),
    row(&FRONT_PROXY, &[h("X-Remote-User", "")], REFUSED),
    row(&FRONT_PROXY, &[h("X-Remote-User", ""), CAROL], REFUSED),
    row(&FRONT_PROXY, &[MASTERS, USER_ID, SCOPES], REFUSED),
    row(&FRONT_PROXY, FOLDED, REFUSED),
    row(&FRONT_PROXY, &[TOKEN], BOB),
    row(&FRONT_PROXY, &[TOKEN, MASTERS, SCOPES], BOB),
    row(&FRONT_PROXY, &[WRONG], REFUSED),
    row(&FRONT_PROXY, &[CAROL, LOW_GROUP, LOW_UID, LOW_SCOPES], Is::User(named("carol", &[AUTH]))),
    row(
        &FRONT_PROXY,
        &[CAROL, h("X-Remote-Group", ""), h("X-Remote-Group", "g1")],
        Is::User(named("carol", &["g1", AUTH])),
    ),
    row(&FRONT_PROXY, &[CAROL, h("X-Remote-Group", AUTH)], Is::User(named("carol", &[AUTH]))),
    row(&FRONT_PROXY, &[CAROL, h("X-Remote-Group", "system:unauthenticated")], Is::Forbidden("carol")),
    row(
        &FRONT_PROXY,
        &[CAROL, h("X-Remote-Uid", "1"), h("X-Remote-Uid", "2")],
        Is::User(named("carol", &[AUTH]).uid("1")),
    ),
    row(
        &FRONT_PROXY,
        &[h("X-Remote-User", "system:anonymous"), h("X-Remote-Group", "system:unauthenticated")],
        ANONYMOUS,
    ),
    row(
        &FRONT_PROXY,
        &[h("X-Remote-User", "jörg ☃"), h("X-Remote-Group", "Küche"), h("X-Remote-Extra-Name", "Grüße ☃")],
        Is::User(named("jörg ☃", &["Küche", AUTH]).extra(&[("name", &["Grüße ☃"])])),
    ),
    // Bytes that are not UTF-8 pass as they are; JSON cannot show them.
    row(&FRONT_PROXY, &[("X-Remote-User", b"j\xf6rg")], Is::User(named("j\u{fffd}rg", &[AUTH]))),
    row(
        &FRONT_PROXY,
        &[CAROL, SCOPES, h("X-Remote-Extra-Scopes", "some"), h("X-Remote-Extra-Empty", "")],
        Is::User(named("carol", &[AUTH]).extra(&[("scopes", &["all", "some"]), ("empty", &[""])])),
    ),
    row(
        &FRONT_PROXY,
        &[CAROL, h("X-Remote-Extra-Example.com%2FOdd%20Key%C3%9C", "1"), h("X-Remote-Extra-a+b", "2")],
        Is::User(named("carol", &[AUTH]).extra(&[("example.com/odd keyÜ", &["1"]), ("a+b", &["2"])])),
    ),
    row(
        &FRONT_PROXY,
        &[CAROL, h("X-Remote-Extra-Bad%zz%2fkey", "raw"), h("X-Remote-Extra-Half%2", "raw"), NO_KEY],
        Is::User(named("carol", &[AUTH]).extra(&[
            ("bad%zz%2fkey", &["raw"]),
            ("half%2", &["raw"]),
            ("", &["all"]),
        ])),
    ),
    row(
        &FRONT_PROXY,
        &[CAROL, h("X-Remote-Extra-Under_Score!#$&'*+.^`|~", "1"), h("X-Remote-Extra-%FF", "2")],
        Is::User(named("carol", &[AUTH]).extra(&[("under_score!#$&'*+.^`|~", &["1"]), ("\u{fffd}", &["2"])])),
    ),
    row(&PROXY_LAST, &[CAROL], Is::User(named("carol", &[AUTH]))),
    row(&OLD_PROXY, &[CAROL], Is::User(named("carol", &[AUTH]))),
    row(&OLD_PROXY, &[], REFUSED),
];

const AS_CAROL: Field = h("Impersonate-User", "carol");
const AS_GROUP: Field = h("Impersonate-Group", "g1");
const AS_ANONYMOUS: Field = h("Impersonate-User", "system:anonymous");
const AS_ACCOUNT: Field = h("Impersonate-User", "system:serviceaccount:ns:a");

pub static IMPERSONATION: &[Row] = &[
    row(&ADMIN, &[AS_CAROL], Is::User(named("carol", &[AUTH]))),
    row(
        &ADMIN,
        &[
            AS_CAROL,
            AS_GROUP,
            h("Impersonate-Group", "g2"),
            h("Impersonate-Uid", "c-1"),
            h("Impersonate-Extra-Example.com%2fKey", "1"),
        ],
        Is::User(named("carol", &["g1", "g2", AUTH]).uid("c-1").extra(&[("example.com/key", &["1"])])),
    ),
    row(&ADMIN, &[AS_CAROL, ADMIN_S_NAME, MASTERS, SCOPES], Is::User(named("carol", &[AUTH]))),
    row(&ADMIN, &[AS_ANONYMOUS], ANONYMOUS),
    row(
        &ADMIN,
        &[AS_ACCOUNT],
        Is::User(named(
            "system:serviceaccount:ns:a",
            &["system:serviceaccounts", "system:serviceaccounts:ns", AUTH],
        )),
    ),
    row(&ADMIN, &[AS_GROUP], Is::Failure(500)),
    row(&ADMIN, &[h("Impersonate-User", "")], Is::User(certified("admin", &["system:masters", AUTH]))),
    row(&ALICE, &[AS_CAROL], Is::Failure(403)),
    row(&ALICE, &[AS_CAROL, ADMIN_S_NAME, MASTERS], Is::Failure(403)),
    row(&NOBODY, &[AS_CAROL], Is::Failure(403)),
    row(&NOBODY, &[TOKEN, AS_CAROL], Is::Failure(403)),
    row(&STRANGER, &[AS_CAROL], REFUSED),
    row(&FRONT_PROXY, &[CAROL, h("Impersonate-User", "eve")], Is::Failure(403)),
    row(&FRONT_PROXY, &[ADMIN_S_NAME, MASTERS, AS_CAROL], Is::User(named("carol", &[AUTH]))),
];
