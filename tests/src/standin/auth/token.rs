//! Knows static bearer tokens, in the Authorization header or in a WebSocket subprotocol.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};

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

    /// The holder of the request's token; none when it has no token.
    pub(super) fn user(&self, headers: &HeaderMap) -> Result<Option<User>, TokenError> {
        match bearer(headers).or_else(|| websocket_bearer(headers)) {
            Some(token) => self.0.get(&token).cloned().map(Some).ok_or(TokenError),
            None => Ok(None),
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?.trim();
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}

/// `Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.TOKEN`, for browsers.
fn websocket_bearer(headers: &HeaderMap) -> Option<String> {
    let protocols = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let encoded = protocols
        .flat_map(|value| value.split(','))
        .find_map(|protocol| protocol.trim().strip_prefix("base64url.bearer.authorization.k8s.io."))?;
    String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()
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
