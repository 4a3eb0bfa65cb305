//! The certificates that clients of the table show.

use mvproxy_tests::pki::forge::{
    ANY_USAGE, Attribute, CLIENT_AUTH, CN, Draft, O, SERVER_AUTH, Signer, UID, tag,
};
use mvproxy_tests::pki::{Identity, Pki};

/// A client's certificate, or none.
pub struct Card {
    pub label: &'static str,
    kind: Kind,
}

enum Kind {
    None,
    Signed(Signer, Draft<'static>),
    /// The client shows an intermediate authority as well, which comes first here.
    Under(Signer, Draft<'static>, Draft<'static>),
}

type Name = &'static [&'static [Attribute<'static>]];

impl Card {
    const fn of(label: &'static str, name: Name) -> Self {
        Self::signed(label, Signer::Cluster, Draft::of(name))
    }

    const fn front(label: &'static str, name: Name) -> Self {
        Self::signed(label, Signer::FrontProxy, Draft::of(name))
    }

    const fn signed(label: &'static str, by: Signer, draft: Draft<'static>) -> Self {
        Self { label, kind: Kind::Signed(by, draft) }
    }

    const fn under(label: &'static str, intermediate: Draft<'static>) -> Self {
        Self { label, kind: Kind::Under(Signer::Cluster, intermediate, Draft::of(ALICE_S_NAME)) }
    }

    /// A new certificate like this.
    pub fn issue(&self, pki: &Pki) -> Option<Identity> {
        match &self.kind {
            Kind::None => None,
            Kind::Signed(signer, draft) => Some(pki.forge(*signer, draft).unwrap()),
            Kind::Under(signer, intermediate, draft) => {
                Some(pki.forge_under(*signer, intermediate, draft).unwrap())
            }
        }
    }
}

const fn cn(text: &'static str) -> Attribute<'static> {
    Attribute::utf8(CN, text)
}

const fn o(text: &'static str) -> Attribute<'static> {
    Attribute::utf8(O, text)
}

const fn uid(text: &'static str) -> Attribute<'static> {
    Attribute::utf8(UID, text)
}

const fn typed(kind: &'static [u8], tag: u8, value: &'static [u8]) -> Attribute<'static> {
    Attribute { kind, tag, value }
}

const ALICE_S_NAME: Name = &[&[o("dev")], &[o("ops")], &[cn("alice")]];
const PROXY_S_NAME: Name = &[&[cn("front-proxy-client")]];

pub static NOBODY: Card = Card { label: "nobody", kind: Kind::None };
pub static ALICE: Card = Card::of("alice", ALICE_S_NAME);
pub static ADMIN: Card = Card::of("an administrator", &[&[o("system:masters")], &[cn("admin")]]);

pub static NAMELESS: Card = Card::of("no CN", &[&[o("dev")]]);
pub static TWO_NAMES: Card = Card::of("two CNs", &[&[cn("alice")], &[cn("eve")]]);
pub static EMPTY_LAST_NAME: Card = Card::of("two CNs, the last one empty", &[&[cn("alice")], &[cn("")]]);
pub static WITH_UID: Card = Card::of("a UID", &[&[uid("u-1")], &[cn("dave")]]);
pub static TWO_UIDS: Card = Card::of("two UIDs", &[&[uid("u-1")], &[uid("u-2")], &[cn("dave")]]);
pub static EMPTY_UID: Card = Card::of("an empty UID", &[&[uid("")], &[cn("dave")]]);
pub static MULTI_VALUED: Card =
    Card::of("RDNs of several values", &[&[o("z"), o("a")], &[o("m")], &[o("b"), cn("eve"), o("a")]]);
pub static ONE_RDN: Card = Card::of("all in one RDN", &[&[o("ops"), uid("u-2"), cn("eve"), o("dev")]]);
pub static MANY_GROUPS: Card =
    Card::of("five groups", &[&[o("g5")], &[o("g1")], &[o("g4, g6")], &[o("g3")], &[cn("eve")], &[o("g1")]]);

pub static NOT_ASCII: Card = Card::of("not ASCII", &[&[o("Küche")], &[uid("ü-1")], &[cn("jörg ☃")]]);
pub static PRINTABLE: Card = Card::of(
    "PrintableString and IA5String",
    &[&[typed(O, tag::PRINTABLE, b"dev & co*")], &[typed(CN, tag::IA5, b"eve@example.com")]],
);
pub static T61: Card =
    Card::of("TeletexString", &[&[typed(O, tag::T61, b"K\xfcche")], &[typed(CN, tag::T61, b"J\xf6rg")]]);
pub static BMP: Card = Card::of(
    "BMPString",
    &[&[typed(O, tag::BMP, b"\0d\0e\0v\0\0")], &[typed(CN, tag::BMP, b"\0j\0\xf6\0r\0g\x26\x03")]],
);
pub static ODD_BMP: Card = Card::of("half a BMPString", &[&[typed(CN, tag::BMP, b"\0a\0")]]);
pub static NOT_PRINTABLE: Card =
    Card::of("an @ in a PrintableString", &[&[typed(CN, tag::PRINTABLE, b"eve@example.com")]]);
pub static NOT_TEXT: Card = Card::of("a number for a group", &[&[typed(O, 0x02, b"\x07")], &[cn("eve")]]);

pub static BLANK_BEHIND: Card = Card::of("a blank behind", &[&[cn("alice ")]]);
pub static BLANK_BEFORE: Card = Card::of("a blank before", &[&[o(" system:masters")], &[cn("eve")]]);
pub static LINE_BREAK: Card = Card::of("a line break", &[&[cn("eve\r\nX-Remote-Group: system:masters")]]);
pub static NUL: Card = Card::of("a NUL", &[&[o("system:masters\0")], &[cn("eve")]]);

pub static SAYS_ANONYMOUS: Card = Card::of("calls itself anonymous", &[&[cn("system:anonymous")]]);
pub static SAYS_UNAUTHENTICATED: Card =
    Card::of("calls itself unauthenticated", &[&[o("system:unauthenticated")], &[cn("eve")]]);
pub static SAYS_AUTHENTICATED: Card =
    Card::of("calls itself authenticated", &[&[o("system:authenticated")], &[cn("eve")]]);
pub static SAYS_FRONT_PROXY: Card = Card::of("calls itself a front proxy", PROXY_S_NAME);

const PLAIN: Draft<'static> = Draft::of(ALICE_S_NAME);
const CA: Draft<'static> = Draft { is_ca: true, usages: &[], ..Draft::of(&[&[cn("intermediate")]]) };
const PAST: [&str; 2] = ["200101000000Z", "210101000000Z"];
const FUTURE: [&str; 2] = ["480101000000Z", "491231235959Z"];

const fn alice(label: &'static str, draft: Draft<'static>) -> Card {
    Card::signed(label, Signer::Cluster, draft)
}

pub static STRANGER: Card = Card::signed("a stranger", Signer::Strangers, PLAIN);
pub static EXPIRED: Card = alice("expired", Draft { valid: PAST, ..PLAIN });
pub static NOT_YET_VALID: Card = alice("not yet valid", Draft { valid: FUTURE, ..PLAIN });
pub static FOR_SERVERS: Card = alice("for servers", Draft { usages: &[SERVER_AUTH], ..PLAIN });
pub static FOR_BOTH: Card =
    alice("for servers and clients", Draft { usages: &[SERVER_AUTH, CLIENT_AUTH], ..PLAIN });
pub static FOR_ANYTHING: Card = alice("for any usage", Draft { usages: &[ANY_USAGE], ..PLAIN });
pub static FOR_NOTHING_SAID: Card = alice("no usages", Draft { usages: &[], ..PLAIN });
pub static VERSION_1: Card = alice("version 1", Draft { version: 1, ..PLAIN });
pub static OLD_STRANGER: Card =
    Card::signed("a stranger of version 1", Signer::Strangers, Draft { version: 1, ..PLAIN });
pub static UNKNOWN_CRITICAL: Card =
    alice("an unknown critical extension", Draft { has_unknown_critical: true, ..PLAIN });
pub static A_CA: Card = alice("a CA", Draft { is_ca: true, ..PLAIN });
pub static UNDER_CA: Card = Card::under("below an intermediate", CA);
pub static UNDER_LEAF: Card = Card::under("below a client", Draft { is_ca: false, ..CA });
pub static UNDER_EXPIRED: Card = Card::under("below an expired intermediate", Draft { valid: PAST, ..CA });
pub static UNDER_SERVERS: Card =
    Card::under("below an intermediate for servers", Draft { usages: &[SERVER_AUTH], ..CA });
pub static UNDER_IMPOSTOR: Card = Card {
    label: "below a stranger with the CA's name",
    kind: Kind::Under(Signer::Strangers, Draft { subject: &[&[cn("kubernetes")]], ..CA }, PLAIN),
};
pub static UNDER_VERSION_1: Card =
    Card::under("below an intermediate of version 1", Draft { version: 1, ..CA });

pub static FRONT_PROXY: Card = Card::front("a front proxy", PROXY_S_NAME);
pub static OTHER_PROXY: Card = Card::front("a front proxy that is not allowed", &[&[cn("other-proxy")]]);
pub static NAMELESS_PROXY: Card = Card::front("a front proxy without a name", &[&[o("front-proxy-client")]]);
pub static PROXY_LAST: Card =
    Card::front("a front proxy by its last CN", &[&[cn("other-proxy")], &[cn("front-proxy-client")]]);
pub static PROXY_FIRST: Card =
    Card::front("a front proxy by its first CN", &[&[cn("front-proxy-client")], &[cn("other-proxy")]]);
pub static EXPIRED_PROXY: Card = Card::signed(
    "an expired front proxy",
    Signer::FrontProxy,
    Draft { valid: PAST, ..Draft::of(PROXY_S_NAME) },
);
pub static SERVING_PROXY: Card = Card::signed(
    "a front proxy's serving certificate",
    Signer::FrontProxy,
    Draft { usages: &[SERVER_AUTH], ..Draft::of(PROXY_S_NAME) },
);
pub static OLD_PROXY: Card = Card::signed(
    "a front proxy of version 1",
    Signer::FrontProxy,
    Draft { version: 1, ..Draft::of(PROXY_S_NAME) },
);
