//! Sends HTTP/1.1 byte by byte.

use futures_util::future::join_all;
use mvproxy_tests::client::connect_tls;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::site::{Arrives, Place, Site, Tried, Who, mark, ways};
use super::support::{Http, promptly};

/// Bytes on one connection. `{path}` is what the client may ask for, `/hidden` what it hides, and `{auth}` its token, if it
/// has one.
pub struct Row {
    pub what: &'static str,
    pub sends: &'static [u8],
    pub is: Is,
}

/// What becomes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Is {
    /// Nothing arrives, and this is the status.
    Refused(u16),
    /// Nothing arrives, and there is no answer either.
    Unheard,
    /// One request arrives, cleaned.
    Served,
    /// One request may begin to arrive; it never comes to its end.
    Cut,
}

/// Runs a table for everybody and on every path.
pub async fn table(site: &Site, rows: &[Row]) {
    let mut tried = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        let sent = ways().map(async |(who, place)| {
            let mark = mark(number, who, place);
            let status = send(site, row, who, place, &mark).await;
            let (arrives, is_right) = match row.is {
                Is::Refused(expected) => (Arrives::Nothing, status == Some(expected)),
                Is::Unheard => (Arrives::Nothing, status.is_none()),
                Is::Served => (Arrives::One, status.is_some()),
                Is::Cut => (Arrives::Part, true),
            };
            let wrong = (!is_right).then(|| format!("{:?} expected, not {status:?}", row.is));
            Tried { what: row.what, who, place, mark, arrives, wrong }
        });
        tried.extend(join_all(sent).await);
    }
    site.judge(&tried);
}

/// The status of the first answer, if there was one. The connection is used once more, to be sure that it was left in
/// order: what is taken for a body must not be taken for a request, nor the other way round.
async fn send(site: &Site, row: &Row, who: Who, place: Place, mark: &str) -> Option<u16> {
    let caller = site.caller(who, place);
    let auth = if who == Who::Bob { "Authorization: Bearer bob-token\r\n" } else { "" };
    let path = Site::path(place) + mark;
    let bytes = replaced(row.sends, &[("{path}", &path), ("{auth}", auth)]);
    let mut stream = connect_tls(&caller.options(site.address(place), Http::One)).await.unwrap();
    // It may be closed before all is written.
    let _ = stream.write_all(&bytes).await;
    let end = b"GET /livez HTTP/1.1\r\nHost: k\r\nUser-Agent: mvproxy/end\r\nConnection: close\r\n\r\n";
    let _ = stream.write_all(end).await;
    let mut answer = Vec::new();
    let _ = promptly(row.what, stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let answers = answer.replace("HTTP/1.0 ", "HTTP/1.1 ");
    let mut answers = answers.split("HTTP/1.1 ").skip(1).filter_map(|answer| answer.get(..3)?.parse().ok());
    answers.find(|status| *status != 100)
}

fn replaced(bytes: &[u8], words: &[(&str, &str)]) -> Vec<u8> {
    let mut all = Vec::new();
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        let word = words.iter().find(|(word, _)| rest.starts_with(word.as_bytes()));
        if let Some((word, meaning)) = word {
            all.extend(meaning.as_bytes());
            rest = &rest[word.len()..];
        } else {
            all.push(*first);
            rest = after;
        }
    }
    all
}
