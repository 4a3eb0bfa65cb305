//! Knows static bearer tokens, in the Authorization header or in a WebSocket subprotocol.

use std::borrow::Cow;
use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, CONNECTION, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderName};

use crate::standin::clock;
use crate::standin::user::{MASTERS, User};

/// One line of `--token-auth-file`.
#[derive(Clone, Debug)]
pub struct StaticToken {
    /// The secret.
    pub token: String,
    /// Whose it is.
    pub user: User,
}

/// A token file that cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("line {line} of the token file does not have the columns token,user,uid[,\"group,…\"]")]
pub struct BadTokenFile {
    /// Counted from 1.
    pub line: usize,
}

/// Reads kube-apiserver's static token file.
///
/// # Errors
/// When a line has fewer than three columns.
pub fn parse_token_file(text: &str) -> Result<Vec<StaticToken>, BadTokenFile> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(index, line)| parse_line(line).ok_or(BadTokenFile { line: index + 1 })).collect()
}

fn parse_line(line: &str) -> Option<StaticToken> {
    let mut columns = line.splitn(4, ',');
    let (token, name, uid) = (columns.next()?, columns.next()?, columns.next()?);
    let groups = columns.next().unwrap_or_default().trim().trim_matches('"');
    let groups = groups.split(',').filter(|group| !group.is_empty()).map(str::to_owned).collect();
    let user = User { name: name.trim().to_owned(), uid: uid.trim().to_owned(), groups, ..User::default() };
    (!token.is_empty()).then(|| StaticToken { token: token.to_owned(), user })
}

/// A token that nobody knows.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("invalid bearer token")]
pub(in crate::standin) struct TokenError;

/// All tokens of one server, the loopback client's included.
pub(in crate::standin) struct Tokens(HashMap<String, User>);

impl Tokens {
    pub(super) fn new(tokens: Vec<StaticToken>, loopback_token: String) -> Self {
        let loopback = User {
            name: "system:apiserver".to_owned(),
            uid: clock::uuid(),
            groups: vec![MASTERS.to_owned()],
            ..User::default()
        };
        let known = tokens.into_iter().map(|one| (one.token, one.user));
        Self(known.chain([(loopback_token, loopback)]).collect())
    }

    /// The holder of the token in the Authorization header; none when there is none.
    pub(super) fn by_bearer(&self, headers: &HeaderMap) -> Result<Option<User>, TokenError> {
        bearer(headers).map(|token| self.holder(&token)).transpose()
    }

    /// The holder of the token in a WebSocket handshake; none when it is no WebSocket handshake or has no token.
    pub(super) fn by_websocket(&self, headers: &HeaderMap) -> Result<Option<User>, TokenError> {
        if !is_websocket(headers) {
            return Ok(None);
        }
        websocket_token(headers)?.map(|token| self.holder(&token)).transpose()
    }

    fn holder(&self, token: &str) -> Result<User, TokenError> {
        self.0.get(token).cloned().ok_or(TokenError)
    }
}

/// What follows `Bearer` and one blank, up to the next blank (`bearertoken.go`).
fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = text(headers, &AUTHORIZATION)?;
    let mut words = value.trim().split(' ');
    let (scheme, token) = (words.next()?, words.next()?);
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}

/// `IsWebSocketRequest`: `Upgrade` is just that word, and `Connection` lists it.
fn is_websocket(headers: &HeaderMap) -> bool {
    let connection = text(headers, &CONNECTION).unwrap_or_default();
    text(headers, &UPGRADE).is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
        && connection.split(',').any(|option| option.trim().eq_ignore_ascii_case("upgrade"))
}

/// `Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.TOKEN, OTHER`, for browsers (`websocket/protocol.go`).
///
/// Two tokens, one that cannot be decoded, or one without another protocol beside it are errors.
fn websocket_token(headers: &HeaderMap) -> Result<Option<String>, TokenError> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let values: Vec<_> = values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    let protocols = values.iter().flat_map(|value| value.split(',')).map(str::trim);
    let encoded = |protocol: &&str| protocol.starts_with(WEBSOCKET_PREFIX);
    let (tokens, others): (Vec<&str>, Vec<&str>) = protocols.partition(encoded);
    match tokens[..] {
        [] => Ok(None),
        [token] if !others.is_empty() => {
            let decoded = URL_SAFE_NO_PAD.decode(&token[WEBSOCKET_PREFIX.len()..]).map_err(|_| TokenError)?;
            let token = String::from_utf8(decoded).map_err(|_| TokenError)?;
            Ok(Some(token).filter(|token| !token.is_empty()))
        }
        _ => Err(TokenError),
    }
}

const WEBSOCKET_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// The first value of a header; Go does not care whether bytes are UTF-8.
fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, str>> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_token_files() {
        let tokens = parse_token_file("bob-token,bob,bob-uid,\"qa,ops\"\n\nt2,carol,c\n").unwrap();
        assert_eq!(tokens.len(), 2);
        assert_eq!(tokens[0].user.groups, ["qa", "ops"]);
        assert_eq!((tokens[1].user.name.as_str(), tokens[1].user.groups.len()), ("carol", 0));
        assert_eq!(parse_token_file("ok,a,b\nbroken\n").unwrap_err().line, 2);
    }
}
