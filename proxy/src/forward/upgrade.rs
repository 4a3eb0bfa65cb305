//! Carries upgraded connections: exec, attach and port-forward over SPDY or WebSocket.

use std::sync::Arc;

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio::time::timeout;
use tracing::debug;

use super::body::ResponseBody;
use super::pool::Pool;
use super::request::RequestBody;
use super::{HEADER_PATIENCE, Unanswered, to_origin_form};
use crate::account::RequestRecord;
use crate::limits::SourceGuard;
use crate::upstream::{TrustClass, Upstream};

/// An upgrade the client asks for.
#[derive(Clone, Debug)]
pub struct Upgrade {
    /// Value of its Upgrade header.
    pub protocol: HeaderValue,
    /// Resolves to the client's raw connection once it was answered with 101.
    pub client: OnUpgrade,
    /// Held until the upgraded connection ends: its source has one connection more for so long.
    pub place: Option<Arc<SourceGuard>>,
}

/// Sends an upgrade request on a connection of its own and joins the two connections when it is granted.
///
/// # Errors
/// See [`Unanswered`]; once sent, an upgrade is never sent again.
pub async fn attempt(
    pool: &Pool,
    upstream: &Upstream,
    class: TrustClass,
    mut request: Request<RequestBody>,
    upgrade: &Upgrade,
    record: &mut RequestRecord,
) -> Result<Response<ResponseBody>, Unanswered> {
    let mut sender = match pool.dialer().connect_for_upgrade(upstream, class).await {
        Ok(sender) => sender,
        Err(error) => return Err(Unanswered::not_connected(request, error)),
    };
    to_origin_form(&mut request);
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    request.headers_mut().insert(UPGRADE, upgrade.protocol.clone());
    record.sent_to(upstream);
    let sent = timeout(HEADER_PATIENCE, sender.send_request(request)).await;
    let mut response = match sent.map_err(|_| Unanswered::Late)? {
        Ok(response) => response,
        Err(source) => return Err(Unanswered::Broken { source, stale: false }),
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response.map(|body| ResponseBody::upstream(body, None)));
    }
    record.upgraded();
    let server = hyper::upgrade::on(&mut response);
    let (client, place) = (upgrade.client.clone(), upgrade.place.clone());
    pool.upgraded().spawn(async move {
        let _place = place;
        join(client, server).await;
    });
    Ok(response.map(|_| ResponseBody::empty()))
}

/// Copies both ways until both sides are done; each side's half-close is passed on.
async fn join(client: OnUpgrade, server: OnUpgrade) {
    let (client, server) = match tokio::try_join!(client, server) {
        Ok(pair) => pair,
        Err(error) => {
            debug!(%error, "an upgraded connection was given up before it was joined");
            return;
        }
    };
    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
    if let Err(error) = copy_bidirectional(&mut client, &mut server).await {
        debug!(%error, "an upgraded connection broke off");
    }
}
