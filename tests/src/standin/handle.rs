//! Takes a request through kube-apiserver's filters to the handler that answers it.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, StatusCode, Version, request};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::auth::impersonate;
use super::authorize::authorize;
use super::call::Call;
use super::cut::{Cut, Then};
use super::faults::Fault;
use super::health::{self, Health};
use super::query::Query;
use super::recorder::{RecordedRequest, is_peer_proxied};
use super::request_info::RequestInfo;
use super::respond::{self, Body, Outcome, Style};
use super::server::{Connection, Shared};
use super::status::{Details, Status};
use super::user::User;
use super::{clock, discovery, openapi, storage};

/// Answers one request.
pub(super) async fn handle(
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let style = Style::of(&parts);
    let version = parts.version;
    let audit_id = parts.headers.get("audit-id").cloned().unwrap_or_else(new_audit_id);
    let (user, outcome) = answer(&shared, &connection, parts, body, style).await;
    let mut response = outcome.unwrap_or_else(|status| respond::failure(style, &status));
    respond::decorate(response.headers_mut(), audit_id);
    if let Some(user) = &user {
        for (name, id) in PRIORITY_HEADERS.into_iter().zip(&shared.priority_ids) {
            response.headers_mut().insert(name, HeaderValue::from_str(id).expect("a UUID is a header value"));
        }
        tracing::debug!(user = user.name, status = response.status().as_u16(), "answered");
    }
    if user.is_none_or(|user| user.is_anonymous()) {
        close_unauthenticated(&shared, &connection, version, &mut response);
    }
    Ok(response)
}

const PRIORITY_HEADERS: [&str; 2] = ["x-kubernetes-pf-flowschema-uid", "x-kubernetes-pf-prioritylevel-uid"];

/// Unauthenticated clients may not keep an HTTP/2 connection: kube-apiserver's gate `UnauthenticatedHTTP2DOSMitigation`.
fn close_unauthenticated(
    shared: &Shared,
    connection: &Connection,
    version: Version,
    response: &mut Response<Body>,
) {
    if version == Version::HTTP_2 {
        connection.close.notify_one();
    } else if shared.close_unauthenticated_http1 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

/// The user, unless authentication failed, and the answer.
async fn answer(
    shared: &Arc<Shared>,
    connection: &Connection,
    parts: request::Parts,
    body: Incoming,
    style: Style,
) -> (Option<User>, Outcome) {
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
    let info = match RequestInfo::parse(&parts.method, &target) {
        Ok(info) => info,
        // Before authentication, as in kube-apiserver.
        Err(error) => return (None, Err(Status::internal(format!("failed to create RequestInfo: {error}")))),
    };
    if shared.faults.is_shutting_down(&info.path) {
        return (None, Err(Status::shutting_down()));
    }
    let authenticator = shared.authenticator();
    let presented = authenticator.examine(&connection.chain);
    let authenticated = authenticator.authenticate(presented.as_ref(), &parts.headers);
    let effective = match authenticated {
        Ok(user) => impersonate::effective(user, &parts.headers),
        Err(error) => {
            tracing::info!(%error, "Unable to authenticate the request");
            record(shared, connection, &parts, target, None);
            return (None, Err(Status::unauthorized()));
        }
    };
    record(shared, connection, &parts, target, effective.as_ref().ok());
    let user = match effective {
        Ok(user) => user,
        Err(status) => return (Some(User::default()), Err(status)),
    };
    let cut = match suffer(shared, connection, &parts, &info).await {
        Ok(cut) => cut,
        Err(status) => return (Some(user), Err(status)),
    };
    if let Err(status) = authorize(&user, &info) {
        return (Some(user), Err(status));
    }
    let is_write = info.is_resource && !parts.method.is_safe();
    let outcome = route(shared, &user, info, parts, body, style).await;
    if is_write && !shared.answer_delay.is_zero() {
        tokio::time::sleep(shared.answer_delay).await;
    }
    let outcome = match cut {
        Some((after, then)) => {
            outcome.map(|response| response.map(|body| Cut::new(body, after, then).boxed_unsync()))
        }
        None => outcome,
    };
    (Some(user), outcome)
}

/// Lets an injected fault have its way; after how many bytes the body is to be cut.
async fn suffer(
    shared: &Shared,
    connection: &Connection,
    parts: &request::Parts,
    info: &RequestInfo,
) -> Result<Option<(usize, Then)>, Box<Status>> {
    let fault = shared.faults.of_request(&info.path).filter(|_| !shared.loopback.is_own(&parts.headers));
    match fault {
        Some(Fault::Delay(delay)) => tokio::time::sleep(delay).await,
        Some(Fault::InternalError) => return Err(Status::internal("an injected fault")),
        Some(Fault::Forbidden) => {
            let details = Details::of(&info.group, &info.resource, &info.name);
            return Err(Status::forbidden(details, "an injected fault"));
        }
        Some(Fault::TooManyRequests { retry_after }) => return Err(Status::too_many_requests(retry_after)),
        Some(Fault::CutBody { after }) => return Ok(Some((after, Then::Break))),
        Some(Fault::StallBody { after }) => return Ok(Some((after, Then::Stall))),
        Some(Fault::GoAway) => connection.close.notify_one(),
        Some(Fault::Refuse | Fault::TurnAway { .. } | Fault::ShuttingDown) | None => {}
    }
    Ok(None)
}

/// Finds the handler of a path.
async fn route(
    shared: &Arc<Shared>,
    user: &User,
    info: RequestInfo,
    parts: request::Parts,
    body: Incoming,
    style: Style,
) -> Outcome {
    let documents = shared.documents();
    if info.is_resource {
        let call = Call {
            method: parts.method.clone(),
            headers: parts.headers.clone(),
            version: parts.version,
            query: Query::parse(parts.uri.query().unwrap_or_default()),
            info,
            style,
            user: user.clone(),
            documents,
        };
        return storage::serve(shared, &call, Request::from_parts(parts, body)).await;
    }
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let path = info.path.as_str();
    if let Some(outcome) = discovery::serve(&documents, &shared.address, &parts, path, style) {
        return outcome;
    }
    let health = Health {
        loopback_failed: shared.loopback.is_broken(),
        stopping: shared.stopping.load(Ordering::Relaxed),
    };
    if let Some(response) = health::serve(health, documents.readyz, path, &query) {
        return Ok(response);
    }
    match path {
        // Indented for everybody, as recorded.
        "/version" | "/version/" => {
            Ok(respond::with_type(StatusCode::OK, "application/json", documents.version.trim_end().into()))
        }
        _ => {
            Ok(openapi::serve(&documents, path, &parts.headers, style)
                .unwrap_or_else(respond::page_not_found))
        }
    }
}

fn record(
    shared: &Shared,
    connection: &Connection,
    parts: &request::Parts,
    target: String,
    user: Option<&User>,
) {
    if shared.loopback.is_own(&parts.headers) {
        return;
    }
    shared.recorder.push(RecordedRequest {
        method: parts.method.clone(),
        target,
        headers: parts.headers.clone(),
        user: user.cloned(),
        version: parts.version,
        connection: connection.id,
        client_certificate: !connection.chain.is_empty(),
        peer_proxied: is_peer_proxied(&parts.headers),
    });
}

fn new_audit_id() -> HeaderValue {
    HeaderValue::from_str(&clock::uuid()).expect("a UUID is a header value")
}
