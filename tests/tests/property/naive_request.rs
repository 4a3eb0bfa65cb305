//! Reads requests by the letter of kube-apiserver's algorithm, with owned strings and plain loops.

use crate::naive_selector::required_name;

/// What `RequestInfo` holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NaiveRequest {
    pub(crate) is_resource: bool,
    pub(crate) verb: String,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// Reads a request line; `None` where kube-apiserver answers 500.
pub(crate) fn read(method: &str, raw_path: &str, raw_query: &str) -> Option<NaiveRequest> {
    let mut request = NaiveRequest { verb: method.to_lowercase(), ..NaiveRequest::default() };
    let path = String::from_utf8_lossy(&decode(raw_path.as_bytes())).into_owned();
    let mut segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    if segments.len() < 3 {
        return Some(request);
    }
    match segments.remove(0) {
        "api" => {}
        "apis" if segments.len() >= 3 => request.group = segments.remove(0).into(),
        _ => return Some(request),
    }
    request.is_resource = true;
    request.version = segments.remove(0).into();

    let is_legacy = segments[0] == "watch" || segments[0] == "proxy";
    if is_legacy {
        request.verb = segments.remove(0).into();
        if segments.is_empty() {
            return None;
        }
    } else {
        request.verb = match method {
            "POST" => "create",
            "GET" | "HEAD" => "get",
            "PUT" => "update",
            "PATCH" => "patch",
            "DELETE" => "delete",
            _ => "",
        }
        .into();
    }

    if segments[0] == "namespaces" && segments.len() > 1 {
        request.namespace = segments[1].into();
        if segments.len() > 2 && segments[2] != "status" && segments[2] != "finalize" {
            segments.drain(..2);
        }
    }
    request.resource = segments[0].into();
    if segments.len() > 1 {
        request.name = segments[1].into();
    }
    if segments.len() > 2 && request.verb != "proxy" {
        request.subresource = segments[2].into();
    }
    if request.name.is_empty() && request.verb == "get" {
        list_or_watch(&mut request, &pairs(raw_query));
    } else if request.name.is_empty() && request.verb == "delete" {
        request.verb = "deletecollection".into();
    }
    Some(request)
}

fn list_or_watch(request: &mut NaiveRequest, query: &[(String, String)]) {
    let first = |key: &str| query.iter().find(|(found, _)| found == key).map(|(_, value)| value.as_str());
    let watch = first("watch").is_some_and(|value| value != "0" && value.to_lowercase() != "false");
    request.verb = if watch { "watch" } else { "list" }.into();
    for key in ["limit", "timeoutSeconds"] {
        if first(key).is_some_and(|value| value.parse::<i64>().is_err()) {
            return;
        }
    }
    if let Some(name) = first("fieldSelector").and_then(required_name) {
        request.name = name;
    }
}

/// Go's `url.ParseQuery`, without the pairs it drops.
fn pairs(query: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for pair in query.split('&') {
        let (key, value) = match pair.find('=') {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, ""),
        };
        if !pair.contains(';')
            && let (Some(key), Some(value)) = (decode_query(key), decode_query(value))
        {
            pairs.push((key, value));
        }
    }
    pairs
}

fn decode_query(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    for at in 0..bytes.len() {
        if bytes[at] == b'%' && escaped(&bytes[at..]).is_none() {
            return None;
        }
    }
    let spaced: Vec<u8> = bytes.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    Some(String::from_utf8_lossy(&decode(&spaced)).into_owned())
}

/// Replaces escapes; what only looks like one stays.
fn decode(bytes: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if let Some(byte) = escaped(&bytes[at..]) {
            decoded.push(byte);
            at += 3;
        } else {
            decoded.push(bytes[at]);
            at += 1;
        }
    }
    decoded
}

fn escaped(bytes: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*bytes.get(at)?).to_digit(16);
    if bytes.first() != Some(&b'%') {
        return None;
    }
    u8::try_from(digit(1)? * 16 + digit(2)?).ok()
}
