//! Serves the objects of every resource the documents list: routes a request to the verb it asks for.

use std::sync::Arc;

use http::{Method, Request};
use hyper::body::Incoming;

use self::target::Target;
use super::call::Call;
use super::respond::{self, Outcome};
use super::server::Shared;
use super::status::Status;
use super::{upgrade, watch};

mod body;
mod list;
pub(super) mod object;
mod patch;
mod read;
mod review;
pub(super) mod target;
pub(super) mod view;
mod write;

pub(super) use list::selectors;
pub(super) use read::unavailable;

/// Answers a resource request.
pub(super) async fn serve(shared: &Arc<Shared>, call: &Call, request: Request<Incoming>) -> Outcome {
    let info = &call.info;
    let Some(target) = Target::find(&call.documents, info)? else {
        return Ok(respond::page_not_found());
    };
    // Only GET has routes for reading; HEAD finds none.
    if call.method == Method::HEAD || !target.allows(&info.verb) || !target.fits(&info.verb) {
        return Err(Status::method_not_allowed());
    }
    let storage = Storage { shared, call, target: &target };
    if target.is_streaming() {
        storage.require(&target.name).await?;
        return upgrade::serve(shared, call, request);
    }
    if target.is_review() {
        return storage.review(request.into_body()).await;
    }
    if !target.is_stored() {
        return Err(storage.not_implemented());
    }
    match info.verb.as_str() {
        "get" => storage.get().await,
        "list" => storage.list().await,
        "watch" => watch::serve(shared, call, target).await,
        "create" => storage.create(request.into_body()).await,
        "update" => storage.update(request.into_body()).await,
        "patch" => storage.patch(request.into_body()).await,
        "delete" => storage.delete(request.into_body()).await,
        "deletecollection" => storage.delete_collection(request.into_body()).await,
        _ => Err(Status::method_not_allowed()),
    }
}

/// What every verb works with.
struct Storage<'a> {
    shared: &'a Arc<Shared>,
    call: &'a Call,
    target: &'a Target,
}
